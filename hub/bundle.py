"""A bundle is a folder: what must lie in it, how it is read with suspicion and written all or nothing.

model.keras           the source of truth; takes pixels as they are (0-255, NHWC) and scales inside
onnx/model.onnx       pixel_values (batch, 3, S, S) -> logits (batch, K), evidence (batch, h, w, K)
config.json           labels, image size, preprocessing, evidence scale
metrics.json          every measured number
predictions.parquet   the per-photo record those numbers were computed from
README.md             the model card, rendered from the two JSON files
figures/              curves that go with the card
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hub.errors import BundleError, StorageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

KERAS, ONNX, CONFIG, METRICS = "model.keras", "onnx/model.onnx", "config.json", "metrics.json"
PREDICTIONS, CARD, FIGURES = "predictions.parquet", "README.md", "figures"
MEMBERS = {KERAS, "onnx", CONFIG, METRICS, PREDICTIONS, CARD, FIGURES}
RUNTIME_FILES = [CONFIG, METRICS, PREDICTIONS, CARD, ONNX]  # what answering and its record need: no Keras

PREPROCESSING = {
    "orientation": "exif",
    "mode": "RGB",
    "resize": "squash",
    "resample": "bilinear",
    "antialias": True,
    "dtype": "uint8",
}
INPUTS = {"keras": "float 0-255 NHWC", "onnx": "pixel_values float32 NCHW in [-1, 1]"}
# Keras takes a config.json that has one of these keys for its own when it loads a repository by name.
KERAS_KEYS = {"module", "class_name", "config", "registered_name", "build_config", "compile_config"}


def make_config(labels: list[str], image_size: int, grid: tuple[int, int] | None, **more) -> dict:
    """Return the config.json of a model.

    Args:
        labels: K names, in the order of the logits.
        image_size: S, the side in pixels.
        grid: (h, w) of the evidence, None for a model without.
        more: further entries.
    """
    config = {
        "model_type": "image_classifier",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "image_size": image_size,
        "head": "evidence" if grid else "logits",
        "preprocessing": PREPROCESSING,
        "inputs": INPUTS,
    }
    if grid:
        config["evidence"] = {"grid": list(grid), "scale": None}
    return {**config, **more}


def check_config(config: dict, where: str) -> dict:
    """Return `config` if a classifier can rely on it.

    Raises:
        BundleError: it cannot; the sentence starts with `where` and says what is wrong.
    """

    def demand(fine: bool, problem: str) -> None:
        if not fine:
            raise BundleError(f"{where} {problem}; save the model again with save_pretrained.")

    names = config.get("id2label")
    demand(isinstance(names, dict) and len(names) >= 2, "does not name at least two labels under id2label")
    labels = [names.get(str(index)) for index in range(len(names))]
    named = all(isinstance(label, str) and label.strip() for label in labels)
    demand(named, 'has an id2label that is not {"0": name, "1": name, …}')
    demand(len(set(labels)) == len(labels), "gives two labels the same name")
    size = config.get("image_size")
    demand(type(size) is int and 1 <= size <= 4096, "has no image_size between 1 and 4096")
    same = config.get("preprocessing") == PREPROCESSING
    demand(same, "asks for another preprocessing than this package does")
    evidence = config.get("evidence", {})
    demand(isinstance(evidence, dict), "has an evidence entry that is not an object")
    scale = evidence.get("scale", 1.0)
    positive = type(scale) in (int, float) and 0 < scale < float("inf")
    demand(scale is None or positive, "has an evidence scale that is not a positive number")
    clash = sorted(KERAS_KEYS & config.keys())
    demand(not clash, f"uses the key {', '.join(clash)}, which belongs to Keras")
    return config


def check_graph(session: InferenceSession, config: dict, where: str) -> bool:
    """Check a model's inputs and outputs against its config; return whether it has evidence.

    Raises:
        BundleError: they have other names, types or shapes than the contract at the top.
    """
    labels, size = len(config["id2label"]), config["image_size"]
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}

    def demand(nodes: dict, name: str, *shape: int | str) -> None:
        if name not in nodes or nodes[name].type != "tensor(float)" or not _fits(nodes[name].shape, shape):
            has = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes.values())
            want = f"{name} tensor(float) {list(shape)}"
            raise BundleError(f"{where} should have {want}, but it has {has}; export it again.")

    demand(inputs, "pixel_values", "batch", 3, size, size)
    if len(inputs) > 1:
        raise BundleError(f"{where} wants more than pixel_values ({', '.join(inputs)}); export it again.")
    demand(outputs, "logits", "batch", labels)
    if "evidence" in outputs:
        demand(outputs, "evidence", "batch", "h", "w", labels)
    return "evidence" in outputs


def _fits(shape: list, wanted: tuple) -> bool:
    """Whether an ONNX shape (numbers, or text and None for what is open) allows the wanted one, any batch."""
    if len(shape) != len(wanted) or isinstance(shape[0], int):
        return False
    pairs = zip(shape[1:], wanted[1:], strict=True)
    return all(not isinstance(has, int) or isinstance(want, str) or has == want for has, want in pairs)


def read_bytes(folder: Path, name: str) -> bytes:
    """Return the content of a file that a bundle must have."""
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{folder} has no {name}, so it is not a model; check the name.") from error
    except OSError as error:
        raise StorageError(f"{folder / name} cannot be read ({error.strerror}); check the file.") from error


def read_json(folder: Path, name: str) -> dict:
    """Return the object in a JSON file that a bundle must have."""
    text = read_bytes(folder, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{folder / name} is not valid JSON ({error}); save or download the model again."
        raise BundleError(message) from error
    if not isinstance(content, dict):
        raise BundleError(f"{folder / name} is not a JSON object; save or download the model again.")
    return content


def write_json(folder: Path, name: str, content: dict) -> None:
    """Write a JSON file that people read too; numpy's numbers become plain ones, NaN is refused."""
    try:
        style = {"indent": 2, "ensure_ascii": False, "allow_nan": False}
        text = json.dumps(content, default=lambda value: value.tolist(), **style)
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{name} cannot be written ({error}); give plain, finite numbers.") from error
    (folder / name).write_text(text + "\n", encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy one file's content, following links (a Hub cache is made of them)."""
    if not source.is_file():
        raise BundleError(f"There is no file {source} to put into the bundle; check the path.")
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` only when the block ends well.

    It lies beside its destination, so that the last step is a rename, and whatever goes wrong before leaves
    an older bundle as it was. (Killed between the last two renames, a moment apart, the older one lies
    whole in .NAME.xxxx/old.) Only a bundle or an empty folder is replaced: nobody's other files are lost.

    Raises:
        BundleError: the folder holds something that is no part of a bundle.
        StorageError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder).resolve()
    try:
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = {"prefix": f".{folder.name}.", "dir": folder.parent}
        with tempfile.TemporaryDirectory(**place, ignore_cleanup_errors=True) as aside:
            new, old = Path(aside, "new"), Path(aside, "old")
            new.mkdir()
            yield new
            _flush(new)
            _swap(new, folder, old)
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or error
        message = f"The model cannot be written to {folder} ({reason}); free space or choose another folder."
        raise StorageError(message) from error


def _check_replaceable(folder: Path) -> None:
    strangers = sorted({path.name for path in folder.iterdir()} - MEMBERS) if folder.exists() else []
    if strangers:
        message = f"{folder} holds {strangers[0]}, which is no part of a model; choose another folder."
        raise BundleError(message)


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `new` to `folder`, what was there to `old`; undo where the second step fails."""
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


def _flush(folder: Path) -> None:
    """Have every file on the disk before the rename makes them the bundle, should the power fail."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
