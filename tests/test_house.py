"""The house in order: pins, the Space's front matter, imports that are declared, commands that exist."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image
from skimage.data import chelsea

import hub.cli
import training.cli
from hub.agreement import failures, read_agreement
from hub.bundle import DEFAULT
from hub.scores import score

ROOT = Path(__file__).parent.parent
SPACE, TRAINING, DEV = "requirements.txt", "requirements-training.txt", "requirements-dev.txt"
TRANSFORMERS = "requirements-transformers.txt"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, TOOL = PYPROJECT["project"], PYPROJECT["tool"]
PIP = "--disable-pip-version-check --requirement"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # the ones a Space may have
LARGE = {"tensorflow", "tensorflow-cpu", "keras", "torch", "jax", "datasets", "scikit-learn"}


def requirements(name: str) -> list[Requirement]:
    """The requirements of a file and of the files it includes."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found += requirements(line.removeprefix("-r ").strip())
        elif line:
            found.append(Requirement(line))
    return found


def names(found: list[Requirement]) -> set[str]:
    """Their packages' names, spelt one way."""
    return {canonicalize_name(requirement.name) for requirement in found}


def needed(roots: list[Requirement]) -> set[str]:
    """Every package that pip brings for `roots` on this machine, by what the installed ones declare."""
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in roots for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({**default_environment(), "extra": extra}):
                waiting += [(inner, e) for e in ("", *inner.extras)]
    return {name for name, _ in seen}


def front_matter() -> dict:
    """The YAML block at the top of README.md."""
    block = re.match(r"---\n(.*?)\n---\n", README, re.DOTALL)
    assert block, "README.md must begin with the Space's YAML block"
    return yaml.safe_load(block[1])


def imported(path: Path, *, at_import: bool) -> set[str]:
    """Top-level packages a file imports: all of them, or only those that its own import brings."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(handler) for handler in node.handlers):
            return  # a plug-in that may be missing
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            if not at_import:
                found.update(*(imports_of(child) for child in node.body))
            return
        found.update(imports_of(node))
        for child in ast.iter_child_nodes(node):
            visit(child)

    def imports_of(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Import):
            return {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            return {node.module.split(".")[0]}
        return set()

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - set(sys.stdlib_module_names)


def undeclared(files: list[Path], declared: set[str], *, at_import: bool) -> list[str]:
    """`file: package` for each third-party import that no declared requirement provides."""
    own = {path.name for path in ROOT.iterdir() if path.is_dir()} | {path.stem for path in ROOT.glob("*.py")}
    providers = metadata.packages_distributions()  # what is not installed here is taken to be called as it is imported
    return [
        f"{path.relative_to(ROOT)}: {package}"
        for path in files
        for package in sorted(imported(path, at_import=at_import) - own)
        if not {canonicalize_name(name) for name in providers.get(package, [package])} & declared
    ]


def python_files(*rooms: str) -> list[Path]:
    """The Python files of some rooms and of the root's door, app.py, where it is named."""
    return [path for room in rooms for path in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("name", [SPACE, TRAINING, DEV])
def test_every_requirement_is_pinned(name):
    """One exact version each, and the tests run on just that version."""
    for requirement in requirements(name):
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} in {name} is not pinned"
        if requirement.marker is None or requirement.marker.evaluate():
            assert metadata.version(requirement.name) in requirement.specifier


def test_transformers_has_an_environment_of_its_own():
    """Pinned, with the same Pillow and NumPy as here, and nothing of it beside TensorFlow."""
    pins = {requirement.name: str(requirement.specifier) for requirement in requirements(TRANSFORMERS)}
    assert all(re.fullmatch(r"==[^*,]+", pin) for pin in pins.values())
    here = {requirement.name: str(requirement.specifier) for requirement in requirements(SPACE)}
    assert {name: here[name] for name in ("numpy", "pillow")} == {name: pins[name] for name in ("numpy", "pillow")}
    assert not {"torch", "transformers"} & names(requirements(DEV))


def test_one_tensorflow_for_every_machine():
    """Wherever training is installed, exactly one of the two TensorFlow packages is chosen."""
    machines = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]
    for system, processor in machines:
        environment = {"sys_platform": system, "platform_machine": processor}
        chosen = [
            requirement.name
            for requirement in requirements(TRAINING)
            if requirement.name.startswith("tensorflow") and requirement.marker.evaluate(environment)
        ]
        small = (system, processor) in {("linux", "x86_64"), ("win32", "AMD64")}
        assert chosen == ["tensorflow-cpu" if small else "tensorflow"]


def test_space_stays_light():
    """Neither the Space's packages nor theirs bring TensorFlow, Keras or the tools of training."""
    assert not needed(requirements(SPACE)) & LARGE


def test_imports_are_declared():
    """What a room imports stands in the file that installs it; lazy imports are the asker's."""
    package = names([Requirement(text) for text in PROJECT["dependencies"]])
    assert undeclared(python_files("hub"), package, at_import=True) == []
    assert undeclared(python_files("app.py", "space"), names(requirements(SPACE)), at_import=True) == []
    asked = names([Requirement(text) for text in PROJECT["optional-dependencies"]["formats"]])
    asked |= names(requirements(TRANSFORMERS)) | names(requirements(TRAINING))
    assert undeclared(python_files("hub", "training"), asked, at_import=False) == []
    everything = python_files("app.py", "space", "tests", "benchmarks", "docs")
    assert undeclared(everything, asked | names(requirements(DEV)), at_import=False) == []


def test_package_accepts_what_was_tested():
    """The ranges a downloader gets hold the pinned versions, those of every extra included."""
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in requirements(DEV)}
    for text in [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != canonicalize_name(PROJECT["name"]):
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def test_front_matter():
    """The Space can start from README.md: the keys it knows, within its limits, agreeing with the files."""
    space = front_matter()
    assert space["sdk"] == "gradio"
    assert f"gradio=={space['sdk_version']}" in (ROOT / SPACE).read_text(encoding="utf-8").splitlines()
    assert Version(space["python_version"]) in Requirement(f"x{PROJECT['requires-python']}").specifier
    assert (ROOT / space["app_file"]).is_file()
    assert {space["colorFrom"], space["colorTo"]} <= COLOURS
    assert len(space["emoji"]) == 1
    assert 0 < len(space["short_description"]) <= 60
    assert space["license"] == PROJECT["license"].lower() == "apache-2.0"


def test_licence_is_whole():
    """The text of Apache-2.0, from its title to the end of its appendix."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert text.rstrip().endswith("limitations under the License.")


@pytest.mark.parametrize(
    "page",
    [path.relative_to(ROOT).as_posix() for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])],
)
def test_pages_point_at_what_exists(page):
    """Each local link and picture is there, each `make` target and option too, and no gap is left to fill."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), f"it points at {target}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = re.findall(r"(?s)^```sh\n(.*?)^```|`([^`\n]+)`|^    ([^\n]*)$", text.replace("\\\n", ""), re.MULTILINE)
    for line in itertools.chain(*(part.splitlines() for parts in code for part in parts)):
        for target in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", line):
            assert re.search(rf"^[a-z -]*\b{target}\b[a-z -]*: ", makefile, re.MULTILINE), f"it names make {target}"
        for room, name, inner in re.findall(r"\b(hub|training) ([a-z]+)(?: ([a-z]+))?\b", line):
            command = typer.main.get_command({"hub": hub.cli, "training": training.cli}[room].app).commands.get(name)
            command = command.commands.get(inner) if hasattr(command, "commands") else command
            assert command, f"it names {room} {name} {inner}"
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert set(re.findall(r"(?<=\s)--[a-z-]+", line)) <= known, line
        for name in re.findall(r"-m (benchmarks[.][a-z_.]+)", line):
            assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file(), f"it names {name}"
    assert "{{" not in text


@pytest.mark.parametrize("path", ["README.md", "training/recipes/cats_vs_dogs_mobilenetv2.py"])
def test_the_numbers_quoted_are_the_released_models(path):
    """What README.md and the recipe say of the test split is what metrics.json holds, to the printed digit."""
    metrics = json.loads((DEFAULT / "metrics.json").read_text(encoding="utf-8"))
    text = (ROOT / path).read_text(encoding="utf-8")
    scored = [metrics["test"], *(metrics["elsewhere"].values() if path == "README.md" else ())]
    for scores in scored:
        for name in ("roc_auc", "accuracy", "log_loss"):
            assert score(name, scores[name]) in text


def test_the_agreement_quoted_is_the_released_models():
    """The table of runtimes is agreement.json, to the printed digit, and all of them may be published."""
    page = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    found = read_agreement(DEFAULT)
    assert failures(found) == []
    assert f"the {found.photos:,} validation photos" in page
    rows = {name: row for name, row in found.runtimes.items() if not name.startswith("keras")}
    for row in rows.values():
        tensor, file = row.same_tensor.probability, row.same_file.probability
        assert f"| {row.title} | {tensor:.1e} | {file:.1e} |" in page


def test_the_recipes_quoted_are_there():
    """The workbench's table names each recipe once, with an accuracy that its docstring gives."""
    page = (ROOT / "docs" / "workbench.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE))
    recipes = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "training" / "recipes").glob("[a-z]*.py")
    }
    assert rows.keys() == recipes.keys()
    for name, accuracy in rows.items():
        quoted = re.match(r"[\d.]+ % \([\d.–]+", accuracy)
        assert quoted or name == "your_own"
        assert not quoted or quoted[0] in " ".join(recipes[name].split())


def test_the_page_is_described_as_it_is():
    """docs/page.md names every tab as the page does, and every option of app.py with its variable."""
    page = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    titles = json.loads((ROOT / "space" / "languages" / "page.json").read_text(encoding="utf-8"))
    code = (ROOT / "app.py").read_text(encoding="utf-8")
    tabs = ("try_it", "many", "quality", "compare", "model_card", "use_it")
    assert re.findall(r"^\| ([A-Z][^|]*?) \|", page, re.MULTILINE) == [titles[tab]["en"] for tab in tabs]
    assert {*re.findall(r"`(--[a-z]+)`", page)} == {*re.findall(r'"(--[a-z]+)"', code)}
    assert {*re.findall(r"`([A-Z]+_[A-Z_]+)`", page)} == {*re.findall(r'environ.get\("([A-Z_]+)"\)', code)}


def test_readme_is_short():
    """Somebody who is new reads all of it; what is longer has a page in docs/."""
    assert len(README.splitlines()) <= 150


def test_readme_python_runs(tmp_path, monkeypatch):
    """What README.md shows in Python works when it is copied out, top to bottom."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(chelsea()).save("photo.jpg")
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["prediction"].label == "cat"
    assert Image.open("evidence.png").size == (451, 300)


def test_hosted_checks_are_the_ones_of_make():
    """The workflow calls make's targets, its actions are pinned to commits, and it may only read."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make lint", "make test-all"]
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)
    assert "permissions" not in job


def test_pre_commit_runs_the_linters_version():
    """Ruff's two checks of `make lint`, pinned as in requirements-dev.txt, from the package index alone."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (pinned,) = [str(requirement) for requirement in requirements(DEV) if requirement.name == "ruff"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert [hook["id"] for hook in hooks[0]["hooks"]] == ["ruff-check", "ruff-format"]
    assert all(hook["additional_dependencies"] == [pinned] for hook in hooks[0]["hooks"])


def test_make_says_which_python_is_missing(tmp_path):
    """Without a suitable Python, make stops with one sentence and leaves nothing behind."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / SPACE, tmp_path)
    done = subprocess.run(["make", "app", "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    sentence, *rest = done.stderr.strip().splitlines()
    assert sentence.startswith("No Python 3.11 or newer")
    assert all(line.startswith("make") for line in rest)
    assert not (tmp_path / ".venv").exists()


def test_make_verify_wants_photos(tmp_path):
    """Without photos, make stops with one sentence before anything is installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    clean = {key: value for key, value in os.environ.items() if key != "PHOTOS"}
    done = subprocess.run(["make", "verify"], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode != 0
    sentence, *rest = done.stderr.strip().splitlines()
    assert sentence == "Name a folder of photos to compare on: make verify PHOTOS=FOLDER"
    assert all(line.startswith("make") for line in rest)
    assert not (tmp_path / ".venv").exists()


def test_what_make_test_leaves_out_is_in_make_test_all(tmp_path):
    """One mark tells them apart, CI runs the whole, and who names tests names them to both."""
    shutil.copy(ROOT / "Makefile", tmp_path)

    def planned(target: str) -> str:
        arguments = ["make", "-n", "-o", ".venv/stamps/dev", target, "ARGS=tests/hub -k map"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True, env=clean)
        return next(line for line in done.stdout.splitlines() if "-m pytest" in line)

    short, whole = planned("test"), planned("test-all")
    assert short.replace(' -m "not long"', "") == " ".join(whole.split()) != short
    assert whole.endswith("tests/hub -k map")
    assert "\nmake test-all " in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "addopts" in TOOL["pytest"]["ini_options"] and "-m" not in TOOL["pytest"]["ini_options"]["addopts"].split()
    assert [marker.partition(":")[0] for marker in TOOL["pytest"]["ini_options"]["markers"]] == ["long"]


def test_make_installs_once(tmp_path):
    """Set-up runs when requirements are newer than the stamp, and not again; the page needs only its own."""
    for name in ("Makefile", SPACE, TRAINING, DEV, TRANSFORMERS):
        shutil.copy(ROOT / name, tmp_path)

    def planned(*target: str) -> str:
        done = subprocess.run(["make", "-n", *target], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert "--requirement requirements.txt" in planned("app")
    assert TRAINING not in planned("app")
    assert f"--requirement {DEV}" in planned("test") and f"--requirement {DEV}" in planned("test-all")
    verify = ("verify", "PHOTOS=my photos", "NPM=", "BUNDLE=mine")
    assert f".venv-transformers/bin/python -m pip install --quiet {PIP} {TRANSFORMERS}" in planned(*verify)
    asked = 'hub verify "mine" --photos "my photos" --using transformers=.venv-transformers/bin/python'
    assert asked in planned(*verify)
    assert "transformers.js" not in planned(*verify)
    assert "npm install --prefix .venv-node" in planned(*verify, "NPM=npm")
    assert "--also transformers.js --using transformers.js=.venv-node" in planned(*verify, "NPM=npm")
    stamps = tmp_path / ".venv" / "stamps"
    stamps.mkdir(parents=True)
    for stamp in ("app", "training", "dev"):
        (stamps / stamp).touch()
    assert "pip install" not in planned("app") + planned("train") + planned("test")
    (tmp_path / ".venv-transformers").mkdir()
    (tmp_path / ".venv-transformers" / "stamp").touch()
    assert "pip install" not in planned(*verify)
    later = (stamps / "dev").stat().st_mtime + 10
    os.utime(tmp_path / TRAINING, (later, later))
    assert "pip install" not in planned("app")
    assert "pip install" in planned("test")
