"""LiteRT (once TensorFlow Lite): for phones and small computers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub import bundle
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.formats.base import Format, Runner, Source, converting, pillow_snippet

if TYPE_CHECKING:
    import keras


FILE = "litert/model.tflite"


class LiteRTRunner(Runner):
    """A flatbuffer in LiteRT's interpreter, on the processor."""

    def __init__(self, content: bytes, config: Config, where: str):
        """Open a file's bytes; `where` begins the sentence that says what is wrong with it."""
        from ai_edge_litert.interpreter import Interpreter

        self.image_size = size = config.image_size
        try:
            self._interpreter = Interpreter(model_content=content)
            self._model = self._interpreter.get_signature_runner()
            inputs, outputs = self._model.get_input_details(), self._model.get_output_details()
        except Exception as error:  # it raises ValueError and RuntimeError, as it happens
            raise BundleError(f"{where} cannot be opened ({first_line(error)}); export it again.") from error
        shapes = {name: details["shape_signature"].tolist() for name, details in inputs.items()}
        if shapes != {"image": [-1, size, size, 3]} or "logits" not in outputs:
            message = f"{where} should turn image [-1, {size}, {size}, 3] into logits, but it turns {shapes} into "
            raise BundleError(f"{message}{', '.join(outputs)}; export it again.")

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Runner`."""
        answer = self._model(image=photos.astype(np.float32))
        return answer["logits"], answer.get("evidence")


class LiteRT(Format):
    """litert/model.tflite: image (batch, S, S, 3), float 0-255 -> logits, evidence."""

    name, title = "litert", "LiteRT"
    loads = "`litert/model.tflite`, also for phones and small computers: from `image`, NHWC in 0–255, to {outputs}."
    tag = "tflite"
    files = converted = (FILE,)
    makers = ("tensorflow", "keras")
    modules, install = ("ai_edge_litert",), "ai-edge-litert"

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        with converting(self):
            content = to_litert(source.keras)
        (folder / FILE).parent.mkdir(exist_ok=True)
        (folder / FILE).write_bytes(content)

    def open(self, folder: Path, config: Config) -> LiteRTRunner:
        """See `Format`."""
        return LiteRTRunner(bundle.read_bytes(folder, FILE), config, f"The LiteRT file of {folder}")

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        return pillow_snippet(
            config,
            imports="import numpy as np\nfrom ai_edge_litert.interpreter import Interpreter\n",
            load=f'model = Interpreter(hf_hub_download("{repo_id}", "{FILE}")).get_signature_runner()',
            pixels="np.asarray(photo, np.float32)[None]",
            logits='model(image=pixels)["logits"][0]',
        )


def to_litert(model: keras.Model) -> bytes:
    """Convert a Keras classifier to the flatbuffer of a bundle (needs TensorFlow).

    Args:
        model: as for `hub.formats.onnx.to_onnx`.

    Returns:
        The file's bytes: its one signature takes `image` and returns the model's outputs under their names.
    """
    import keras
    import tensorflow as tf

    if model.inputs[0].name != "image":  # the signature takes the name over
        image = keras.Input(model.inputs[0].shape[1:], name="image")
        model = keras.Model(image, model(image), name=model.name)
    # Not from_concrete_functions: of a Keras 3 model it loses the weights, and the file answers NaN.
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()
