"""The how-to pages: what they show is copied out and run, top to bottom."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image
from typer.testing import CliRunner

from hub import ImageClassifier
from hub.cli import app
from hub.scores import softmax
from tests.hub_server import HubServer

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8").replace("OWNER", "tester")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def flowers() -> keras.Model:
    """An ordinary classifier: scaling inside, pooling, dropout and a linear layer at the end."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(x)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax", bias_initializer="uniform")(x))


@pytest.fixture
def place(tmp_path, monkeypatch, photos) -> Path:
    """The folder that the page's reader is in: a model, and a folder of photos."""
    monkeypatch.chdir(tmp_path)
    flowers().save("flowers.keras")
    (tmp_path / "labels.txt").write_text("daisy\nrose\ntulip\n")
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(photos[:6]):
        Image.fromarray(pixels).resize((50, 40)).save(f"photos/{number}.png")
    return tmp_path


@pytest.mark.long
def test_publishing(place):
    """From a Keras file to a copy that came back from the Hub; the evidence's head changes no answer."""
    names: dict = {}
    exec(PYTHON[0], names)
    before = keras.saving.load_model("flowers.keras").predict(names["photos"], verbose=0)
    after = softmax(names["model"].predict(names["photos"], verbose=0)["logits"])
    assert abs(before - after).max() < 1e-6

    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    ours = [shlex.split(line)[3:] for line in commands if line.startswith("python -m hub ")]
    assert [name for name, *_ in ours] == ["import", "predict", "export", "verify", "push", "pull"]
    with HubServer() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(place / "home"), "HF_TOKEN": "hf_writer"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        for command in ours:
            if command[0] in ("push", "pull"):  # the client reads its environment when it is imported
                program = [sys.executable, "-m", "hub", *command]
                done = subprocess.run(program, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
            else:
                done = CliRunner().invoke(app, command, catch_exceptions=False)
                assert done.exit_code == 0, done.output
    assert "transformers" in (place / "copy" / "agreement.json").read_text()  # why it is left out
    assert (place / "copy" / "model.keras").read_bytes() == (place / "flowers" / "model.keras").read_bytes()
    assert (place / "exported" / "litert" / "model.tflite").is_file()
    assert len((place / "answers.csv").read_text().splitlines()) == 7


def test_publishing_a_model_of_one_unit(place):
    """The page's second program: the second label's probability is what the sigmoid said."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, strides=4, activation="relu")(image))
    keras.Model(image, keras.layers.Dense(1, "sigmoid", bias_initializer="ones")(x)).save("cats.keras")
    names: dict = {}
    exec(PYTHON[1], names)
    said = names["trained"].predict(names["photos"] / 255, verbose=0)[:, 0]
    loaded = ImageClassifier.from_pretrained("cats")
    assert loaded.labels == ["cat", "dog"]
    answered = [prediction.probabilities[1] for prediction in loaded.predict(list(names["photos"]))]
    assert answered == pytest.approx(said.tolist(), abs=1e-5)
    assert said.max() - said.min() > 0.001
