"""Keras: model.keras, and the same model unzipped at the root, which `keras.saving.load_model("hf://…")` reads."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hub import bundle, safety
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.files import write_aside
from hub.formats.base import Format, Runner, Source

if TYPE_CHECKING:
    import keras


MEMBERS = ("metadata.json", "model.weights.h5")  # of the zip file model.keras, beside its config.json
# What Keras 3.12 to 3.15 added to the configs of layers and initializers, with the value that means "as before".
NEWER = {
    "input_axes": None, "output_axes": None, "quantization_config": None, "gptq_unpacked_column_size": None,
    "renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99, "sliding_window": None, "use_gate": False,
}  # fmt: skip


class KerasRunner(Runner):
    """A Keras model, called as a compiled function of the backend that Keras runs on."""

    def __init__(self, model: keras.Model):
        import keras

        self.model, self.image_size = model, model.inputs[0].shape[1]
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            self._forward = tf.function(lambda pixels: model(pixels, training=False))  # twice as fast as call by call
        else:
            self._forward = model.predict_on_batch  # which compiles too, but under TensorFlow by XLA, slow on CPUs

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Runner`."""
        answer = {name: np.asarray(value) for name, value in self._forward(photos.astype(np.float32)).items()}
        return answer["logits"], answer.get("evidence")

    def read(self, path: Path) -> np.ndarray:
        """Return the probabilities (K,) of a file that Keras's own `load_img` reads."""
        import keras

        size = (self.image_size, self.image_size)
        photo = np.asarray(keras.utils.load_img(path, target_size=size, interpolation="bilinear"))
        return np.asarray(keras.ops.softmax(self._forward(photo[None].astype(np.float32))["logits"][0]))


class KerasFile(Format):
    """The source of truth: all other formats are derived from it."""

    name, title = "keras", "Keras, `model.keras`"
    loads = "`model.keras`, from which all other formats are made. It has standard layers only and contains no code."
    reader = "`load_img`: Pillow, without EXIF rotation"
    files = (bundle.KERAS,)
    modules, install = ("keras", "tensorflow"), "keras tensorflow"

    def open(self, folder: Path, config: Config) -> KerasRunner:
        """See `Format`."""
        return KerasRunner(load(folder / bundle.KERAS))

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        fetched = f'keras.saving.load_model(hf_hub_download("{repo_id}", "{bundle.KERAS}"), compile=False)'
        return keras_snippet(config, fetched, "from huggingface_hub import hf_hub_download\n\n")


class KerasFolder(Format):
    """What `model.keras` holds, unzipped: Keras loads a repository by name from these files."""

    name, title = "keras-folder", "Keras, by name (`hf://`)"
    loads = "The same model, loaded by the repository's name from its `metadata.json` and `model.weights.h5`."
    reader = KerasFile.reader
    files = MEMBERS
    modules, install = KerasFile.modules, KerasFile.install

    def config(self, folder: Path) -> dict:
        """See `Format`."""
        return safety.keras_config(folder / bundle.KERAS)

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        with zipfile.ZipFile(folder / bundle.KERAS) as archive:
            for name in MEMBERS:
                (folder / name).write_bytes(archive.read(name))

    def open(self, folder: Path, config: Config) -> KerasRunner:
        """See `Format`."""
        return KerasRunner(load(folder))

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        return keras_snippet(config, f'keras.saving.load_model("hf://{repo_id}", compile=False)', "\n")


def load(path: Path) -> keras.Model:
    """Load model.keras or the folder form of it; code in it is never run.

    Raises:
        BundleError: it holds a layer that is no stock layer, or Keras cannot read it.
    """
    import keras

    safety.check_keras(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers raise
        raise BundleError(f"{path} cannot be loaded ({first_line(error)}); save the model again.") from error


def portable(config: dict) -> dict:
    """Return a Keras config without the entries that Keras before 3.15 does not know, where they say nothing.

    >>> layer = {"class_name": "GlorotUniform", "config": {"seed": 7, "input_axes": None, "output_axes": [1]}}
    >>> portable(layer)["config"]
    {'seed': 7, 'output_axes': [1]}

    Args:
        config: config.json of a model.keras; whatever is no object of Keras in it stays as it is.
    """
    if isinstance(config, list):
        return [portable(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: portable(value) for key, value in config.items()}
    if "class_name" in config and isinstance(config.get("config"), dict):
        inner = config["config"].items()
        config["config"] = {key: value for key, value in inner if key not in NEWER or value != NEWER[key]}
    return config


def make_portable(path: Path) -> None:
    """Let older versions of Keras load a model.keras: rewrite its config.json where `portable` changes it.

    The other members stay byte for byte; the new file is the same whenever it is made, and takes the old one's place
    only when it is whole.

    Raises:
        BundleError: it is no model.keras.
        StorageError: the folder cannot be written.
    """
    config = safety.keras_config(path)
    if (plain := portable(config)) == config:
        return

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                content = json.dumps(plain).encode() if name == bundle.CONFIG else old.read(name)
                member = zipfile.ZipInfo(name)  # of 1980, stored
                member.create_system, member.external_attr = 3, 0o600 << 16  # as Keras does, on any system
                new.writestr(member, content)

    write_aside(path, write)


def weights_of(path: Path) -> Counter:
    """Count the float arrays in model.keras or a legacy .h5 by (shape, SHA-256): the two name and order them apart.

    Whole numbers (the states of dropout's generators) are left out.
    """
    import h5py

    found: Counter = Counter()

    def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "f":
            found[node.shape, hashlib.sha256(node[()].tobytes()).hexdigest()] += 1

    source: Path | io.BytesIO = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source) as file:
        file.visititems(add)
    return found


def keras_snippet(config: Config, load: str, also: str) -> str:
    """Return the snippet of a format that Keras itself loads: by the expression `load`, which may want `also` first."""
    size = config.image_size
    return f"""import keras
{also}model = {load}
photo = keras.utils.load_img("photo.jpg", target_size=({size}, {size}), interpolation="bilinear")
logits = model(keras.utils.img_to_array(photo)[None])["logits"][0]
print(dict(zip({list(config.labels)}, map(float, keras.ops.softmax(logits)))))
"""
