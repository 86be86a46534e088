"""A bundle is a folder: what must lie in it, how it is read with suspicion and written all or nothing.

model.keras           the source of truth; takes pixels as they are (0-255, NHWC) and scales inside
onnx/model.onnx       pixel_values (batch, 3, S, S) -> logits (batch, K), evidence (batch, h, w, K)
config.json           labels, image size, preprocessing, evidence scale
metrics.json          every measured number
predictions.parquet   the per-photo record those numbers were computed from
agreement.json        how far each runtime's answers are from Keras's, and the hash of every file compared
README.md             the model card, rendered from the three JSON files
figures/              curves that go with the card

What is published (`hub.publish`) holds the files of `hub.formats` too, all derived from model.keras, and labels.txt.
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

from hub import safety
from hub.errors import BundleError, StorageError
from hub.safety import check_keras as check_keras
from hub.safety import keras_config as keras_config

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

KERAS, ONNX, CONFIG, METRICS = "model.keras", "onnx/model.onnx", "config.json", "metrics.json"
PREDICTIONS, CARD, FIGURES, AGREEMENT = "predictions.parquet", "README.md", "figures", "agreement.json"
LABELS = "labels.txt"  # one a line, in the order of the logits, for those who read no JSON
# What agreement.json says of the comparison, and of each runtime in its two tables.
AGREEMENT_KEYS = {
    "tolerance", "photos", "title", "unreadable", "largest_photo", "largest_evidence", "runtimes", "files",
    "written_only", "left_out",
}  # fmt: skip
SAME_TENSOR = {"probability", "logits", "evidence"}
SAME_FILE = {"probability", "other_label", "largest_photo", "turned_photo"}
RECORD = [CONFIG, METRICS, PREDICTIONS, AGREEMENT, CARD]  # what is known of a model, beside the model
# What may lie in a folder that a new bundle replaces: the above, and the files and folders of hub.formats.
MEMBERS = {
    KERAS, "onnx", CONFIG, METRICS, PREDICTIONS, CARD, FIGURES, AGREEMENT, LABELS,
    "metadata.json", "model.weights.h5", "preprocessor_config.json", "model.safetensors",
    "litert", "openvino", "coreml", "model.h5",
}  # fmt: skip

LARGEST = {"json": 16 * 2**20, "model": 2**31}  # bytes that are read of one file; an ONNX file cannot have more

PREPROCESSING = {
    "orientation": "exif",
    "mode": "RGB",
    "resize": "squash",
    "resample": "bilinear",
    "antialias": True,
    "dtype": "uint8",
}
INPUTS = {"keras": "float 0-255 NHWC", "onnx": "pixel_values float32 NCHW in [-1, 1]"}
# A published config.json holds three libraries' keys side by side. By these Keras takes the file for its own, …
KERAS_KEYS = {"module", "class_name", "config", "registered_name", "build_config", "compile_config"}
# … and these tell Transformers what to build (id2label, label2id, image_size and model_type are its own words too).
TRANSFORMERS_KEYS = {
    "architectures", "num_channels", "depth_multiplier", "depth_divisible_by", "min_depth", "expand_ratio",
    "output_stride", "first_layer_is_expansion", "finegrained_output", "hidden_act", "tf_padding",
    "classifier_dropout_prob", "layer_norm_eps",
}  # fmt: skip


def make_config(labels: list[str], image_size: int, grid: tuple[int, int] | None, **more) -> dict:
    """Return the config.json of a model.

    Args:
        labels: K names, in the order of the logits.
        image_size: S, the side in pixels.
        grid: (h, w) of the evidence, None for a model without.
        more: further entries.

    Raises:
        BundleError: one of them has a name that belongs to another library.
    """
    clash = sorted((KERAS_KEYS | TRANSFORMERS_KEYS) & more.keys())
    if clash:
        raise BundleError(f"The entry {clash[0]} of a config belongs to Keras or Transformers; choose another name.")
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
    demand("auto_map" not in config, "names code of its own under auto_map, which is never run")
    return config


def own(config: dict) -> dict:
    """Return a published config.json without the keys that other libraries read."""
    return {key: value for key, value in config.items() if key not in KERAS_KEYS | TRANSFORMERS_KEYS}


def merge(config: dict, keys: dict, library: str) -> dict:
    """Add another library's keys to a config.json.

    Raises:
        BundleError: a key is there already and means something else.
    """
    default = {"model_type": "image_classifier"}  # says nothing, so a library's own word may take its place
    clash = [key for key in keys if config.get(key, keys[key]) not in (keys[key], default.get(key, keys[key]))]
    if clash:
        raise BundleError(f"config.json has a {clash[0]} that {library} would misread; rename it where it is made.")
    return {**config, **keys}


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
    """Return the content of a file that a bundle must have, not larger than one of its kind can be."""
    limit = LARGEST["json" if name.endswith(".json") else "model"]
    try:
        return safety.read_limited(folder / name, limit)
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


def agreement(folder: Path) -> dict | None:
    """Return what agreement.json says of a bundle; None where it was never verified.

    Raises:
        BundleError: it is not what `hub.agreement.verify` of this version writes.
    """
    if not (folder / AGREEMENT).is_file():
        return None
    found = read_json(folder, AGREEMENT)
    rows = found.get("runtimes")
    whole = found.keys() >= AGREEMENT_KEYS and isinstance(rows, dict)
    if not whole or not all(_is_row(row) for row in rows.values()):
        raise BundleError(f"{folder / AGREEMENT} is of another version; run `python -m hub verify {folder}` again.")
    return found


def _is_row(row: object) -> bool:
    parts = {"same_tensor": SAME_TENSOR, "same_file": SAME_FILE, "title": set(), "versions": set()}
    return isinstance(row, dict) and all(keys <= set(row.get(part, [None])) for part, keys in parts.items())


def json_text(content: dict, name: str) -> str:
    """Return JSON that people read too; numpy's numbers become plain ones, NaN is refused with the file's name."""
    try:
        style = {"indent": 2, "ensure_ascii": False, "allow_nan": False}
        return json.dumps(content, default=lambda value: value.tolist(), **style) + "\n"
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{name} cannot be written ({error}); give plain, finite numbers.") from error


def write_json(folder: Path, name: str, content: dict) -> None:
    """Write `json_text` to a file of a folder that is not yet the bundle."""
    (folder / name).write_text(json_text(content, name), encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy one file's content, following links (a Hub cache is made of them)."""
    if not source.is_file():
        raise BundleError(f"There is no file {source} to put into the bundle; check the path.")
    target.parent.mkdir(parents=True, exist_ok=True)
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
