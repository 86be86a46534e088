"""Explanations from gradients of a score on the last feature maps: Keras with TensorFlow, loaded when one is called.

Passes are counted as one forward and one backward pass, the latter as two. That is the usual price; here the backward
pass ends at the last feature maps and so goes through the head alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub import bundle, heatmaps
from hub.classifier import ImageClassifier
from hub.errors import BundleError
from hub.explain.base import Cam, evidence_of, kept

if TYPE_CHECKING:
    import keras


class GradientCam(Cam):
    """A class activation map whose weights come from the gradient of the score on the feature maps."""

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """See `Method`."""
        missing = [package for package in ("keras", "tensorflow") if find_spec(package) is None]
        if missing:
            return f"{self.title} needs {missing[0]}, which is not installed here; pip install keras tensorflow."
        if (backend := _backend()) != "tensorflow":
            return f"{self.title} needs TensorFlow, and Keras runs on {backend} here; set KERAS_BACKEND=tensorflow."
        at_hand = classifier._keras is not None or classifier._download or (classifier.folder / bundle.KERAS).exists()
        return None if at_hand else f"{self.title} needs {bundle.KERAS}, which {classifier.name} lacks; get it too."

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        return 3

    def _share(self, count: int, k: int) -> np.ndarray:
        """Return how much of each logit is in the score that is differentiated, (K,)."""
        return heatmaps.shown_logit(np.eye(count, dtype=np.float32), k)

    def _weights(self, features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Return the weights, (C,) or (h, w, C), by feature maps and the score's gradient on them (h, w, C)."""
        raise NotImplementedError

    def _weigh(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
        share = self._share(len(classifier.labels), k)
        both = feature_gradient(classifier)(photo[None].astype(np.float32), share)
        features, gradient = (values[0].numpy() for values in both)
        return features, self._weights(features, gradient), 3


class GradCam(GradientCam):
    """Weights are the gradient's mean over the cells; Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391

    As published it differentiates the label's own logit, whatever the others say. For the evidence head that is
    known without gradients and kept in logits (`hub.heatmaps.grad_cam`), at the price of the answer.
    """

    name, title = "grad-cam", "Grad-CAM"

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """See `Method`."""
        return None if "evidence" in classifier.config else super().lacks(classifier)

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        return 1 if "evidence" in classifier.config else super().passes(classifier)

    def in_logits(self, classifier: ImageClassifier) -> bool:
        """See `Method`."""
        return "evidence" in classifier.config

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        if "evidence" in classifier.config:
            return heatmaps.grad_cam(evidence_of(classifier, photo), k), 1
        return super()._values(classifier, photo, k)

    def _share(self, count: int, k: int) -> np.ndarray:
        return np.eye(count, dtype=np.float32)[k]

    def _weights(self, features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return gradient.mean(axis=(0, 1))


class GradCamPlusPlus(GradientCam):
    """Weights that count each cell by its own share; Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063

    w[c] = sum over cells of a * ReLU(g), a = g² / (2 g² + g³ * sum over cells of A[c]), g the score's gradient.
    """

    name, title = "grad-cam++", "Grad-CAM++"

    def _weights(self, features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        below = 2 * gradient**2 + gradient**3 * features.sum(axis=(0, 1))
        share = np.divide(gradient**2, below, out=np.zeros_like(below), where=below != 0)
        return (share * np.maximum(gradient, 0)).sum(axis=(0, 1))


class LayerCam(GradientCam):
    """Weights for each cell of each map: the positive part of the gradient there.

    Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943
    """

    name, title = "layer-cam", "LayerCAM"

    def _weights(self, features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return np.maximum(gradient, 0)


@kept
def feature_gradient(classifier: ImageClassifier) -> Callable:
    """Return a compiled function that differentiates a sum of a classifier's logits; made once, which takes seconds.

    Returns:
        function(pixels (1, S, S, 3) float32, how much of each logit is in the sum (K,)) -> the last feature maps and
        the gradient on them, both (1, h, w, C).

    Raises:
        BundleError: no feature maps lie on the way to the logits.
    """
    import keras
    import tensorflow as tf

    model = classifier.to_keras()
    both = keras.Model(model.input, [_features(model, classifier.name), model.output["logits"]])
    inputs = [tf.TensorSpec((1, *model.inputs[0].shape[1:])), tf.TensorSpec((model.output["logits"].shape[1],))]

    @tf.function(input_signature=inputs)  # operation by operation would take many times as long
    def gradient(pixels: tf.Tensor, share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            features, logits = both(pixels, training=False)
            score = tf.reduce_sum(logits[0] * share)
        return features, tape.gradient(score, features)

    return gradient


def _features(model: keras.Model, name: str) -> keras.KerasTensor:
    """Find what the evidence is made of, or, in a classic head, the last maps of more than one cell."""
    tensor = model.output.get("evidence", model.output["logits"])
    made = "evidence" not in model.output  # of the evidence itself the layer that makes it is still to come
    while True:
        layer, index, _ = tensor._keras_history
        inputs = layer._inbound_nodes[index].input_tensors
        if not inputs:  # the photo itself
            raise BundleError(f"{name} has no feature maps before its head; choose occlusion.")
        if made and len(tensor.shape) == 4 and tensor.shape[1:3] != (1, 1):
            return tensor
        made = made or bool(getattr(layer, "weights", None))
        tensor = inputs[0]


def _backend() -> str:
    """Return the name of the backend that Keras has, or will have once somebody imports it."""
    if "keras" in sys.modules:
        import keras  # waits where another thread is still at it

        return keras.config.backend()
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    try:
        home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        return json.loads(Path(home, "keras.json").read_text(encoding="utf-8")).get("backend", "tensorflow")
    except (OSError, RuntimeError, ValueError):  # as Keras itself: no file, no choice
        return "tensorflow"
