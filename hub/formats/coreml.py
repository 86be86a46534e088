"""Core ML: for iPhones, iPads and Macs. It is converted on any system, but runs on Apple's alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from hub import bundle
from hub.config import Config
from hub.errors import BundleError
from hub.formats.base import Format, Source, converting
from hub.formats.keras import weights_of

if TYPE_CHECKING:
    import keras
    from coremltools.proto import Model_pb2


PACKAGE = "coreml/model.mlpackage"
MANIFEST, DATA = f"{PACKAGE}/Manifest.json", f"{PACKAGE}/Data/com.apple.CoreML"
SPECIFICATION, WEIGHTS = f"{DATA}/model.mlmodel", f"{DATA}/weights/weight.bin"
# coremltools draws identifiers at random; fixed ones make the same package of the same model.
IDS = {"model.mlmodel": "e3f1c0de-0000-4000-8000-000000000001", "weights": "e3f1c0de-0000-4000-8000-000000000002"}


class CoreML(Format):
    """coreml/model.mlpackage: an RGB image of S × S pixels -> logits, evidence; labels in its metadata."""

    name, title = "coreml", "Core ML"
    not_run = "its structure was checked, but it was not run on a device"
    tag = "coreml"
    files = (MANIFEST, SPECIFICATION, WEIGHTS)
    modules, install = ("coremltools",), "coremltools"
    standard, runs = False, False

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        with converting(self):
            specification, weights = _convert(source.keras)
            # The date and the versions of the converter would make every file differ.
            specification.description.metadata.userDefined.clear()
            specification.description.metadata.userDefined["labels"] = json.dumps(source.labels)
            (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
            (folder / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))
            (folder / WEIGHTS).write_bytes(weights)
        (folder / MANIFEST).write_text(json.dumps(_manifest(), indent=4) + "\n", encoding="utf-8")

    def check(self, folder: Path, config: Config) -> None:
        """Compare the package's input, outputs, labels and the size of its weights with the config and model.keras."""
        from coremltools.proto import Model_pb2

        where = folder / PACKAGE
        model = Model_pb2.Model()
        try:
            model.ParseFromString(bundle.read_bytes(folder, SPECIFICATION))
            labels = json.loads(model.description.metadata.userDefined["labels"])
        except Exception as error:  # protobuf's own, or json's
            raise BundleError(f"{where} is not what this package writes ({error}); export it again.") from error
        (image,) = model.description.input
        shapes = {port.name: list(port.type.multiArrayType.shape) for port in model.description.output}
        size = config.image_size
        expected = {"logits": [1, len(labels)]}
        if config.evidence:
            expected["evidence"] = [1, *config.evidence.grid, len(labels)]
        sides = (image.name, image.type.imageType.width, image.type.imageType.height)
        if labels != list(config.labels) or shapes != expected or sides != ("image", size, size):
            raise BundleError(f"{where} takes {sides} and gives {shapes} for {labels}; export it again.")
        weights = weights_of(folder / bundle.KERAS)
        # Kernels alone: batch normalisation is folded into them.
        kernels = sum(4 * math.prod(shape) * count for (shape, _), count in weights.items() if len(shape) > 1)
        stored = (folder / WEIGHTS).stat().st_size
        if stored < kernels:
            raise BundleError(f"{where} holds {stored} bytes of weights instead of {kernels}; export it again.")


def _convert(model: keras.Model) -> tuple[Model_pb2.Model, bytes]:
    """Convert a Keras classifier to an ML program in full precision, for iOS 15 and macOS 12 and later, and weights."""
    import coremltools
    import tensorflow as tf

    _, height, width, channels = model.inputs[0].shape
    shape = (1, height, width, channels)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def graph(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return model(image, training=False)

    concrete = graph.get_concrete_function()
    converted = coremltools.convert(
        [concrete],
        source="tensorflow",
        convert_to="mlprogram",
        inputs=[coremltools.ImageType(name="image", shape=shape, color_layout=coremltools.colorlayout.RGB)],
        minimum_deployment_target=coremltools.target.iOS15,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    specification = converted.get_spec()
    for name, tensor in concrete.structured_outputs.items():
        coremltools.utils.rename_feature(specification, tensor.name.split(":")[0], name)
    return specification, Path(converted.weights_dir, "weight.bin").read_bytes()


def _manifest() -> dict:
    """Return what Manifest.json says of the two items in the package."""
    described = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}
    entries = {
        IDS[name]: {"author": "com.apple.CoreML", "description": text, "name": name, "path": f"com.apple.CoreML/{name}"}
        for name, text in described.items()
    }
    return {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": IDS["model.mlmodel"]}
