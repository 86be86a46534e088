"""Keras models of other tools, made into bundles: `python -m hub import`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub import other_tools, safety
from hub.classifier import ImageClassifier
from hub.drawn import drawn
from hub.errors import BundleError, UsageError
from hub.formats import h5
from hub.formats import keras as keras_format
from hub.images import to_tensor

if TYPE_CHECKING:
    import keras

# What a model was trained on, as what is added to pixels of 0 to 255 and by how much they are multiplied before.
PIXELS = {"0..255": None, "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
CHECKED = 64  # drawn pictures on which ONNX and Keras are compared where no photos are given
LONGEST = 2**20  # bytes of a file of labels


def import_model(
    source: Path,
    out: Path,
    *,
    labels: Path | None = None,
    pixels: str | None = None,
    photos: Iterable[Path] = (),
) -> ImageClassifier:
    """Make a bundle of somebody's Keras model.

    Args:
        source: a .keras or .h5 file, or the folder that Teachable Machine exports for Keras.
        out: made, or replaced if it holds a bundle already.
        labels: a text file with one label per line, in the order of the model's outputs; Teachable Machine has its own.
        pixels: what the model was trained on, a name of PIXELS; known for Teachable Machine.
        photos: pictures to compare ONNX and Keras on; none are needed, as pictures are drawn then.

    Returns:
        The classifier, loaded from `out`.

    Raises:
        BundleError: it is another kind of model, could run code, or its answers cannot be carried.
        UsageError: labels or pixels are missing.
        ImageError: a photo cannot be read.
    """
    if source.is_dir() and all((source / name).is_file() for name in other_tools.TEACHABLE):
        source, names = (source / name for name in other_tools.TEACHABLE)
        labels, pixels = labels or names, pixels or "-1..1"
    if not source.is_file() or source.suffix.lower() not in other_tools.KERAS_ENDINGS:
        told = other_tools.sentence(source) if source.exists() else None
        raise BundleError(
            told or f"{source} is neither a .keras or .h5 file nor a folder of Teachable Machine; check the path."
        )
    if labels is None:
        raise UsageError(
            f"{source} does not name its labels; give --labels FILE with one label per line, in their order."
        )
    if pixels not in PIXELS:
        raise UsageError(
            f"{source} does not say what pixels it was trained on; give --pixels 0..255 where it takes them as they "
            "are, 0..1 where they were divided by 255, or -1..1."
        )
    loaded = keras_format.load(source) if source.suffix.lower() == ".keras" else h5.load(source)
    classifier = ImageClassifier.from_keras(_scaled(loaded, PIXELS[pixels], out.name), _labels(labels))
    size = classifier.image_size
    tensors = np.stack([to_tensor(path, size) for path in photos] or list(drawn(CHECKED, size)))
    classifier.save_pretrained(out, photos=tensors)
    return ImageClassifier.from_pretrained(out)


def _labels(path: Path) -> list[str]:
    try:
        return other_tools.teachable_labels(safety.read_limited(path, LONGEST).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text; save it as such, with one label per line.") from error
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); give a text file with one label per line."
        ) from error


def _scaled(model: keras.Model, scaling: tuple[float, float] | None, name: str) -> keras.Model:
    """Return a model that takes pixels from 0 to 255."""
    import keras

    first = model
    while isinstance(first, keras.Sequential) and not first.built:  # Keras 2 did not write down what goes in
        first = first.layers[0]
    shape = getattr(first, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise BundleError(f"The model takes {shape} and not pictures, (None, S, S, 3), so it cannot be used here.")
    image = keras.Input(shape[1:], name="image")
    pixels = image if scaling is None else keras.layers.Rescaling(scaling[0], offset=scaling[1], name="pixels")(image)
    return keras.Model(image, model(pixels), name=name)
