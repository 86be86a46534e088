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
import unicodedata
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


# Embeddings, overrides and isolates, https://www.unicode.org/reports/tr9/
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}

# Entries by which Transformers would run code, or compute differently from the model.
FOREIGN = {
    "auto_map": "which names code that is never run",
    "quantization_config": "which changes the answers",
    "dtype": "which changes the answers",
    "torch_dtype": "which changes the answers",
}


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


def label_fault(label: str) -> str | None:
    """Return what keeps a label from standing in a line of text, as "a line break …"; None for a good one.

    Joiners, non-joiners, no-break spaces, marks and variation selectors are signs that languages and emoji are written
    with. Embeddings, overrides and isolates of direction are refused, since they would turn the text around the label.
    """
    kinds = [unicodedata.category(sign) for sign in label]
    if any(kind in ("Cc", "Zl", "Zp") for kind in kinds):
        return "a line break or another control character"
    if "Cs" in kinds:
        return "bytes that are not text"
    if any(sign in _TURNING for sign in label):
        return "a sign that turns the direction of the text around it"
    if all(kind[0] in "ZMC" and kind not in ("Co", "Cn") for kind in kinds):
        return "no visible sign"
    return None


def check_config(config: dict, where: str) -> dict:
    """Return `config` if a classifier can rely on it.

    Raises:
        BundleError: it cannot; the sentence starts with `where` and says what is wrong.
    """

    def demand(fine: bool, problem: str) -> None:
        if not fine:
            raise BundleError(f"{where} {problem}; save the model again with save_pretrained.")

    if told := other_tools.of_config(config, where):
        raise BundleError(told)
    names = config.get("id2label")
    demand(isinstance(names, dict) and len(names) >= 2, "does not name at least two labels under id2label")
    labels = [names.get(str(index)) for index in range(len(names))]
    named = all(isinstance(label, str) and label.strip() for label in labels)
    demand(named, 'has an id2label that is not {"0": name, "1": name, …}')
    same = len({unicodedata.normalize("NFC", label) for label in labels}) < len(labels)
    demand(not same, "gives two labels the same name")
    faults = [fault for label in labels if (fault := label_fault(label))]
    demand(not faults, f"has a label with {faults[0] if faults else ''}")
    size = config.get("image_size")
    demand(type(size) is int and 1 <= size <= 4096, "has no image_size between 1 and 4096")
    same = config.get("preprocessing") == PREPROCESSING
    demand(same, "asks for another preprocessing than this package does")
    evidence = config.get("evidence", {})
    demand(isinstance(evidence, dict), "has an evidence entry that is not an object")
    scale = evidence.get("scale", 1.0)
    positive = type(scale) in (int, float) and 0 < scale < float("inf")
    demand(scale is None or positive, "has an evidence scale that is not a positive number")
    grid = evidence.get("grid")
    cells = isinstance(grid, list) and len(grid) == 2 and all(type(side) is int and 1 <= side <= size for side in grid)
    demand(not evidence or cells, "has an evidence grid that is not two numbers of cells")
    demand(isinstance(config.get("backbone") or {}, dict), "has a backbone entry that is not an object")
    texts = [config.get(name) or "" for name in ("model_type", "name", "license")]
    demand(
        all(isinstance(text, str) and text.isprintable() for text in texts), "has a name that is not one line of text"
    )
    for name, reason in FOREIGN.items():
        demand(name not in config, f"has the entry {name}, {reason}")
    return config


def own(config: dict) -> dict:
    """Return a published config.json without the keys that other libraries read."""
    return {key: value for key, value in config.items() if key not in KERAS_KEYS | TRANSFORMERS_KEYS}


def merge(config: dict, keys: dict, library: str) -> dict:
    """Add another library's keys to a config.json.

    Raises:
        BundleError: a key is there already and means something else.
    """
    # Of model_type only the card makes anything, so a library's own word takes its place.
    clash = [key for key in keys if key != "model_type" and config.get(key, keys[key]) != keys[key]]
    if clash:
        raise BundleError(f"config.json has a {clash[0]} that {library} would misread; rename it where it is made.")
    return {**config, **keys}


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
    text = read_bytes(folder, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{folder / name} is not valid JSON ({error}); save or download the model again."
        raise BundleError(message) from error
    if not isinstance(content, dict):
        raise BundleError(f"{folder / name} is not a JSON object; save or download the model again.")
    return content


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
