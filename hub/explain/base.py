"""What all explanations share: what one is, what a method promises, and how weighted feature maps become a map."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import ClassVar, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from hub import heatmaps
from hub.classifier import BATCH, ImageClassifier
from hub.errors import BundleError, ImageError

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What speaks for one label in one photo, by one method."""

    values: np.ndarray  # (rows, columns) float32
    signed: bool  # negative values speak against the label
    in_logits: bool  # values are logits, for the classifier's evidence_scale; else 0 to 1, their own maximum
    passes: int  # forward passes of the model; a backward pass counts as two more
    seconds: float  # wall time


class Method:
    """A way to explain an answer. A subclass holds only what is its own; calls from several threads are safe.

    The explained score of label k is `hub.heatmaps.shown_logit`: with two labels the log-odds, with more the logit
    less the mean logit. Never the probability, whose changes vanish where it is near 0 or 1.
    """

    name: ClassVar[str]  # by which it is found
    title: ClassVar[str]  # as its authors write it
    signed: ClassVar[bool] = False

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """Say why it cannot explain this classifier here, as a sentence; None if it can. Imports no TensorFlow."""
        return None

    def passes(self, classifier: ImageClassifier) -> int:
        """Return how many forward passes it will cost at most; a backward pass counts as two more."""
        raise NotImplementedError

    def in_logits(self, classifier: ImageClassifier) -> bool:
        """Return whether the values are logits; else they are divided by their maximum."""
        return False

    def __call__(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> Explanation:
        """Explain what speaks for label `k` in a photo.

        Args:
            photo: uint8 (S, S, 3), from `hub.images.to_tensor`.
            k: the label's index, 0 <= k < K.

        Raises:
            BundleError: the method is not available (`lacks`), or there is no such label.
            ImageError: `photo` is another array.
        """
        if sentence := self.lacks(classifier):
            raise BundleError(sentence)
        size, count = classifier.image_size, len(classifier.labels)
        if photo.dtype != np.uint8 or photo.shape != (size, size, 3):
            raise ImageError(
                f"{classifier.name} explains uint8 ({size}, {size}, 3); make it with hub.images.to_tensor."
            )
        if not 0 <= k < count:
            raise BundleError(f"{classifier.name} has no label {k}; choose from 0 to {count - 1}.")
        start = time.perf_counter()
        values, passes = self._values(classifier, photo, k)
        seconds = time.perf_counter() - start
        return Explanation(values.astype(np.float32), self.signed, self.in_logits(classifier), passes, seconds)

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        """Return the map and the passes that it took."""
        raise NotImplementedError


class Evidence(Method):
    """The model's own account: its last layer, class `k` against the others (`hub.heatmaps.shown_map`).

    The only map here that adds up: its mean is the score. One pass, and that one has given the answer already.
    """

    name, title = "evidence", "Evidence"
    signed = True

    def lacks(self, classifier: ImageClassifier) -> str | None:
        """See `Method`."""
        if classifier.config.evidence is None:
            return f"{classifier.name} has a classic head, which has no evidence; choose occlusion."
        return None

    def passes(self, classifier: ImageClassifier) -> int:
        """See `Method`."""
        return 1

    def in_logits(self, classifier: ImageClassifier) -> bool:
        """See `Method`."""
        return True

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        return heatmaps.shown_map(evidence_of(classifier, photo), k), 1


class Cam(Method):
    """A class activation map: the positive part of a weighted sum of the last feature maps, divided by its maximum.

    L = ReLU(sum over channels c of w[c] * A[c]); the methods of this family differ in the weights w alone.
    """

    def _weigh(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return feature maps (h, w, C), their weights, (C,) or (h, w, C), and the passes that it took."""
        raise NotImplementedError

    def _values(self, classifier: ImageClassifier, photo: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        features, weights, passes = self._weigh(classifier, photo, k)
        values = np.maximum((features * weights).sum(axis=-1), 0)
        return values / (values.max() or 1), passes  # nothing that speaks for the label stays nothing


def evidence_of(classifier: ImageClassifier, photo: np.ndarray) -> np.ndarray:
    """Return the evidence (h, w, K) of one photo.

    Raises:
        BundleError: the classifier's runtime gives logits alone.
    """
    _, evidence = classifier.predict_tensors(photo[None])
    if evidence is None:
        raise BundleError(f'The runtime of {classifier.name} gives no evidence; load it with runtime="onnx".')
    return evidence[0]


def scores(classifier: ImageClassifier, photos: Iterable[np.ndarray], k: int) -> np.ndarray:
    """Return the explained score (N,) of each photo, made and answered a batch at a time."""
    photos = iter(photos)
    batches = iter(lambda: list(itertools.islice(photos, BATCH)), [])
    logits = [classifier.predict_tensors(np.stack(batch))[0] for batch in batches]
    return heatmaps.shown_logit(np.concatenate(logits), k)


def cached_per_classifier(make: Callable[[ImageClassifier], Made]) -> Callable[[ImageClassifier], Made]:
    """Have what `make` makes of a classifier made once, by whichever thread comes first, and kept as long as it."""
    made: WeakKeyDictionary[ImageClassifier, Made] = WeakKeyDictionary()
    lock = threading.Lock()

    @wraps(make)
    def get(classifier: ImageClassifier) -> Made:
        with lock:
            if classifier not in made:
                made[classifier] = make(classifier)
            return made[classifier]

    return get
