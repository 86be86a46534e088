"""The last feature maps inside an ONNX file, read without the package `onnx`, which the Space does not have.

An ONNX file is one protobuf message (https://onnx.ai/onnx/repo-docs/IR.html), and of two messages put one after the
other protobuf makes one: repeated fields are joined, inner messages merged
(https://protobuf.dev/programming-guides/encoding/#last-one-wins). So a few bytes behind the file make inner values
outputs of the graph, and ONNX Runtime tells their names and shapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hub.formats.base import normalised
from hub.formats.onnx import OnnxRunner

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Field numbers, from https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
GRAPH = 7  # of ModelProto
NODE, OUTPUT = 1, 12  # of GraphProto
INPUTS, OUTPUTS, OP_TYPE = 1, 2, 4  # of NodeProto
NAME = 1  # of ValueInfoProto
WEIGHING = ("Conv", "MatMul", "Gemm")  # operators that make evidence of features
CONVOLUTION = "Conv"  # and ConvTranspose
LONGEST = 10_000  # values on the way from the answer to the photo; a graph that goes in a circle has no end
HEAD = 32  # values looked at before the answer: a head is shorter, and each one more is memory


class InnerMap:
    """The feature maps that go into a classifier's head."""

    def __init__(self, session: InferenceSession, name: str, axis: int, channels: int):
        self.session, self.name, self.axis, self.channels = session, name, axis, channels

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """Return the feature maps (h, w, C) of one photo, uint8 (S, S, 3)."""
        (values,) = self.session.run([self.name], {"pixel_values": normalised(photo[None])})
        return np.moveaxis(values[0], self.axis - 1, -1)


def find_features(runner: OnnxRunner) -> InnerMap | None:
    """Find what the evidence is made of, or, in a classic head, the last maps of more than one cell.

    Returns:
        None where no convolution made such maps on the way to the answer, or where their shape does not tell channels
        from rows and columns: those are taken for the two sides that are equal.
    """
    import onnxruntime

    known = {node.name for node in runner.session.get_outputs()}
    start = "evidence" if "evidence" in known else "logits"
    try:
        way = list(itertools.islice(_way_back(runner.content, start), LONGEST))
    except (IndexError, ValueError):  # written as no exporter does; what protobuf skips is not always skipped here
        return None
    # The photo itself, rescaled or normalised, is no feature map: a convolution must come before.
    convolved = [place for place, (_, operator) in enumerate(way) if operator.startswith(CONVOLUTION)]
    way = way[: min(HEAD, 1 + max(convolved, default=-1))]
    if not way:
        return None
    declared = b"".join(_field(OUTPUT, _field(NAME, name.encode())) for name, _ in way if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # no second pool of threads for one pass a photo
    # It answers once a photo, so being opened soon counts for more than being fast.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = runner.content + _field(GRAPH, declared)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's errors have no common base class; the file itself it has opened before
        return None
    shapes = {node.name: node.shape for node in session.get_outputs()}
    made = start == "logits"  # of the evidence itself the operator that makes it is still to come
    for name, operator in way:
        if made and _is_map(shapes[name]):
            axis = _channel_axis(shapes[name])
            return InnerMap(session, name, axis, shapes[name][axis]) if axis else None
        made = made or operator in WEIGHING
    return None


def _is_map(shape: list[int | str]) -> bool:
    """Whether a shape is that of maps with more than one cell, channels first or last."""
    return len(shape) == 4 and sum(side != 1 for side in shape[1:]) > 1


def _channel_axis(shape: list[int | str]) -> int | None:
    """Return which axis of (N, C, h, w) or (N, h, w, C) has the channels; None where that cannot be told."""
    first, last = shape[2] == shape[3], shape[1] == shape[2]
    if first == last or not all(isinstance(side, int) for side in shape[1:]):
        return None
    return 1 if first else 3


def _way_back(content: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Yield (name, operator) of a value, of the first computed one that it is made of, and so on to the input."""
    made_by = {output: node for node in _nodes(content) for output in node[1]}
    while name in made_by:
        inputs, _, operator = made_by[name]
        yield name, operator
        name = next((value for value in inputs if value in made_by), "")


def _nodes(content: bytes) -> Iterator[tuple[list[str], list[str], str]]:
    """Yield (inputs, outputs, operator) of each node of a model's graph."""
    for graph in _submessages(memoryview(content), GRAPH):
        for node in _submessages(graph, NODE):
            parts = ([str(text, "utf-8") for text in _submessages(node, field)] for field in (INPUTS, OUTPUTS, OP_TYPE))
            inputs, outputs, operator = parts
            yield inputs, outputs, "".join(operator)


def _submessages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the content of each field of that number that has a length: messages and strings."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            _, position = _varint(message, position)
        elif kind == 2:
            length, position = _varint(message, position)
            if key >> 3 == wanted:
                yield message[position : position + length]
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("a group, which ONNX does not have")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, seven bits a byte, and the position behind it."""
    value = 0
    for place in range(10):  # 64 bits; a number without end would keep Python busy for hours
        byte = message[position + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, position + place + 1
    raise ValueError("a number of more than 64 bits")


def _field(number: int, content: bytes) -> bytes:
    """Return a field that has a length, as protobuf writes it."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
