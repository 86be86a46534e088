"""Keras to ONNX. Imported only where somebody converts: it needs TensorFlow and tf2onnx."""

from __future__ import annotations

import keras
import tensorflow as tf
import tf2onnx

from hub.errors import BundleError

OPSET = 17  # read by every ONNX Runtime since 1.12 (2022), the ones in browsers included


def outputs_of(model: keras.Model) -> list[str]:
    """Return the names of the model's outputs, or raise the BundleError that says how to name them."""
    output = getattr(model, "output", None)
    names = list(output) if isinstance(output, dict) else []
    if not set(names) <= {"logits", "evidence"} or "logits" not in names:
        raise BundleError(
            "The Keras model must return {'logits': …} or {'logits': …, 'evidence': …}; "
            "build it with keras.Model(inputs, that dictionary)."
        )
    return names


def to_onnx(model: keras.Model) -> bytes:
    """Convert a Keras classifier to the ONNX file of a bundle.

    Args:
        model: input (N, S, S, 3), float 0-255; output {"logits": (N, K), "evidence": (N, h, w, K)}, the
            second where the model has one.

    Returns:
        The file's bytes: input `pixel_values` (batch, 3, S, S) in [-1, 1], outputs under the same names.
    """
    names = outputs_of(model)
    _, height, width, channels = model.inputs[0].shape
    pixel_values = tf.TensorSpec((None, channels, height, width), tf.float32, name="pixel_values")

    @tf.function(input_signature=[pixel_values])
    def graph(pixel_values):
        # The model scales 0-255 to what its backbone wants, whatever that is; so [-1, 1] is undone here.
        pixels = (tf.transpose(pixel_values, (0, 2, 3, 1)) + 1.0) * 127.5
        outputs = model(pixels, training=False)
        return {name: tf.identity(outputs[name], name=name) for name in names}

    proto, _ = tf2onnx.convert.from_function(graph, input_signature=[pixel_values], opset=OPSET)
    for node in [*proto.graph.input, *proto.graph.output]:
        node.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto.SerializeToString()
