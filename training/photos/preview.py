"""A sheet of what a recipe's augmentation does to its own photos: each setting alone, and all together."""

from dataclasses import fields

import numpy as np
from matplotlib.figure import Figure

from training.pages.drawing import FONT, new_figure
from training.photos.augment import Augmentation
from training.photos.data import Photos

ACROSS = 8


def preview(settings: dict, photos: Photos) -> Figure:
    """Training photos as they are, under each knob that the recipe turns, and under all of them.

    The bottom row shows the views that training draws of these photos in its first epoch.

    Args:
        settings: a recipe's settings; the knobs are those of `Augmentation`.
        photos: pictures at the recipe's size; of "train" each label's first is shown, then each one's second, …
    """
    train = photos.subset("train")
    rows = {"as stored": Augmentation(), **_alone(settings), "all together": Augmentation.of(settings)}
    chosen = _in_turn(train.labels)[:ACROSS]
    across = len(chosen)
    figure = new_figure(1.35 * across + 2.2, 1.35 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (title, augment) in zip(grid, rows.items(), strict=True):
        for i, axes in zip(chosen, line, strict=True):
            random = np.random.default_rng([settings["seed"], 0, i])
            axes.imshow(augment(np.asarray(train.pixels[i]), random), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=FONT)
    figure.suptitle("What may happen to a training photo", fontsize=FONT + 2)
    return figure


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """The indices of all pictures, (N,): the first of each label, then the second of each, …"""
    before = np.zeros(len(labels), np.int64)  # how many of the same label come earlier
    for label in np.unique(labels):
        before[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, before))


def _alone(settings: dict) -> dict[str, Augmentation]:
    """Each knob that does something, by itself, under its name and value."""
    found = {}
    for field in fields(Augmentation):
        value = settings[field.name]
        if field.name != "fill" and value != field.default:
            found[f"{field.name} = {value}"] = Augmentation(**{field.name: value}, fill=settings["fill"])
    return found
