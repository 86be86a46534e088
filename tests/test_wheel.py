"""A downloader's machine: nothing but the wheel and what it asks for, and the embedded model answers."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea

from hub import ImageClassifier

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent
HEAVY = ["tensorflow", "keras", "torch", "jax", "gradio", "datasets", "pandas", "sklearn", "matplotlib"]

PREDICT = """
import importlib.util, json, sys
import hub
from hub import ImageClassifier
classifier = ImageClassifier.from_pretrained()
prediction = classifier.predict(sys.argv[1])
print(json.dumps({
    "hub": hub.__file__,
    "answer": classifier(sys.argv[1]),
    "label": prediction.label,
    "logits": prediction.logits.tolist(),
    "evidence": prediction.evidence.tolist(),
    "files": [path.relative_to(classifier.folder).as_posix() for path in classifier.folder.rglob("*.*")],
    "installed": [name for name in json.loads(sys.argv[2]) if importlib.util.find_spec(name)],
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a command prints; its complaint, where it fails, becomes the test's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command[:6]))} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy so that no build folder is left in the tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "hub", source / "hub", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", "dist", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def answered(wheel, tmp_path_factory) -> dict:
    """What a fresh environment with only the wheel says about the cat, in a folder far from the project."""
    away = tmp_path_factory.mktemp("away")
    Image.fromarray(chelsea()).save(away / "cat.png")
    python = away / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--python", sys.executable, "environment", cwd=away)
    pins = ROOT / "requirements.txt"  # as constraints: the versions that were tested, of nothing but its own needs
    run(*uv, "pip", "install", "--quiet", "--python", python, "--constraint", pins, wheel, cwd=away)
    said = json.loads(run(python, "-c", PREDICT, "cat.png", json.dumps(HEAVY), cwd=away))
    command = json.loads(run(python, "-m", "hub", "predict", "cat.png", "--json", cwd=away))
    return {**said, "environment": away / "environment", "command": command}


def test_embedded_model_answers(answered):
    """The cat is a cat, in the form of a transformers pipeline."""
    assert answered["label"] == "cat"
    assert [list(row) for row in answered["answer"]] == [["label", "score"]] * 2
    assert [row["label"] for row in answered["answer"]] == ["cat", "dog"]
    assert answered["answer"][0]["score"] > 0.9


def test_the_command_answers(answered):
    """`python -m hub predict` runs on what the wheel asks for."""
    assert answered["command"]["label"] == "cat"
    np.testing.assert_allclose(answered["command"]["logits"], answered["logits"], atol=1e-4)


def test_every_file_of_the_package_inside(answered):
    """What is no Python, such as the program that asks transformers.js, is there too."""
    here = {path.relative_to(ROOT / "hub") for path in (ROOT / "hub" / "formats").glob("*.*")}
    here.add(Path("py.typed"))  # so that type checkers of other projects read the annotations
    assert any(path.suffix == ".mjs" for path in here)
    assert all((Path(answered["hub"]).parent / path).is_file() for path in here)


def test_evidence_adds_up(answered):
    """The evidence's mean is the logit, there as here."""
    evidence = np.array(answered["evidence"])
    np.testing.assert_allclose(evidence.mean(axis=(0, 1)), answered["logits"], atol=1e-4)


def test_same_answer_as_in_the_tree(answered):
    """The wheel carries the model and the preprocessing that the tree has."""
    file = io.BytesIO()
    Image.fromarray(chelsea()).save(file, "PNG")
    here = ImageClassifier.from_pretrained().predict(file.getvalue())
    np.testing.assert_allclose(answered["logits"], here.logits, atol=1e-4)


def test_light(answered):
    """It ran from the installed copy, without TensorFlow or anything else that is large."""
    assert Path(answered["hub"]).is_relative_to(answered["environment"])
    assert answered["installed"] == []


def test_whole_bundle_inside(answered):
    """The wheel holds the record and the source of truth too, so that to_keras() works with the extra."""
    inside = set(answered["files"])
    assert inside >= {
        "README.md",
        "config.json",
        "metrics.json",
        "model.keras",
        "onnx/model.onnx",
        "predictions.parquet",
    }
