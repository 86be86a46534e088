"""config.json as a value: `config_of` reads one with suspicion, `Config.to_json` writes it, and nothing else does."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hub import other_tools
from hub.bundle import CONFIG, read_json
from hub.errors import BundleError
from hub.parts import read, text, to_json

LARGEST_SIDE = 4096  # pixels
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
# Entries by which Transformers would run code, or compute differently from the model.
FOREIGN = {
    "auto_map": "which names code that is never run",
    "quantization_config": "which changes the answers",
    "dtype": "which changes the answers",
    "torch_dtype": "which changes the answers",
}
# What is always written out of other entries of a Config, so that it is no entry of `more`.
_DERIVED = ("id2label", "label2id", "image_size", "head", "preprocessing", "inputs", "evidence", "backbone")
# Embeddings, overrides and isolates, https://www.unicode.org/reports/tr9/
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


@dataclass(frozen=True)
class Evidence:
    """What a model's maps of evidence are."""

    grid: tuple[int, int]  # (h, w), cells
    scale: float | None = None  # of `hub.heatmaps.fixed_scale`, in logits
    scale_definition: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # entries that this version does not know

    def to_json(self) -> dict[str, Any]:
        """Return the entry of config.json."""
        content = {"grid": list(self.grid), "scale": self.scale, **_told(self, "scale_definition")}
        return _with(content, self.more)


@dataclass(frozen=True)
class Backbone:
    """Where a model's first weights came from, as far as it is known."""

    name: str | None = None
    weights: str | None = None
    license: str | None = None
    sha256: str | None = None
    hub_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # what this version does not know, or what is no text

    def to_json(self) -> dict[str, Any]:
        """Return the entry of config.json."""
        content: dict[str, Any] = to_json(self)
        return content


_BACKBONE = ("name", "weights", "license", "sha256", "hub_id")


@dataclass(frozen=True)
class Config:
    """What config.json says of a model, without the keys that other libraries read there."""

    labels: tuple[str, ...]  # K names, in the order of the logits
    image_size: int  # S, the side in pixels
    evidence: Evidence | None = None  # None of a model whose head keeps no map
    model_type: str | None = "image_classifier"
    name: str | None = None
    license: str | None = None
    backbone: Backbone | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # entries that this version does not know

    @property
    def head(self) -> str:
        """The kind of the last layer: "evidence" or "logits"."""
        return "evidence" if self.evidence else "logits"

    def to_json(self) -> dict[str, Any]:
        """Return the content of config.json."""
        parts = {"evidence": self.evidence, "backbone": self.backbone}
        content = {
            **_told(self, "model_type"),
            "id2label": {str(index): label for index, label in enumerate(self.labels)},
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "image_size": self.image_size,
            "head": self.head,
            "preprocessing": PREPROCESSING,
            "inputs": INPUTS,
            **{name: part.to_json() for name, part in parts.items() if part is not None},
            **_told(self, "name", "license"),
        }
        return _with(content, self.more)


def make_config(
    labels: Iterable[str], image_size: int, grid: tuple[int, int] | None, where: str = "The config", /, **more: Any
) -> Config:
    """Return the config of a new model.

    Args:
        labels: K names, in the order of the logits.
        image_size: S, the side in pixels.
        grid: (h, w) of the evidence, None for a model without.
        where: how a refusal begins.
        more: further entries, such as backbone={...}.

    Raises:
        BundleError: one of them has a name that belongs to another library, or no classifier can rely on them.
    """
    clash = sorted((KERAS_KEYS | TRANSFORMERS_KEYS) & more.keys())
    if clash:
        raise BundleError(f"The entry {clash[0]} of a config belongs to Keras or Transformers; choose another name.")
    content: dict[str, Any] = {
        "model_type": "image_classifier",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "image_size": image_size,
        "preprocessing": PREPROCESSING,
    }
    if grid:
        content["evidence"] = {"grid": list(grid)}
    return config_of({**content, **more}, where)


def read_config(folder: Path, name: object = None) -> Config:
    """Read the config.json of a bundle.

    Args:
        folder: where it is.
        name: what a refusal calls the model; None is the folder.

    Raises:
        BundleError: it is missing, or see `config_of`.
    """
    return config_of(read_json(folder, CONFIG), f"The config.json of {folder if name is None else name}")


def config_of(content: Mapping[str, Any], where: str) -> Config:
    """Return what a config.json says, if a classifier can rely on it.

    Raises:
        BundleError: it cannot; the sentence starts with `where` and says what is wrong.
    """

    def demand(fine: bool, problem: str) -> None:
        if not fine:
            raise BundleError(f"{where} {problem}; save the model again with save_pretrained.")

    if told := other_tools.of_config(content, where):
        raise BundleError(told)
    names: Any = content.get("id2label")
    demand(isinstance(names, dict) and len(names) >= 2, "does not name at least two labels under id2label")
    labels: list[Any] = [names.get(str(index)) for index in range(len(names))]
    named = all(isinstance(label, str) and label.strip() for label in labels)
    demand(named, 'has an id2label that is not {"0": name, "1": name, …}')
    same = len({unicodedata.normalize("NFC", label) for label in labels}) < len(labels)
    demand(not same, "gives two labels the same name")
    faults = [fault for label in labels if (fault := label_fault(label))]
    demand(not faults, f"has a label with {faults[0] if faults else ''}")
    size: Any = content.get("image_size")
    demand(type(size) is int and 1 <= size <= LARGEST_SIDE, f"has no image_size between 1 and {LARGEST_SIDE}")
    same = content.get("preprocessing") == PREPROCESSING
    demand(same, "asks for another preprocessing than this package does")
    evidence = content.get("evidence", {})
    demand(isinstance(evidence, dict), "has an evidence entry that is not an object")
    scale = evidence.get("scale", 1.0)
    positive = type(scale) in (int, float) and 0 < scale < float("inf")
    demand(scale is None or positive, "has an evidence scale that is not a positive number")
    grid: Any = evidence.get("grid")
    cells = isinstance(grid, list) and len(grid) == 2 and all(type(side) is int and 1 <= side <= size for side in grid)
    demand(not evidence or cells, "has an evidence grid that is not two numbers of cells")
    backbone = content.get("backbone")
    demand(isinstance(backbone or {}, dict), "has a backbone entry that is not an object")
    words = [content.get(name) or "" for name in ("model_type", "name", "license")]
    one_line = all(isinstance(word, str) and word.isprintable() for word in words)
    demand(one_line, "has a name that is not one line of text")
    for name, reason in FOREIGN.items():
        demand(name not in content, f"has the entry {name}, {reason}")
    ours = {key: value for key, value in without_foreign_keys(content).items() if key not in _DERIVED}
    whole = partial(
        Config,
        labels=tuple(labels),
        image_size=size,
        evidence=_evidence(evidence),
        backbone=read(Backbone, backbone, **dict.fromkeys(_BACKBONE, text)) if isinstance(backbone, dict) else None,
    )
    return read(whole, ours, model_type=text, name=text, license=text)


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


def without_foreign_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a published config.json without the keys that other libraries read."""
    return {key: value for key, value in content.items() if key not in KERAS_KEYS | TRANSFORMERS_KEYS}


def merge(content: Mapping[str, Any], keys: Mapping[str, Any], library: str) -> dict[str, Any]:
    """Add another library's keys to the content of a config.json.

    Raises:
        BundleError: a key is there already and means something else.
    """
    # Of model_type only the card makes anything, so a library's own word takes its place.
    clash = [key for key in keys if key != "model_type" and content.get(key, keys[key]) != keys[key]]
    if clash:
        raise BundleError(f"config.json has a {clash[0]} that {library} would misread; rename it where it is made.")
    return {**content, **keys}


def _evidence(content: Mapping[str, Any]) -> Evidence | None:
    if not content:
        return None
    rest = {key: value for key, value in content.items() if key not in ("grid", "scale")}
    grid = (content["grid"][0], content["grid"][1])
    return read(partial(Evidence, grid, content.get("scale")), rest, scale_definition=text)


def _told(part: object, *names: str) -> dict[str, Any]:
    """Return those of an object's values that are not None."""
    return {name: value for name in names if (value := getattr(part, name)) is not None}


def _with(content: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, **{key: value for key, value in more.items() if key not in content}}
