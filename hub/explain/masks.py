"""Explanations that ask the model again with parts of the photo hidden: any head, any runtime, no gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from hub.classifier import ImageClassifier
from hub.errors import BundleError
from hub.explain.base import Cam, Method, cached_per_classifier, scores
from hub.explain.inner import InnerMap, find_features
from hub.formats.onnx import OnnxRunner
from hub.heatmaps import upsample

CELLS = 14  # rows and columns of an occlusion map
CHANNELS = 64  # masks of Score-CAM
GREY = 127.5  # 0 in [-1, 1]: what a picture multiplied by 0 is


class Occlusion(Method):
    """What the score loses when a square is hidden; Zeiler & Fergus 2013, https://arxiv.org/abs/1311.2901

    value = (score(photo) - score(photo with the square hidden)) / the square's share of the photo, in logits, so
    positive speaks for the label. Divided by the share, a value means what a cell of the evidence does: were the score
    a sum over pixels, their mean would be what hiding everything takes away.

    A square of 2 x 2 cells moves on by one cell, over the edges too, where it is cut off; a cell's value is the mean of
    the four squares that hide it. The authors' square is grey, the average picture of a network whose input has its
    mean subtracted; here it has the photo's own mean colour, the nearest to its pixels: a plain photo loses nothing.
    """

    name, title = "occlusion", "Occlusion"
    signed = True

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        return 1 + len(_squares(classifier.image_size)) ** 2

    def in_logits(self, classifier: ImageClassifier) -> bool:
        """See `Method`."""
        return True

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        whole, *hidden = scores(classifier, self._photos(photo), k)
        sides = np.array([square.stop - square.start for square in _squares(len(photo))]) / len(photo)
        lost = (whole - np.array(hidden)).reshape(len(sides), -1) / np.outer(sides, sides)
        rows = (lost[1:] + lost[:-1]) / 2
        return (rows[:, 1:] + rows[:, :-1]) / 2, 1 + len(hidden)

    def _photos(self, photo: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the photo, then, row by row, each with one square hidden."""
        yield photo
        colour = np.rint(photo.mean(axis=(0, 1)))
        for rows, columns in itertools.product(_squares(len(photo)), repeat=2):
            hidden = photo.copy()
            hidden[rows, columns] = colour
            yield hidden


def _squares(size: int) -> list[slice]:
    """Return the pixels that the squares take of a side: two neighbouring cells, at both ends one."""
    cells = min(CELLS, size)
    edges = np.rint(np.linspace(0, size, cells + 1)).astype(int)
    return [slice(edges[max(cell - 1, 0)], edges[min(cell + 1, cells)]) for cell in range(cells + 1)]


class ScoreCam(Cam):
    """Feature maps weighed by the score they leave when they mask the photo; https://arxiv.org/abs/1910.01279

    Wang et al. 2020: each map A[c] is enlarged, brought to 0-1 and multiplied with the photo (in [-1, 1], so 0 hides
    it under grey); w = softmax over c of the masked photos' scores. The paper subtracts the score of an empty photo
    first, which the softmax takes away again. Of the C maps only the 64 of largest variance are used, as Faster
    Score-CAM does with fewer (https://github.com/tabayashi0117/Score-CAM): a pass each, where 1,280 would take
    twenty times as long. Maps that are the same everywhere mask nothing and are left out.
    """

    name, title = "score-cam", "Score-CAM"

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """See `Method`."""
        if not isinstance(classifier._runner, OnnxRunner):
            return (
                f"Score-CAM reads inner values of the ONNX file, and {classifier.name} answers from another; "
                'load it with runtime="onnx".'
            )
        if features_of(classifier) is None:
            return f"The ONNX file of {classifier.name} has no feature maps that Score-CAM can find; choose occlusion."
        return None

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        features = features_of(classifier)
        return 1 + min(CHANNELS, features.channels if features else 0)

    def _weigh(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
        inner = features_of(classifier)
        if inner is None:  # whoever asks has looked at `lacks`
            raise BundleError(f"{self.lacks(classifier)}")
        features = inner(photo)
        features = features[..., np.ptp(features, axis=(0, 1)) > 0]
        features = features[..., np.argsort(-features.var(axis=(0, 1)), kind="stable")[:CHANNELS]]
        if not features.shape[-1]:
            return features, np.zeros(0), 1
        left = scores(classifier, (_masked(photo, channel) for channel in np.moveaxis(features, -1, 0)), k)
        weights = np.exp(left - left.max())
        return features, weights / weights.sum(), 1 + len(left)


def _masked(photo: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """Return a photo that is seen where a map (h, w) is at its maximum and grey where it is at its minimum."""
    mask = upsample(channel, photo.shape[:2])
    mask = (mask - mask.min()) / ((mask.max() - mask.min()) or 1)
    return np.rint(GREY + (photo - GREY) * mask[..., None]).astype(np.uint8)


@cached_per_classifier
def features_of(classifier: ImageClassifier) -> InnerMap | None:
    """Return what reads the feature maps before a classifier's head, opened once; None where there are none."""
    return find_features(classifier._runner) if isinstance(classifier._runner, OnnxRunner) else None
