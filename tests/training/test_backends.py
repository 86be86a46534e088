"""The same tiny run on each backend of Keras, in a process of its own: a backend is chosen when Keras is imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hub import ImageClassifier
from hub.images import to_tensor
from training.evaluate import read_predictions

from .conftest import draw

SMALL = ["size=32", "blocks=[[8],[16]]", "epochs=12", "warmup_steps=5", "batch_size=32", "rotation=0.0", "shear=0.0"]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_small_network_learns_on_each_backend(backend, shapes, tmp_path):
    command = [sys.executable, "-m", "training", "fit", "mnist_cnn_augmented", "--data", str(shapes)]
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
    assert metrics["validation"]["roc_auc"]["value"] > 0.9  # a disc or a square: chance is 0.5
    assert metrics["agreement"]["probability"] < 1e-4

    # What was trained on one backend answers the same in ONNX Runtime and, here, in Keras on TensorFlow.
    photo = to_tensor(draw(1, 7), 32)[None]
    onnx = ImageClassifier.from_pretrained(bundle).predict_tensors(photo)
    keras = ImageClassifier.from_pretrained(bundle, runtime="keras").predict_tensors(photo)
    for one, other in zip(onnx, keras, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert set(read_predictions(bundle).splits) == {"validation", "test"}
