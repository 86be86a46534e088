"""The card's snippets, copied out of a pushed repository and run as they stand, each in a process of its own."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from hub import ImageClassifier, bundle
from hub.bundle import DEFAULT
from hub.formats import FORMATS
from hub.publishing import verify
from tests.hub_server import HubServer
from tests.pictures import scene

ROOT = Path(__file__).parents[2]
REPO = "tester/snippets"
# An interpreter that has PyTorch and Transformers: too large for this suite, so `make verify` has one of its own.
TRANSFORMERS = os.environ.get("TRANSFORMERS_PYTHON") and os.path.abspath(os.environ["TRANSFORMERS_PYTHON"])
TRANSFORMERS_JS = os.environ.get("TRANSFORMERS_JS")  # likewise, a folder with node_modules
FENCE = re.compile(r"^```(?:python|js)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# transformers.js knows no HF_ENDPOINT: this is loaded before the snippet, which stays as it is.
ENDPOINT = 'import { env } from "@huggingface/transformers"; env.remoteHost = process.env.HF_ENDPOINT + "/";'
HEADING = re.compile(r"^##+ (.*)$", re.MULTILINE)
PUSH = "import sys; from hub import ImageClassifier as C; C.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])"


@pytest.fixture(scope="module")
def hub():
    """A Hub to push to and load from."""
    with HubServer() as server:
        yield server


@pytest.fixture
def released(tmp_path, photo_files) -> Path:
    """The released model, verified with Transformers on a few drawn pictures."""
    folder = shutil.copytree(DEFAULT, tmp_path / "released")
    using = {"transformers": TRANSFORMERS, **({"transformers.js": TRANSFORMERS_JS} if TRANSFORMERS_JS else {})}
    photos = sorted(photo_files.glob("*.jpg"))
    verify.verify(folder, photos, also=using.keys() - {"transformers"}, using=using, progress=False)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "verified_2",
        pytest.param("released", marks=pytest.mark.skipif(not TRANSFORMERS, reason="TRANSFORMERS_PYTHON is not set")),
    ],
)
def test_each_snippet_of_a_pushed_card_runs_as_it_stands(name, request, hub, tmp_path):
    """Without this package, but for the one that loads it; the answers are ImageClassifier's to 1e-4."""
    folder = request.getfixturevalue(name)
    run(
        hub, tmp_path / "pushing", "-c", PUSH, str(folder), f"{REPO}-{name}", HF_TOKEN="hf_writer", PYTHONPATH=str(ROOT)
    )
    with urlopen(f"{hub.url}/{REPO}-{name}/resolve/main/README.md") as answer:
        card = answer.read().decode()
    found = {HEADING.findall(card[: match.start()])[-1]: match[1] for match in FENCE.finditer(card)}
    compared = json.loads((folder / bundle.AGREEMENT).read_text())["runtimes"]
    assert list(found) == ["How to load it", *(FORMATS[key].title for key in compared)]
    assert all(f"{REPO}-{name}" in snippet for snippet in found.values())

    place, script = tmp_path / "working", tmp_path / "script"
    place.mkdir()
    scene(300, 200).save(place / "photo.jpg", quality=95)

    def printed(title: str) -> str:
        if title == FORMATS["transformers.js"].title:
            script.mkdir()
            Image.open(place / "photo.jpg").resize((224, 224)).save(script / "photo.jpg", quality=95)  # see below
            (script / "node_modules").symlink_to(Path(TRANSFORMERS_JS, "node_modules").resolve())
            (script / "endpoint.mjs").write_text(ENDPOINT)
            (script / "snippet.mjs").write_text(found[title])
            return run(hub, script, "--import", "./endpoint.mjs", "snippet.mjs", python="node")
        own = {"PYTHONPATH": str(ROOT)} if "from hub import" in found[title] else {}
        python = TRANSFORMERS if title == FORMATS["transformers"].title else sys.executable
        return run(hub, place, "-c", found[title], python=python, **own)

    with ThreadPoolExecutor(2) as pool:
        outputs = dict(zip(found, pool.map(printed, found), strict=True))
    classifier = ImageClassifier.from_pretrained(folder)

    def answered(photo: Path) -> dict[str, float]:
        return {one["label"]: one["score"] for one in classifier(photo)}

    for title, output in outputs.items():
        answer = ast.literal_eval(output.splitlines()[-1])
        # transformers.js resizes in its own way: it gets a photo that needs no resizing.
        photo = (script if title == FORMATS["transformers.js"].title else place) / "photo.jpg"
        assert answer == pytest.approx(answered(photo), abs=1e-4), title
    first, shape, _ = outputs["How to load it"].splitlines()
    assert ast.literal_eval(first) == classifier(place / "photo.jpg")
    assert ast.literal_eval(shape) == classifier.predict(place / "photo.jpg").evidence.shape


def run(hub: HubServer, place: Path, *arguments: str, python: str = sys.executable, **environment: str) -> str:
    """Run Python in a folder, with the Hub and a cache of its own and no token; return what it printed."""
    place.mkdir(exist_ok=True)
    kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if key in os.environ}
    given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "home"), "NO_PROXY": "127.0.0.1", "HOME": str(place)}
    given |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    given["CI"] = "true"  # OpenVINO then reports nothing home
    done = subprocess.run(
        [python, *arguments], cwd=place, env=kept | given | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{arguments[1]}\n{done.stderr}"
    return done.stdout
