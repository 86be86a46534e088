"""Explanations from gradients of a score on the last feature maps: Keras with TensorFlow, loaded when one is called.

Passes are counted as one forward and one backward pass, the latter as two. That is the usual price; here the backward
pass ends at the last feature maps and so goes through the head alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub import bundle, heatmaps, safety
from hub.classifier import ImageClassifier
from hub.errors import BundleError
from hub.explain.base import Cam, cached_per_classifier, evidence_of
from hub.graphs import is_model, made_by, replaced

if TYPE_CHECKING:
    import keras

CONVOLUTION = "Conv"  # in the name of every layer and operation that convolves: Conv2D, SeparableConv2D, DepthwiseConv


class GradientCam(Cam):
    """A class activation map whose weights come from the gradient of the score on the feature maps."""

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """See `Method`."""
        missing = [package for package in ("keras", "tensorflow") if find_spec(package) is None]
        if missing:
            return f"{self.title} needs {missing[0]}, which is not installed here; pip install keras tensorflow."
        if (backend := _backend()) != "tensorflow":
            return f"{self.title} needs TensorFlow, and Keras runs on {backend} here; set KERAS_BACKEND=tensorflow."
        at_hand = classifier._keras is not None or classifier._download or classifier.holds(bundle.KERAS)
        if not at_hand:
            return f"{self.title} needs {bundle.KERAS}, which {classifier.name} lacks; get it too."
        return None if _may_convolve(classifier) else _no_maps(classifier)

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
        return None if classifier.config.evidence else super().lacks(classifier)

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        return 1 if classifier.config.evidence else super().passes(classifier)

    def in_logits(self, classifier: ImageClassifier) -> bool:
        """See `Method`."""
        return classifier.config.evidence is not None

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        if classifier.config.evidence:
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


@cached_per_classifier
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
    kind = "evidence" if "evidence" in model.output else "logits"
    # Of the evidence itself the layer that makes it is still to come.
    found = _features([model.output[kind], model.output["logits"]], 0, made=kind == "logits")
    if found is None:
        raise BundleError(_no_maps(classifier))
    features, (_, logits) = found
    both = keras.Model(model.input, [features, logits])
    inputs = [tf.TensorSpec((1, *model.inputs[0].shape[1:])), tf.TensorSpec((model.output["logits"].shape[1],))]

    @tf.function(input_signature=inputs)  # operation by operation would take many times as long
    def gradient(pixels: tf.Tensor, share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            features, logits = both(pixels, training=False)
            score = tf.reduce_sum(logits[0] * share)
        return features, tape.gradient(score, features)

    return gradient


def _features(
    outputs: list[keras.KerasTensor], start: int, *, made: bool
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]] | None:
    """Find the last maps of more than one cell that a convolution has had a part in, also inside nested models.

    Args:
        outputs: of one graph.
        start: from which of them to go back.
        made: whether the first such maps will do; else a layer with weights must lie behind them.

    Returns:
        The maps (N, h, w, C) and the outputs, as tensors of one graph: where the maps lie inside a nested model, it is
        replaced by one that gives them too. None where there are none.
    """
    import keras

    todo, seen = [(outputs[start], made)], set()
    while todo:
        tensor, made = todo.pop()
        if id(tensor) in seen or not _is_convolved(tensor):
            continue
        seen.add(id(tensor))
        if made and len(tensor.shape) == 4 and tensor.shape[1:3] != (1, 1):
            return tensor, outputs
        operation, index, inputs, node = made_by(tensor)
        inner = _features(operation.outputs, index, made=made) if is_model(operation) else None
        if inner is not None:
            maps, own = inner
            wider = keras.Model(operation.inputs, [*own, maps], name=f"{operation.name}_and_features")
            *again, features = wider(inputs)
            swaps = {id(old): new for old, new in zip(node.outputs, again, strict=True)}
            return features, replaced(outputs, swaps)
        made = made or bool(getattr(operation, "weights", None))
        todo += [(each, made) for each in reversed(inputs)]
    return None


def _is_convolved(tensor: keras.KerasTensor) -> bool:
    """Whether a convolution has had a part in a tensor; the photo itself, rescaled or normalised, is no feature map."""
    todo, seen = [tensor], set()
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, index, inputs, _ = made_by(tensor)
        if CONVOLUTION in type(operation).__name__ or (is_model(operation) and _is_convolved(operation.outputs[index])):
            return True
        todo += inputs
    return False


def _no_maps(classifier: ImageClassifier) -> str:
    return f"{classifier.name} has no feature maps before its head; choose occlusion."


@cached_per_classifier
def _may_convolve(classifier: ImageClassifier) -> bool:
    """Whether a layer of a classifier convolves, as far as that can be told without TensorFlow and a download."""
    todo: list = [{"class_name": CONVOLUTION}]
    if classifier._keras is not None:
        todo = [classifier._keras.get_config()]
    elif classifier.folder and classifier.holds(bundle.KERAS):
        with suppress(BundleError):  # loading it will say so
            todo = [safety.keras_config(classifier.folder / bundle.KERAS)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if CONVOLUTION in str(value.get("class_name")):
                return True
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
    return False


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
