"""Keras's format before 3, one HDF5 file: still what courses ask for, and what Teachable Machine exports.

A model in it can hold Python bytecode, and Keras has run that even in safe mode (CVE-2024-3660, CVE-2025-9905). So the
file of a bundle is written here and never loaded. Somebody's own model is loaded once, to make a bundle of it, after
every layer in it was looked up in the list of `hub.safety`, and from a copy that holds what was looked at.
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hub import bundle, safety
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.formats.base import Format, Source, converting
from hub.formats.keras import weights_of

if TYPE_CHECKING:
    import keras


FILE = "model.h5"


class H5(Format):
    """model.h5: layers and weights, never compiled."""

    name, title = "h5", "Keras, legacy `.h5`"
    not_run = "for programs that still need it; this project never loads it, because the format can contain code"
    files = (FILE,)
    modules, install = ("h5py", "keras", "tensorflow"), "keras tensorflow"
    standard, runs = False, False

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        with converting(self):
            import keras

            model = source.keras
            # Built anew from the same tensors, it was never compiled: the file has no optimizer state.
            keras.Model(model.input, model.output, name=model.name).save(folder / FILE)

    def check(self, folder: Path, config: Config) -> None:
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


def load(path: Path) -> keras.Model:
    """Load somebody's model.h5, of Keras 2 or 3; code in it is never run.

    Raises:
        BundleError: it holds a layer that is no stock layer, only weights, or Keras cannot read it.
    """
    import keras

    try:
        content = safety.read_limited(path, bundle.LARGEST["model"])
    except OSError as error:
        raise BundleError(f"{path} cannot be loaded ({error.strerror}); check the file.") from error
    safety.check_weights(io.BytesIO(content), len(content), str(path))
    with tempfile.TemporaryDirectory() as aside:
        copy = Path(aside, FILE)
        copy.write_bytes(content)
        _make_loadable(copy, path)
        try:
            return keras.saving.load_model(copy, compile=False)
        except Exception as error:  # Keras raises whatever its layers raise
            raise BundleError(
                f"{path} cannot be loaded by Keras {keras.__version__} ({first_line(error)}); save it as a .keras file "
                "where it was made."
            ) from error


def _make_loadable(copy: Path, path: Path) -> None:
    """Check the layers that a file names, and write them down as Keras 3 reads them; what else it says goes.

    Args:
        copy: the file that is changed.
        path: where it came from, for the sentences.
    """
    import h5py

    with h5py.File(copy, "r+") as file:
        text = file.attrs.get("model_config")
        if text is None:
            raise BundleError(f"{path} holds weights without a model; save the whole model, with model.save.")
        try:
            config = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise BundleError(f"{path} cannot be loaded ({first_line(error)}); save the model again.") from error
        if not isinstance(config, dict):
            raise BundleError(f"{path} cannot be loaded (it describes no model); save the model again.")
        safety.check_objects(config, str(path), legacy=True)
        for name in set(file.attrs) - {"keras_version", "backend"}:
            del file.attrs[name]
        file.attrs["model_config"] = json.dumps(_for_keras_3(config))


def _for_keras_3(config: object) -> object:
    """Return a config without what Keras 2 wrote of a depthwise convolution and Keras 3 refuses: its one group."""
    if isinstance(config, list):
        return [_for_keras_3(value) for value in config]
    if not isinstance(config, dict):
        return config
    config = {key: _for_keras_3(value) for key, value in config.items()}
    inner = config.get("config")
    if config.get("class_name") == "DepthwiseConv2D" and isinstance(inner, dict) and inner.get("groups") == 1:
        del inner["groups"]
    return config
