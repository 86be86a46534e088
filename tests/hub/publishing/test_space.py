"""`python -m hub space push`: what goes up, what is refused, and that what went up runs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from hub.errors import BundleError
from hub.publishing import space
from tests.app_process import free_port, get, predict, started
from tests.hub_server import Fault, HubServer

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The client reads where the Hub is when it is imported, so it lives in a process that answers line by line.
WORKER = """
import json, os, sys
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from typer.testing import CliRunner
from hub.cli import app

def push(*arguments, token="hf_writer"):
    os.environ["HF_TOKEN"] = token
    done = CliRunner().invoke(app, ["space", "push", *arguments], catch_exceptions=False)
    return {"code": done.exit_code, "said": done.stdout, "refused": done.stderr}

def add(repo, repo_type, files):
    HfApi().create_commit(repo, [CommitOperationAdd(*file) for file in files.items()], commit_message="By hand",
                          repo_type=repo_type)

def model(repo, folder, private=False):
    HfApi().create_repo(repo, private=private)
    HfApi().upload_folder(repo_id=repo, folder_path=folder)

def snapshot(repo, folder, revision=None):
    return snapshot_download(repo, repo_type="space", local_dir=folder, revision=revision)

print("ready", flush=True)
for line in sys.stdin:
    call, arguments, options = json.loads(line)
    print(json.dumps(globals()[call](*arguments, **options)), flush=True)
"""


@pytest.fixture(scope="module")
def hub():
    """A Hub of this module's own."""
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """Call a function of WORKER, in a process that knows the Hub and the user hf_writer."""
    home = str(tmp_path_factory.mktemp("home"))
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": home, "HF_TOKEN": "hf_writer"}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"

    def call(name: str, *arguments, **options):
        process.stdin.write(json.dumps([name, arguments, options]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield call
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def repo(request, hub) -> str:
    """A name that no other test uses; the Hub's log is empty and nothing is to fail."""
    hub.log.clear()
    hub.faults.clear()
    return "tester/" + request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds, by path, but for the client's own cache."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".cache/")}


def front_matter(readme: bytes) -> dict:
    """The YAML block of a README.md, read without the package's own reader."""
    return yaml.safe_load(readme.decode().split("---\n")[1])


# ---- what belongs to it


def reached(start: Path) -> set[str]:
    """The project's files that a program can import, at once or later, itself or through others."""
    seen, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        modules = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        for parts in (module.split(".") for module in modules):
            for end in range(1, len(parts) + 1):
                place = ROOT.joinpath(*parts[:end])
                waiting += [found for found in (place / "__init__.py", place.with_suffix(".py")) if found.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in seen}


def test_what_is_pushed_is_what_the_page_can_reach():
    """No module less and none more; a new one of `hub` that the page does not use goes into space.LEFT_OUT."""
    pushed = {name for name in space.files() if name.endswith(".py")}
    assert pushed == reached(ROOT / "app.py")


def test_nothing_written_for_the_page_is_left_behind():
    """Styles, scripts and sentences too: every ending that lies in space/ is one that is pushed."""
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "space").rglob("*") if path.is_file()}
    assert {name for name in written if "__pycache__" not in name} <= space.files().keys()


def test_junk_is_no_part_of_it(tmp_path):
    """Caches, hidden files, notes, tests, training and the Keras file stay where they are; a link is refused."""
    wanted = space.files()
    junk = [
        ".env", "notes.txt", "space/.secret.py", "space/__pycache__/page.cpython-311.pyc", "space/page.py.orig",
        "space/.ipynb_checkpoints/page.py", "space/README.md", "hub/__pycache__/cli.py", "hub/token.json",
        f"{space.EMBEDDED}/model.keras", f"{space.EMBEDDED}/onnx/model.onnx.bak", "hub/pretrained/mine/config.json",
        "training/fit.py", "tests/test_house.py", "requirements-dev.txt", "runs/mine/app.py", "Dockerfile",
    ]  # fmt: skip
    for name in [*wanted, *junk, *space.LEFT_OUT]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert space.files(tmp_path).keys() == wanted.keys()
    small = space.files(tmp_path, model=False).keys()
    assert wanted.keys() - small == {f"{space.EMBEDDED}/{name}" for name in space.READ}
    (tmp_path / "LICENSE").unlink()
    (tmp_path / "LICENSE").symlink_to(tmp_path / ".env")
    with pytest.raises(BundleError, match=r"LICENSE is a link to .*\.env; put the file itself there\.$"):
        space.files(tmp_path)


def test_an_installed_package_has_no_page(tmp_path):
    """What is not a whole clone is refused in one sentence."""
    with pytest.raises(
        BundleError, match=r"holds no app.py to push; run this in a clone of the project's repository.$"
    ):
        space.files(tmp_path)
    for name in ("README.md", "app.py", "requirements.txt"):
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=r"has no LICENSE; restore the file or clone the repository again.$"):
        space.files(tmp_path)


# ---- its front matter


def test_the_projects_own_front_matter_passes():
    """README.md as it is, and with a model to serve; the page's text stays byte for byte."""
    space.check_front_matter(space.front_matter(README))
    text = space.serving(README, "tester/flowers", ["config.json", "onnx/model.onnx"])
    front = front_matter(text.encode())
    space.check_front_matter(front)
    assert front == front_matter(README.encode()) | {
        "models": ["tester/flowers"],
        "preload_from_hub": ["tester/flowers config.json,onnx/model.onnx"],
    }
    assert text.split("---\n", 2)[2] == README.split("---\n", 2)[2]
    again = space.serving(text, "tester/other", [])
    assert front_matter(again.encode()) == front_matter(README.encode()) | {"models": ["tester/other"]}


@pytest.mark.parametrize(
    ("entry", "wrong", "rule"),
    [
        ("title", "x" * 101, "at most 100 characters"),
        ("title", None, "missing"),
        ("title", "two\nlines", "one line"),
        ("short_description", "x" * 61, "at most 60 characters"),
        ("emoji", "🐾🐾", "a single emoji"),
        ("emoji", "cat", "a single emoji"),
        ("colorFrom", "orange", "one of blue, gray, green"),
        ("colorTo", "grey", "one of blue, gray, green"),
        ("sdk", "docker", "must be gradio"),
        ("sdk_version", "5.0.0", "as in requirements.txt"),
        ("sdk_version", 6.31, "as in requirements.txt"),
        ("python_version", 3.11, "in quotes"),
        ("python_version", "2.7", "in quotes"),
        ("app_file", "main.py", "a file that is pushed"),
        ("license", "Apache 2.0", "such as apache-2.0"),
        ("models", "tester/flowers", "a list"),
        ("models", ["flowers"], "OWNER/NAME"),
        ("preload_from_hub", ["tester/flowers config.json, onnx/model.onnx"], "FILE,FILE"),
        ("preload_from_hub", ["tester/flowers config.json main"], "a commit after"),
    ],
)
def test_what_the_hub_would_not_take_is_named(entry, wrong, rule):
    """One sentence with the entry, what it has and what it must be."""
    front = front_matter(README.encode()) | {entry: wrong}
    if wrong is None:
        del front[entry]
    with pytest.raises(BundleError) as refusal:
        space.check_front_matter(front)
    text = str(refusal.value)
    assert text.startswith(f"README.md's front matter has {entry} ") and text.endswith(".") and "\n" not in text
    assert rule in text


@pytest.mark.parametrize("emoji", ["🐾", "❤️", "👍🏽", "👩‍🔬", "🇩🇪", "🏳️‍🌈"])
def test_one_emoji_may_have_many_code_points(emoji):
    """Variation, skin tone, joined people and flags."""
    space.check_front_matter(front_matter(README.encode()) | {"emoji": emoji})


@pytest.mark.parametrize(
    ("text", "words"), [("# Cats", "does not begin with"), ("---\na: [\n---\n", "is not valid YAML")]
)
def test_a_readme_without_front_matter_is_one_sentence(text, words):
    """None at all, or none that can be read."""
    with pytest.raises(BundleError, match=words) as refusal:
        space.front_matter(text)
    assert "\n" not in str(refusal.value)


# ---- the push


def test_a_push_is_the_list_byte_for_byte(client, hub, repo, tmp_path):
    """In one commit of a Gradio Space; pushed again nothing happens, and only our own stale files ever go."""
    done = client("push", repo, "--private")
    assert (done["code"], done["refused"]) == (0, "")
    made = hub.repos[f"spaces/{repo}"]
    assert done["said"].startswith(f"Published: {hub.url}/spaces/{repo}/commit/{made.refs['main']}")
    assert made.private and made.variables == {} and len(made.commits) == 2
    expected = {name: path.read_bytes() for name, path in space.files().items()}
    here = contents(Path(client("snapshot", repo, str(tmp_path / "first"))))
    assert here.pop(".gitattributes")
    assert here == expected

    hub.log.clear()
    assert client("push", repo)["said"] == done["said"]
    assert not any(line.startswith("PUT") or "/commit/" in line for line in hub.log)

    stale = {"space/old_tab.py", f"{space.EMBEDDED}/model.keras", "hub/publishing/space.py"}
    theirs = {"packages.txt", "notes/hub/a.py", ".streamlit/x"}
    client("add", repo, "space", {name: str(ROOT / "LICENSE") for name in stale | theirs})
    hub.log.clear()
    outcome = json.loads(client("push", repo, "--json")["said"])
    assert sorted(outcome["files"]) == sorted(expected)
    changes = [line for line in hub.log if not line.split()[1].startswith("/")]
    assert sorted(changes) == sorted(f"deletedFile {name}" for name in stale)
    assert len(made.commits) == 4
    assert made.at("main").files.keys() == expected.keys() | theirs | {".gitattributes"}


def test_with_a_model_the_embedded_one_stays_here(client, hub, repo, bundle_2):
    """MODEL_ID and the front matter name it; a push without one makes all that undone."""
    served = f"{repo}-model"
    client("model", served, str(bundle_2))
    names = [name for name in space.READ if (bundle_2 / name).is_file()]
    assert len(names) < len(space.READ)  # what a model lacks is not preloaded
    client("push", repo)
    made = hub.repos[f"spaces/{repo}"]
    assert client("push", repo, "--model", served)["code"] == 0
    assert made.variables["MODEL_ID"]["value"] == served
    assert len(made.commits) == 3
    assert made.at("main").files.keys() == space.files(model=False).keys() | {".gitattributes"}
    readme = hub.blobs[made.at("main").files["README.md"].oid]
    assert front_matter(readme)["models"] == [served]
    assert front_matter(readme)["preload_from_hub"] == [f"{served} {','.join(names)}"]

    hub.log.clear()
    assert client("push", repo, "--model", served)["code"] == 0  # neither a commit nor a restart
    assert not any("/commit/" in line or line == f"POST /api/spaces/{repo}/variables" for line in hub.log)

    assert client("push", repo)["code"] == 0
    assert made.variables == {}
    assert made.at("main").files.keys() == space.files().keys() | {".gitattributes"}
    changed = [at for at, line in enumerate(hub.log) if "/commit/" in line or line.startswith("DELETE")]
    assert len(changed) == 2 and "/commit/" in hub.log[changed[0]]  # at no moment a page without its model


def test_a_private_model_is_not_preloaded(client, hub, repo, bundle_2):
    """The Hub cannot, so the owner is told what the Space needs."""
    client("model", f"{repo}-model", str(bundle_2), private=True)
    done = client("push", repo, "--model", f"{repo}-model")
    assert done["code"] == 0
    assert done["said"].splitlines()[1].startswith(f"{repo}-model is not open to all, so the Space needs a secret HF_T")
    readme = hub.blobs[hub.repos[f"spaces/{repo}"].at("main").files["README.md"].oid]
    assert "preload_from_hub" not in front_matter(readme)


def test_another_branch_changes_nothing_of_what_runs(client, hub, repo):
    """It is made from main, which stays as it is with its variable."""
    client("push", repo)
    made = hub.repos[f"spaces/{repo}"]
    main, made.variables["MODEL_ID"] = made.refs["main"], {"value": "tester/other"}
    client("add", repo, "space", {"space/old_tab.py": str(ROOT / "LICENSE")})
    assert client("push", repo, "--revision", "tidy")["code"] == 0
    assert made.refs["main"] != made.refs["tidy"]
    assert made.at("tidy").files == made.commits[main].files
    assert "space/old_tab.py" in made.at("main").files and made.variables["MODEL_ID"]["value"] == "tester/other"


def test_refusals_are_one_sentence_and_send_nothing(client, hub, repo, bundle_2):
    """A token, a name, a model or a pair of options that cannot be; and what the Hub itself refuses."""
    client("model", f"{repo}-half", str(bundle_2 / "onnx"))
    before = set(hub.repos)
    cases = [
        ([repo], "hf_of_nobody", "without a valid token"),
        ([repo], "", "without a valid token"),
        ([repo], "hf_reader", "may only read"),
        (["someone/else"], "hf_writer", "use tester/NAME"),
        (["a/b/c"], "hf_writer", "not a valid name on the Hub"),
        ([repo, "--model", "tester/none"], "hf_writer", "no such model was found on the Hub"),
        ([repo, "--model", f"{repo}-half"], "hf_writer", "has no config.json, so the page cannot serve it"),
        ([repo, "--model", "tester/m", "--revision", "b"], "hf_writer", "leave out either --model or --revision"),
    ]
    for arguments, token, words in cases:
        done = client("push", *arguments, token=token)
        assert (done["code"], done["said"]) == (2, ""), arguments
        assert words in done["refused"] and done["refused"].count("\n") == 1, done["refused"]
    assert set(hub.repos) == before

    failures = [
        ("/repos/create", 402, "subscribe, or make the Space on its page"),
        ("/validate-yaml", 400, "correct the front matter of README.md"),
        ("/commit/", 410, "try again"),
    ]
    for path, status, words in failures:
        hub.faults.append(Fault("POST", path, status))
        done = client("push", repo)
        assert done["code"] == 2 and words in done["refused"] and done["refused"].count("\n") == 1, done["refused"]
    assert hub.repos[f"spaces/{repo}"].at("main").files.keys() == {".gitattributes"}
    assert client("push", repo)["code"] == 0


# ---- and it runs


@pytest.mark.long
def test_what_was_pushed_runs(client, hub, repo, bundle_2, photo_files, tmp_path):
    """Downloaded into an empty folder, each Space starts there and answers a picture, without TensorFlow or Keras."""
    served = f"{repo}-model"
    client("model", served, str(bundle_2))
    client("push", repo)
    client("push", f"{repo}-of-model", "--model", served)
    spaces = {"cats-vs-dogs": repo, served: f"{repo}-of-model"}
    with ExitStack() as stack:
        addresses = {}
        for model, name in spaces.items():
            place = tmp_path / name.split("/")[1]
            home, log, port = place / "home", place / "log", free_port()
            home.mkdir(parents=True)
            folder = Path(client("snapshot", name, str(place / "space")))
            variables = {key: entry["value"] for key, entry in hub.repos[f"spaces/{name}"].variables.items()}
            environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "HF_ENDPOINT": hub.url}
            environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1", **variables}
            environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}  # as the Hub does
            app_file = front_matter((folder / "README.md").read_bytes())["app_file"]
            program = (sys.executable, "-X", "importtime", app_file)
            where = {"port": port, "folder": folder, "log": log, "environment": environment}
            addresses[model] = stack.enter_context(started(*program, **where))  # both at once
        for model, address in addresses.items():
            assert b"<html" in get(f"{address}/", wait=True)
            answer = json.dumps(predict(address, (photo_files / "0.jpg").read_bytes()))
            assert '"cat"' in answer and '"dog"' in answer and model in answer
    for name in spaces.values():
        place = tmp_path / name.split("/")[1]
        imported = {line.split("|")[-1].strip() for line in (place / "log").read_text().splitlines()}
        assert {"onnxruntime", "gradio", "hub", "space"} <= imported
        assert not {name.split(".")[0] for name in imported} & {"tensorflow", "keras", "torch", "datasets"}
        left = {path.relative_to(place / "home").parts[:3] for path in (place / "home").rglob("*") if path.is_file()}
        assert left <= {(".cache", "huggingface", "hub")}  # the model, and nobody's telemetry
    said = (tmp_path / spaces[served].split("/")[1] / "log").read_text()
    assert f"Fetching {served} from the Hub …" in said
    assert "Fetching 2 files: 100%" in said  # the client's own bar
