"""The formats of a published bundle, one file each: how it is written, run, and loaded without this package.

To add one: subclass `Format` in a file here and name it below.
"""

from hub.errors import lookup
from hub.formats.base import Answers, Format, Runner, Source, batched
from hub.formats.coreml import CoreML
from hub.formats.h5 import H5
from hub.formats.keras import KerasFile, KerasFolder
from hub.formats.litert import LiteRT
from hub.formats.onnx import Onnx
from hub.formats.openvino import OpenVINO
from hub.formats.transformers import Transformers
from hub.formats.transformers_js import TransformersJs

# In the order of the card; the first is what all others are compared with.
FORMATS: dict[str, Format] = {
    chosen.name: chosen
    for chosen in (
        KerasFile(), KerasFolder(), Transformers(), Onnx(), LiteRT(), TransformersJs(), OpenVINO(), CoreML(), H5(),
    )
}  # fmt: skip


def find_format(name: str) -> Format:
    """Return the format of that name.

    Raises:
        UsageError: there is none; the sentence names the nearest.
    """
    return lookup(name, FORMATS, "runtime")


__all__ = ["FORMATS", "Answers", "Format", "Runner", "Source", "batched", "find_format"]
