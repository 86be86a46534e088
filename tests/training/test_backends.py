"""The same tiny run on each backend of Keras, in a process of its own: a backend is chosen when Keras is imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hub import ImageClassifier
from hub.images import to_tensor
from hub.record import read_predictions

from .conftest import encode, write

SMALL = ["size=16", "blocks=[[8]]", "epochs=3", "warmup_steps=5", "batch_size=16", "average_decay=0.5"]


def stripes(label: int, seed: int) -> Image.Image:
    """Noise with stripes that lie (0) or stand (1)."""
    rng = np.random.default_rng([label, seed])
    pixels = rng.integers(60, 120, (16, 16, 3), np.uint8)
    pixels[rng.integers(2) :: 2] += 100
    return Image.fromarray(pixels if label == 0 else pixels.transpose(1, 0, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [(encode(stripes(i % 2, i)), i % 2) for i in range(240)]
    return write(tmp_path_factory.mktemp("stripes") / "stripes", {"train": rows}, names=("lying", "standing"))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_small_network_learns_on_each_backend(backend, data, tmp_path):
    command = [sys.executable, "-m", "training", "fit", "mnist_cnn_augmented", "--data", str(data)]
    command += [part for assignment in SMALL for part in ("--set", assignment)]
    command += ["--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--open-test"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend}, cwd=os.getcwd()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    started = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert backend in started["versions"]
    bundle = tmp_path / "run" / "bundle"
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert metrics["validation"]["roc_auc"]["value"] > 0.9  # chance is 0.5
    assert metrics["agreement"]["probability"] < 1e-4

    # What was trained on one backend answers the same in ONNX Runtime and, here, in Keras on TensorFlow.
    photo = to_tensor(stripes(1, 999), 16)[None]
    onnx = ImageClassifier.from_pretrained(bundle).predict_tensors(photo)
    keras = ImageClassifier.from_pretrained(bundle, runtime="keras").predict_tensors(photo)
    for one, other in zip(onnx, keras, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert set(read_predictions(bundle).splits) == {"validation", "test"}
