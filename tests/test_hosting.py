"""The container and docs/hosting.md: the image holds what the Space holds and runs; the page says what is so."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

import app
from hub import cli
from hub.publishing import space
from tests.app_process import free_port, get, predict, started

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8")
USER = 1000
# Of `docker COMMAND --help`, Docker 28.2: what the page may use.
DOCKER = {
    "build": {"--tag", "--platform"},
    "run": {
        "--rm", "--read-only", "--tmpfs", "--memory", "--cap-drop", "--security-opt", "--pids-limit", "--publish",
        "--env", "--volume",
    },
    "tag": set(),
    "push": set(),
    "login": {"--username", "--password-stdin"},
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, in order."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines.splitlines() if line]


def the(name: str) -> str:
    """The arguments of an instruction that stands there once."""
    (found,) = (rest for instruction, rest in instructions() if instruction == name)
    return found


def environment() -> dict[str, str]:
    """What the image sets."""
    return dict(pair.split("=", 1) for pair in shlex.split(the("ENV")))


def sent(root: Path) -> set[str]:
    """The files of a folder that .dockerignore lets through to COPY, by Docker's rule: the last match decides.

    https://docs.docker.com/build/concepts/context/#dockerignore-files; a pattern also matches all below a folder.
    """
    rules = []
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pattern = re.escape(line.strip().lstrip("!").strip("/"))
            pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            rules.append((re.compile(f"{pattern}(/.*)?"), line.startswith("!")))
    found = set()
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith((".git", ".venv"))]  # large, and hidden anyway
        for name in (Path(folder, file).relative_to(root).as_posix() for file in files):
            last = next((keep for rule, keep in reversed(rules) if rule.fullmatch(name)), True)
            found |= {name} if last else set()
    return found


def test_the_image_takes_what_the_space_takes(tmp_path):
    """One rule in hub/publishing/space.py and in .dockerignore: the same files, in this tree and in a messy one."""
    assert sent(ROOT) == space.files().keys()
    messy = [
        ".env", "notes.txt", "space/.secret.py", "space/page.py.orig", "space/notes.md", "space/__pycache__/page.pyc",
        "space/.checkpoints/page.py", "hub/.env.py", "hub/token.json", f"{space.EMBEDDED}/model.keras", "Dockerfile",
        "hub/pretrained/mine/config.json", "tests/test_house.py", "runs/mine/app.py", "requirements-dev.txt",
        "CONTRIBUTING.md", "CHANGELOG.md", ".pre-commit-config.yaml", ".ci/run",
    ]  # fmt: skip
    for name in [*messy, *space.LEFT_OUT, *space.files()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sent(tmp_path) == space.files(tmp_path).keys() == space.files().keys()


def test_the_image_is_built_as_the_space_is():
    """The same Python, the same packages and as wheels only, nobody's rights, the page's port."""
    version = space.front_matter((ROOT / "README.md").read_text(encoding="utf-8"))["python_version"]
    assert the("FROM") == f"python:{version}-slim"
    copies = [rest for name, rest in instructions() if name == "COPY"]
    assert copies == ["requirements.txt .", ". ."]
    runs = [rest for name, rest in instructions() if name == "RUN"]
    assert any("--only-binary :all: --requirement requirements.txt" in run for run in runs)
    assert not any(word in run for run in runs for word in ("apt", "curl", "chown", "chmod", "git"))
    assert the("USER") == str(USER)
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name in ("COPY", "RUN"))


def test_the_command_is_one_that_the_page_takes(monkeypatch):
    """CMD's options are app.py's, on the port that is exposed and asked; the image names no model."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    program, file, *options = json.loads(the("CMD"))
    assert (program, file) == ("python", "app.py")
    chosen = app.options(options)
    assert (chosen.host, str(chosen.port), chosen.model) == ("0.0.0.0", the("EXPOSE"), None)
    assert f"http://127.0.0.1:{chosen.port}/healthz" in the("HEALTHCHECK")


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can run something as another user")
def test_the_container_runs_as_nobody_on_a_folder_it_cannot_write(photo_files):
    """What COPY copies, CMD as user 1000 with the image's environment: the page, its health check, an answer, no trace.

    Below a path, as behind a proxy that takes it off. Whether the interpreter's own folder may be read by everybody
    differs from the image's, so reading (and nothing else) is allowed throughout.
    """
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="image-") as name:
        place = Path(name)
        place.chmod(0o755)  # pytest's own folders are root's alone
        root, tmp, port = place / "app", place / "tmp", str(free_port())
        for file, source in space.files().items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, root / file)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        tmp.mkdir()
        os.chown(tmp, USER, USER)
        image = {key: value.replace("/tmp", str(tmp)) for key, value in environment().items()}
        assert image["HOME"] == image["TMPDIR"] == str(tmp)
        capability = "+dac_read_search"
        nobody = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        nobody += [f"--inh-caps=-all,{capability}", f"--ambient-caps={capability}", f"--bounding-set=-all,{capability}"]

        def inside(instruction: str) -> list[str]:
            command = json.loads(instruction[instruction.index("[") :].replace(the("EXPOSE"), port))
            return [*nobody, sys.executable, *command[1:]]

        variables = {**image, "PATH": os.environ["PATH"], "GRADIO_ROOT_PATH": "/pets"}
        where = {"port": int(port), "folder": root, "log": place / "log", "environment": variables}
        with started(*inside(the("CMD")), **where) as address:
            assert json.loads(get(f"{address}/healthz", wait=True))["status"] == "ok"
            healthy = subprocess.run(
                inside(the("HEALTHCHECK")), env=variables, cwd=root, capture_output=True, text=True
            )
            assert healthy.returncode == 0, healthy.stderr
            assert b"<html" in get(f"{address}/")
            forwarded = {"X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "https"}
            assert json.loads(get(f"{address}/config", **forwarded))["root"] == "https://example.com/pets"
            answer = json.dumps(predict(address, (photo_files / "0.jpg").read_bytes()))
            assert '"cat"' in answer and '"dog"' in answer
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        left = [path for path in tmp.rglob("*") if path.is_file()]
        assert left == [], (place / "log").read_text()


def commands() -> list[list[str]]:
    """The page's shell commands, word by word."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.replace("\\\n", ""), re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split(" | ")]
    return [shlex.split(line) for line in lines if line]


def test_every_command_exists():
    """Ours are parsed by the command line itself; Docker's options are Docker's; and each cloud has its own."""
    programs = set()
    for words in commands():
        programs.add(words[0])
        if words[:3] == ["python", "-m", "hub"]:
            context = typer.Context(typer.main.get_command(cli.app))
            command, rest = context.command, words[3:]
            while hasattr(command, "resolve_command"):
                _, command, rest = command.resolve_command(context, rest)
            command.make_context(command.name, rest)  # wrong options end here
            assert command.name == "push"
        elif words[0] == "docker":
            given = {word for word in words[2:] if word.startswith("-")}
            assert given <= DOCKER[words[1]], f"docker {words[1]} knows no {given - DOCKER[words[1]]}"
    assert programs == {"python", "docker", "aws", "gcloud", "az"}


def test_ports_variables_and_paths_are_the_images_and_the_pages():
    """7860 everywhere, /healthz as it is asked, and variables that app.py or Gradio read."""
    port, text = the("EXPOSE"), " ".join(" ".join(words) for words in commands())
    named = re.findall(r"(?:--publish 127\.0\.0\.1:\d+:|--port |--target-port |containerPort\": )(\d+)", text)
    assert len(named) >= 7 and set(named) == {port}
    assert set(re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+)", PAGE)) == {port}
    assert "--health-check-path /healthz" in text
    source = (ROOT / "app.py").read_text(
        encoding="utf-8"
    ) + "GRADIO_ROOT_PATH HF_TOKEN"  # Gradio's and the client's own
    table = set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", PAGE))
    used = set(re.findall(r"(?:--env|--env-vars|--set-env-vars) ([A-Z_]+)=", PAGE))
    assert "MODEL_ID" in table and used <= table
    assert all(re.search(rf"\b{name}\b", source) for name in table)


def test_links_lead_somewhere():
    """To a file that exists, or out by https."""
    for target in re.findall(r"\]\(([^)#\s]+)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).is_file(), target
    for target in re.findall(r"`make ([a-z]+)", PAGE):
        assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8")), target


def test_every_container_of_the_page_is_as_locked_as_the_text_says():
    """Each `docker run` reads only, with a /tmp of 1 GB and 1 GB beside; where /tmp is a disk, 1 GB is enough."""
    for words in commands():
        if words[:2] == ["docker", "run"]:
            assert {"--rm", "--read-only"} <= set(words)
            assert words[words.index("--tmpfs") + 1] == "/tmp:size=1g" and words[words.index("--memory") + 1] == "2g"
    memory = [
        words[words.index("--memory") + 1] for words in commands() if "--memory" in words and words[0] != "docker"
    ]
    assert sorted(memory) == ["1.0Gi", "1024", "2Gi"]
