"""Keras's format before 3, one HDF5 file: still what courses ask for.

It is written here and never loaded: a model in it can hold Python bytecode, and Keras has run that even in safe mode
(CVE-2024-3660, CVE-2025-9905).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hub import bundle, safety
from hub.errors import BundleError
from hub.formats.base import Format, converting
from hub.formats.keras import weights_of

if TYPE_CHECKING:
    from hub.classifier import ImageClassifier

FILE = "model.h5"


class H5(Format):
    """model.h5: layers and weights, never compiled."""

    name, title = "h5", "Keras, legacy `.h5`"
    not_run = "for programs that still need it; this project never loads it, because the format can contain code"
    files = (FILE,)
    modules, install = ("h5py", "keras", "tensorflow"), "keras tensorflow"
    standard, runs = False, False

    def write(self, classifier: ImageClassifier, folder: Path) -> None:
        """See `Format`."""
        with converting(self):
            import keras

            model = classifier.to_keras()
            # Built anew from the same tensors, it was never compiled: the file has no optimizer state.
            keras.Model(model.input, model.output, name=model.name).save(folder / FILE)

    def check(self, folder: Path, config: dict) -> None:
        """Compare the names of its layers and the content of its weights with those of model.keras."""
        import h5py

        try:
            with h5py.File(folder / FILE) as file:
                layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        except (OSError, KeyError, ValueError) as error:
            raise BundleError(f"{folder / FILE} is not what Keras writes ({error}); export it again.") from error
        expected = safety.keras_config(folder / bundle.KERAS)["config"]["layers"]
        same = weights_of(folder / FILE) == weights_of(folder / bundle.KERAS)
        if not same or [layer["name"] for layer in layers] != [layer["config"]["name"] for layer in expected]:
            raise BundleError(f"{folder / FILE} does not hold the model in {bundle.KERAS}; export it again.")
