"""A bundle is a folder: what must lie in it, how it is read with suspicion and written all or nothing.

model.keras           the source of truth; takes pixels as they are (0-255, NHWC) and scales inside
onnx/model.onnx       pixel_values (batch, 3, S, S) -> logits (batch, K), evidence (batch, h, w, K)
config.json           labels, image size, preprocessing, evidence scale
metrics.json          every measured number
predictions.parquet   the per-photo record those numbers were computed from
agreement.json        how far each runtime's answers are from Keras's, and the hash of every file compared
README.md             the model card, rendered from the three JSON files
figures/              curves that go with the card

What is published (`hub.publishing.staging`) holds the files of `hub.formats` too, all derived from model.keras, and
labels.txt.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub import other_tools, safety
from hub.errors import BundleError, StorageError
from hub.files import folder_aside, storage

KERAS, ONNX, CONFIG, METRICS = "model.keras", "onnx/model.onnx", "config.json", "metrics.json"
PREDICTIONS, CARD, FIGURES, AGREEMENT = "predictions.parquet", "README.md", "figures", "agreement.json"
LABELS = "labels.txt"  # one a line, in the order of the logits, for those who read no JSON
RECORD = [CONFIG, METRICS, PREDICTIONS, AGREEMENT, CARD]  # what is known of a model, beside the model
# What may lie in a folder that a new bundle replaces: the above, and the files and folders of hub.formats.
MEMBERS = {
    KERAS, "onnx", CONFIG, METRICS, PREDICTIONS, CARD, FIGURES, AGREEMENT, LABELS,
    "metadata.json", "model.weights.h5", "preprocessor_config.json", "model.safetensors",
    "litert", "openvino", "coreml", "model.h5",
}  # fmt: skip

DEFAULT = Path(__file__).parent / "pretrained" / "cats-vs-dogs-mobilenetv2"  # the embedded model

DIGITS = 300  # of a whole number; a float holds one of 308
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes it
LARGEST = {"json": 16 * 2**20, "model": 2**31}  # bytes that are read of one file; an ONNX file cannot have more


def read_bytes(folder: Path, name: str) -> bytes:
    """Return the content of a file that a bundle must have, not larger than one of its kind can be."""
    limit = LARGEST["json" if name.endswith(".json") else "model"]
    try:
        return safety.read_limited(folder / name, limit)
    except FileNotFoundError as error:
        told = other_tools.sentence(folder) if name == CONFIG and folder.is_dir() else None
        raise BundleError(told or f"{folder} has no {name}, so it is not a model; check the name.") from error
    except OSError as error:
        raise StorageError(f"{folder / name} cannot be read ({error.strerror}); check the file.") from error


def read_json(folder: Path, name: str) -> dict:
    """Return the object in a JSON file that a bundle must have."""
    raw = read_bytes(folder, name)
    try:
        text = raw.decode(json.detect_encoding(raw))
        content = json.loads(text, parse_int=_whole)
        if SURROGATE.search(text):  # half a sign; whole ones are written as two of these
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"{folder / name} is not valid JSON ({error}); save or download the model again."
        raise BundleError(message) from error
    if not isinstance(content, dict):
        raise BundleError(f"{folder / name} is not a JSON object; save or download the model again.")
    return content


def _whole(digits: str) -> int:
    """A whole number that a float can hold, so that it can be compared, divided and printed."""
    if len(digits) > DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def json_text(content: dict, name: str) -> str:
    """Return JSON that people read too; numpy's numbers become plain ones, NaN is refused with the file's name."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
        return f"{text}\n"
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{name} cannot be written ({error}); give plain, finite numbers.") from error


def write_json(folder: Path, name: str, content: dict) -> None:
    """Write `json_text` to a file of a folder that is not yet the bundle."""
    (folder / name).write_text(json_text(content, name), encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy one file's content, following the links that a Hub cache is made of, and no others: who made a folder must
    not choose which files of this machine are published with it.
    """
    for path in (source, source.parent):
        aim = path.resolve()
        in_cache = aim.parent.name == "blobs" or re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", aim.name)
        if path.is_symlink() and not in_cache:
            raise BundleError(f"{path} is a link to {aim}; put the file itself there.")
    if not source.is_file():
        raise BundleError(f"There is no file {source} to put into the bundle; check the path.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` only when the block ends well (`folder_aside`).

    Only a bundle or an empty folder is replaced: nobody's other files are lost.

    Raises:
        BundleError: the folder holds something that is no part of a bundle.
        StorageError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder).resolve()
    with storage(folder):
        _check_replaceable(folder)
    with folder_aside(folder) as new:
        yield new


def _check_replaceable(folder: Path) -> None:
    strangers = sorted({path.name for path in folder.iterdir()} - MEMBERS) if folder.exists() else []
    if strangers:
        message = f"{folder} holds {strangers[0]}, which is not part of a model; choose another folder."
        raise BundleError(message)
