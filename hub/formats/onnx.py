"""ONNX: what this package answers from, and what transformers.js and every other ONNX runtime loads."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub import bundle
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.formats.base import HUB, Format, Runner, normalised, output_of, pillow_snippet
from hub.formats.foreign import demand_logits
from hub.formats.keras import load

if TYPE_CHECKING:
    import keras
    from onnxruntime import InferenceSession

# ONNX Runtime's own packages report to Microsoft unless they are told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

OPSET = 17  # read by every ONNX Runtime since 1.12 (2022), the ones in browsers included


class OnnxRunner(Runner):
    """A graph in ONNX Runtime, on the processor."""

    def __init__(self, content: bytes, config: Config, where: str):
        """Open a file's bytes; `where` begins the sentence that says what is wrong with it."""
        import onnxruntime

        self.content, self.image_size = content, config.image_size
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised below as one sentence, not printed beside it
        # A thread that spins while it waits for the next run takes a core from decoding and from other requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From bytes, so that a graph cannot name other files of this machine as its weights.
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise BundleError(f"{where} cannot be opened ({first_line(error)}); export it again.") from error
        self._outputs = ["logits", "evidence"][: 1 + check_graph(self.session, config, where)]

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Runner`."""
        # One at a time: in a batch each takes as long or longer, and ONNX Runtime keeps the memory of the largest.
        singles = (photos[index : index + 1] for index in range(max(len(photos), 1)))
        runs = [self.session.run(self._outputs, {"pixel_values": normalised(photo)}) for photo in singles]
        logits, *evidence = (np.concatenate(parts) for parts in zip(*runs, strict=True))
        return logits, evidence[0] if evidence else None


class Onnx(Format):
    """onnx/model.onnx: pixel_values (batch, 3, S, S) in [-1, 1] -> logits, evidence."""

    name, title = "onnx", "ONNX Runtime"
    loads = "`onnx/model.onnx`: from `pixel_values`, NCHW in [-1, 1], to {outputs}."
    tag = "onnx"
    files = (bundle.ONNX,)
    modules, install = ("onnxruntime",), "onnxruntime"

    def open(self, folder: Path, config: Config) -> OnnxRunner:
        """See `Format`."""
        return OnnxRunner(bundle.read_bytes(folder, bundle.ONNX), config, f"The ONNX file of {folder}")

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        return pillow_snippet(
            config,
            imports="import numpy as np\nimport onnxruntime\n",
            load=f'session = onnxruntime.InferenceSession(hf_hub_download("{repo_id}", "{bundle.ONNX}"))',
            pixels="np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1",
            logits='session.run(["logits"], {"pixel_values": pixels})[0][0]',
        )


def check_graph(session: InferenceSession, config: Config, where: str) -> bool:
    """Check a model's inputs and outputs against its config; return whether it has evidence.

    Raises:
        BundleError: they have other names, types or shapes than the contract at the top.
    """
    labels, size = len(config.labels), config.image_size
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}

    def demand(nodes: dict, name: str, *shape: int | str) -> None:
        if name not in nodes or nodes[name].type != "tensor(float)" or not _fits(nodes[name].shape, shape):
            has = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes.values())
            want = f"{name} tensor(float) {list(shape)}"
            raise BundleError(f"{where} should have {want}, but it has {has}; export it again.")

    demand(inputs, "pixel_values", "batch", 3, size, size)
    if len(inputs) > 1:
        raise BundleError(f"{where} has other inputs than pixel_values ({', '.join(inputs)}); export it again.")
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


def outputs_of(model: keras.Model) -> list[str]:
    """Return the names of the model's outputs.

    Raises:
        BundleError: they have other names, or the logits are probabilities.
    """
    output = getattr(model, "output", None)
    names = list(output) if isinstance(output, dict) else []
    if not set(names) <= {"logits", "evidence"} or "logits" not in names:
        raise BundleError(
            "The Keras model must return {'logits': …} or {'logits': …, 'evidence': …}; "
            "build it with keras.Model(inputs, that dictionary)."
        )
    demand_logits(model)
    return names


def to_onnx(model: keras.Model) -> bytes:
    """Convert a Keras classifier to the ONNX file of a bundle (needs TensorFlow and tf2onnx).

    Args:
        model: input (N, S, S, 3), float 0-255; output {"logits": (N, K), "evidence": (N, h, w, K)}, the
            second where the model has one.

    Returns:
        The file's bytes: input `pixel_values` (batch, 3, S, S) in [-1, 1], outputs under the same names.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        return _converted_by_tensorflow(model)
    import onnx
    import tensorflow as tf
    import tf2onnx

    names = outputs_of(model)
    _, height, width, channels = model.inputs[0].shape
    pixel_values = tf.TensorSpec((None, channels, height, width), tf.float32, name="pixel_values")

    @tf.function(input_signature=[pixel_values])
    def graph(pixel_values: tf.Tensor) -> dict[str, tf.Tensor]:
        # The model scales 0-255 to what its backbone wants, whatever that is; so [-1, 1] is undone here.
        pixels = (tf.transpose(pixel_values, (0, 2, 3, 1)) + 1.0) * 127.5
        outputs = model(pixels, training=False)
        return {name: tf.identity(outputs[name], name=name) for name in names}

    proto, _ = tf2onnx.convert.from_function(graph, input_signature=[pixel_values], opset=OPSET)
    # Tensors that are no variables, such as what a Normalization layer has adapted, come out as inputs: they are fixed.
    held = {inner.name: outer for outer, inner in graph.get_concrete_function().graph.captures}
    for node in [node for node in proto.graph.input if node.name in held]:
        proto.graph.input.remove(node)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(held[node.name].numpy(), node.name))
    for node in [*proto.graph.input, *proto.graph.output]:
        node.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto.SerializeToString()


def _converted_by_tensorflow(model: keras.Model) -> bytes:
    """Convert a model that another backend runs: a Keras file is the same for all, so a process with TensorFlow can."""
    outputs_of(model)
    program = "import sys; sys.path.insert(0, sys.argv[1]); from hub.formats import onnx; onnx.convert(*sys.argv[2:])"
    with tempfile.TemporaryDirectory() as aside:
        source, target = Path(aside, bundle.KERAS), Path(aside, "model.onnx")
        model.save(source)
        command = [sys.executable, "-c", program, str(HUB.parent), str(source), str(target)]
        output_of(command, "The conversion to ONNX", KERAS_BACKEND="tensorflow")
        return target.read_bytes()


def convert(source: str, target: str) -> None:
    """Write the ONNX file of a model.keras."""
    Path(target).write_bytes(to_onnx(load(Path(source))))
