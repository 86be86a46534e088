"""Transformers (PyTorch), for the one architecture that it shares with `keras.applications`: MobileNetV2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hub import bundle, safety
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.formats.base import Format, Runner, Source, converting, normalised

if TYPE_CHECKING:
    import keras


PREPROCESSOR, WEIGHTS = "preprocessor_config.json", "model.safetensors"

# The 17 blocks of MobileNetV2, table 2 of https://arxiv.org/abs/1801.04381
WIDTHS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
# The usual ones first: as widths are rounded to multiples of 8, other multipliers give the same network.
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35, 1.4, 1.3, *(hundredth / 100 for hundredth in range(5, 401)))


class TransformersRunner(Runner):
    """A pipeline, on the processor."""

    def __init__(self, folder: Path, config: Config):
        import torch
        from transformers import pipeline

        self.image_size, self._labels, self._torch = config.image_size, list(config.labels), torch
        try:
            options = {"trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}  # no code, no pickle
            self._pipeline = pipeline("image-classification", model=str(folder), device="cpu", **options)
        except (OSError, ValueError, RuntimeError) as error:
            message = f"{folder} cannot be opened by Transformers ({first_line(error)}); export it again."
            raise BundleError(message) from error

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Runner`; Transformers keeps no evidence."""
        with self._torch.inference_mode():
            return self._pipeline.model(self._torch.from_numpy(normalised(photos))).logits.numpy(), None

    def read(self, path: Path) -> np.ndarray:
        """Return the probabilities (K,) of a file that the pipeline reads."""
        answers = self._pipeline(str(path), top_k=len(self._labels))
        scores = {answer["label"]: answer["score"] for answer in answers}
        return np.array([scores[label] for label in self._labels], np.float32)


class Transformers(Format):
    """model.safetensors and preprocessor_config.json, under keys in config.json: pixel_values -> logits."""

    name, title = "transformers", "Transformers"
    loads = "`model.safetensors` with the library's own class for this network: probabilities, no evidence."
    reader = "`pipeline`: its own image processor"
    tag = "transformers"
    files = (PREPROCESSOR, WEIGHTS)
    converted, makers = (WEIGHTS,), ("safetensors", "keras")
    modules, install = ("transformers", "torch"), "transformers torch"

    def lacks(self, folder: Path) -> str | None:
        """See `Format`."""
        found = find_mobilenet(safety.keras_config(folder / bundle.KERAS))
        return None if found else "Transformers has no model of this architecture"

    def _network(self, folder: Path) -> MobileNet:
        found = find_mobilenet(safety.keras_config(folder / bundle.KERAS))
        if found is None:  # whoever asks has looked at `lacks`
            raise BundleError(f"{self.title} cannot be written: {self.lacks(folder)}; leave {self.name} out.")
        return found

    def config(self, folder: Path) -> dict:
        """See `Format`."""
        found = self._network(folder)
        return {
            "model_type": "mobilenet_v2",
            "architectures": ["MobileNetV2ForImageClassification"],
            "num_channels": 3,
            "depth_multiplier": found.multiplier,
            "depth_divisible_by": 8,
            "min_depth": 8,
            "expand_ratio": 6,
            "output_stride": 32,
            "first_layer_is_expansion": True,
            "finegrained_output": True,  # a narrow network still ends in 1280 channels
            "hidden_act": "relu6",
            "tf_padding": True,
            "layer_norm_eps": 0.001,  # of batch normalisation, despite its name
            "classifier_dropout_prob": 0.0,
        }

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        found = self._network(folder)
        with converting(self):
            from safetensors.numpy import save

            # Transformers opens no file that does not say whose layout its arrays have.
            content = save(_state(source.keras, found.head), metadata={"format": "pt"})
        (folder / WEIGHTS).write_bytes(content)
        size = source.image_size
        preprocessor = {
            "image_processor_type": "MobileNetV2ImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 2,  # bilinear
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        bundle.write_json(folder, PREPROCESSOR, preprocessor)

    def open(self, folder: Path, config: Config) -> TransformersRunner:
        """See `Format`."""
        return TransformersRunner(folder, config)

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        count = len(config.labels)
        every = f", top_k={count}" if count > 5 else ""  # the pipeline's own limit
        return f"""from transformers import pipeline

classify = pipeline("image-classification", model="{repo_id}")
print({{answer["label"]: answer["score"] for answer in classify("photo.jpg"{every})}})
"""


# ---------------------------------------------------------------- recognising the architecture


@dataclass(frozen=True)
class MobileNet:
    """What distinguishes one MobileNetV2 classifier from another."""

    multiplier: float  # of the widths: `alpha` of Keras, `depth_multiplier` of Transformers
    head: str  # the layer, 1×1 convolution or dense, that makes logits of features


def find_mobilenet(config: dict) -> MobileNet | None:
    """Recognise a classifier on `keras.applications.MobileNetV2` layer by layer, by names, settings and connections.

    Args:
        config: a Keras model's configuration.

    Returns:
        None if it is anything else, or one layer is set differently: then Transformers would compute another function.
    """
    try:
        return _mobilenet(config["config"])
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        RecursionError,
    ):  # not as Keras writes it
        return None


def _mobilenet(config: dict) -> MobileNet | None:
    layers = {layer["config"]["name"]: layer for layer in config["layers"]}
    sources = {name: _sources(layer, layers) for name, layer in layers.items()}
    widths = [layers[name]["config"]["filters"] for name in _width_layers()]
    multiplier = next((factor for factor in MULTIPLIERS if _widths(factor) == widths), None)
    (image,) = (layer for layer in layers.values() if layer["class_name"] == "InputLayer")
    (scaling,) = sources["Conv1"]
    if multiplier is None or not _scales_to_one(layers[scaling], layers, sources[scaling]):
        return None
    for name, kind, inputs, settings in _backbone(image["config"]["batch_shape"][1], widths):
        if not _is(layers.get(name), kind, settings) or sources[name] != (inputs or [scaling]):
            return None
    head = _head(config["output_layers"]["logits"][0], layers, sources)
    return None if head is None else MobileNet(multiplier, head)


def _sources(layer: dict, layers: dict) -> list[str]:
    """Name the layers that one takes its input from, looking through dropout, which does nothing to an answer."""
    found: list[str] = []

    def search(value: object) -> None:
        if isinstance(value, dict) and "keras_history" in value:
            found.append(value["keras_history"][0])
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                search(part)

    search(layer["inbound_nodes"])
    dropped = [layers[name]["class_name"] in ("Dropout", "SpatialDropout2D") for name in found]
    nested = [_sources(layers[name], layers) if skip else [name] for name, skip in zip(found, dropped, strict=True)]
    return [name for names in nested for name in names]


def _head(logits: str, layers: dict, sources: dict) -> str | None:
    """Return the layer with the head's weights: a convolution, then the mean, or the mean, then a dense layer."""
    before = (sources[logits] or [None])[0]
    linear, pooling = {"activation": "linear"}, {"data_format": "channels_last"}
    pointwise = {**linear, "kernel_size": [1, 1], "strides": [1, 1], "groups": 1}
    if before is None or sources[before] != ["out_relu"] or len(sources[logits]) != 1:
        return None
    if _is(layers[logits], "GlobalAveragePooling2D", pooling) and _is(layers[before], "Conv2D", pointwise):
        return before
    if _is(layers[logits], "Dense", linear) and _is(layers[before], "GlobalAveragePooling2D", pooling):
        return logits
    return None


def _scales_to_one(layer: dict, layers: dict, sources: list[str]) -> bool:
    """Whether a layer brings the model's input from 0-255 to [-1, 1], as preprocessor_config.json does."""
    if layer["class_name"] != "Rescaling" or [layers[name]["class_name"] for name in sources] != ["InputLayer"]:
        return False
    scale, offset = layer["config"]["scale"], layer["config"]["offset"]
    return offset == -1 and isinstance(scale, float) and math.isclose(scale, 1 / 127.5, rel_tol=1e-6)


def _is(layer: dict | None, kind: str, settings: dict) -> bool:
    if layer is None or layer["class_name"] != kind or layer.get("module") != "keras.layers":
        return False
    return all(layer["config"].get(key) == value for key, value in settings.items())


def _width_layers() -> list[str]:
    return ["Conv1", "expanded_conv_project", *(f"block_{block}_project" for block in range(1, 17)), "Conv_1"]


def _widths(multiplier: float) -> list[int]:
    """Return the channels after each of `_width_layers`, by Transformers' own rounding."""

    def rounded(width: int) -> int:
        exact = round(width * multiplier)
        nearest = max(8, int(exact + 4) // 8 * 8)
        return nearest + 8 if nearest < 0.9 * exact else nearest

    return [*(rounded(width) for width in (32, *WIDTHS)), rounded(1280) if multiplier >= 1 else 1280]


def _backbone(size: int, widths: list[int]) -> Iterator[tuple[str, str, list[str], dict]]:
    """Yield name, class, inputs (none: the scaled image) and settings of each layer, as Transformers computes it."""
    names: list[str] = []

    def layer(name: str, kind: str, *, also: str | None = None, **settings: Any) -> tuple[str, str, list[str], dict]:
        inputs = [*([also] if also else []), *names[-1:]]
        names.append(name)
        return name, kind, inputs, settings

    def unit(name: str, norm: str, relu: str | None, kernel: int, stride: int = 1, **settings: Any) -> Iterator[tuple]:
        kind = "Conv2D" if "filters" in settings else "DepthwiseConv2D"
        settings |= {"groups": 1} if kind == "Conv2D" else {"depth_multiplier": 1}
        settings |= {"kernel_size": [kernel, kernel], "strides": [stride, stride], "dilation_rate": [1, 1]}
        yield layer(name, kind, use_bias=False, activation="linear", data_format="channels_last", **settings)
        yield layer(norm, "BatchNormalization", axis=-1, epsilon=0.001, center=True, scale=True)
        if relu:
            yield layer(relu, "ReLU", max_value=6.0, negative_slope=0.0, threshold=0.0)

    stem, *blocks, last = widths
    yield from unit("Conv1", "bn_Conv1", "Conv1_relu", 3, 2, filters=stem, padding="same")
    side, before = math.ceil(size / 2), stem
    for block, (width, stride) in enumerate(zip(blocks, STRIDES, strict=True)):
        prefix, start = (f"block_{block}_", names[-1]) if block else ("expanded_conv_", None)
        if block:
            yield from unit(f"{prefix}expand", f"{prefix}expand_BN", f"{prefix}expand_relu", 1, filters=6 * before)
        if stride == 2:
            yield layer(f"{prefix}pad", "ZeroPadding2D", padding=[[side % 2, 1], [side % 2, 1]])
            side = math.ceil(side / 2)
        depthwise, padding = f"{prefix}depthwise", "same" if stride == 1 else "valid"
        yield from unit(depthwise, f"{depthwise}_BN", f"{depthwise}_relu", 3, stride, padding=padding)
        yield from unit(f"{prefix}project", f"{prefix}project_BN", None, 1, filters=width)
        if start and stride == 1 and width == before:
            yield layer(f"{prefix}add", "Add", also=start)
        before = width
    yield from unit("Conv_1", "Conv_1_bn", "out_relu", 1, filters=last)


# ---------------------------------------------------------------- weights


def _state(model: keras.Model, head: str) -> dict[str, np.ndarray]:
    """Return a Keras model's weights under PyTorch's names and in its order of axes."""
    state = {}
    for convolution, norm, target in _renamed():
        (kernel,) = model.get_layer(convolution).get_weights()
        axes = (2, 3, 0, 1) if convolution.endswith("depthwise") else (3, 2, 0, 1)
        state[f"mobilenet_v2.{target}.convolution.weight"] = kernel.transpose(axes)
        values = model.get_layer(norm).get_weights()
        for name, value in zip(("weight", "bias", "running_mean", "running_var"), values, strict=True):
            state[f"mobilenet_v2.{target}.normalization.{name}"] = value
        state[f"mobilenet_v2.{target}.normalization.num_batches_tracked"] = np.array(0, np.int64)
    kernel, *bias = model.get_layer(head).get_weights()
    state["classifier.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
    state["classifier.bias"] = bias[0] if bias else np.zeros(kernel.shape[-1], np.float32)
    return {name: np.asarray(value, order="C") for name, value in state.items()}


def _renamed() -> Iterator[tuple[str, str, str]]:
    """Yield Keras's convolution and normalisation, and the layer of Transformers that is both."""
    yield "Conv1", "bn_Conv1", "conv_stem.first_conv"
    parts = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    for part in ("depthwise", "project"):
        yield f"expanded_conv_{part}", f"expanded_conv_{part}_BN", f"conv_stem.{parts[part]}"
    for block in range(1, 17):
        for part, target in parts.items():
            yield f"block_{block}_{part}", f"block_{block}_{part}_BN", f"layer.{block - 1}.{target}"
    yield "Conv_1", "Conv_1_bn", "conv_1x1"
