"""The input pipeline: batches of augmented photos, drawn ahead of the step that trains on them."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from training.photos.augment import Augmentation
from training.photos.data import Photos, map_ahead

IN_MEMORY = 2**30  # bytes of decoded pictures; more are read from the cache as they are drawn
AHEAD = 3  # batches that are drawn, or being drawn, beside the one that is trained on


class Batches:
    """The batches of each epoch, every random choice drawn from (seed, epoch, photo).

    Attributes:
        size: pictures in each; what does not fill a last batch waits for another epoch's order.
        steps: batches of an epoch.
    """

    def __init__(self, photos: Photos, settings: dict):
        """Batches of these (training) photos by a recipe's settings."""
        self.seed, self.labels, self.pixels = settings["seed"], photos.labels, photos.pixels
        if len(photos) * math.prod(self.pixels.shape[1:]) <= IN_MEMORY:
            self.pixels = np.asarray(self.pixels)
        self.targets = np.eye(len(photos.label_names), dtype=np.float32)
        self.weights = class_weights(photos, settings["class_weights"])
        self.size = min(settings["batch_size"], len(photos))
        self.steps = len(photos) // self.size
        self.augment = Augmentation.of(settings)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """The batches from step `first` on: photos (N, S, S, 3) float32 in 0-255, labels (N, K) as 0 and 1, and what
        each counts in the loss, (N,), or None where all count the same.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))

        def draw(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            rows = order[step * self.size : (step + 1) * self.size]
            photos, labels = self.pixels[rows], self.labels[rows]
            if not self.augment.does_nothing():
                generators = (np.random.default_rng([self.seed, epoch, row]) for row in rows.tolist())
                photos = np.stack([self.augment(photo, rng) for photo, rng in zip(photos, generators, strict=True)])
            weights = None if self.weights is None else self.weights[labels]
            return photos.astype(np.float32), self.targets[labels], weights

        with ThreadPoolExecutor(2) as pool:
            yield from map_ahead(pool, draw, range(first, self.steps), ahead=AHEAD)


def class_weights(photos: Photos, which: str) -> np.ndarray | None:
    """What a picture of each label counts in the loss, (K,); None where all count the same.

    "balanced" gives all labels the same sum, however few pictures one has (scikit-learn's rule).
    """
    if which == "equal":
        return None
    weights = compute_class_weight("balanced", classes=np.arange(len(photos.label_names)), y=photos.labels)
    return weights.astype(np.float32)
