"""OpenVINO: for Intel's processors and graphics."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np

from hub import bundle
from hub.config import Config
from hub.errors import BundleError, first_line
from hub.formats.base import Format, Runner, Source, converting, normalised, pillow_snippet

GRAPH, WEIGHTS = "openvino/model.xml", "openvino/model.bin"


class OpenVINORunner(Runner):
    """A compiled graph, on the processor."""

    def __init__(self, folder: Path, config: Config):
        self.image_size = config.image_size
        core = _openvino().Core()
        try:
            graph = core.read_model(folder / GRAPH, folder / WEIGHTS)
            # Without the hint a processor that has bfloat16 computes in it: 0.03 logits off.
            self._model = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            self._outputs = {name: port for port in self._model.outputs for name in port.names}
            inputs = [port.names for port in graph.inputs]
        except Exception as error:  # OpenVINO raises RuntimeError and others
            message = f"The OpenVINO files of {folder} cannot be opened ({first_line(error)}); export them again."
            raise BundleError(message) from error
        if inputs != [{"pixel_values"}] or "logits" not in self._outputs:
            raise BundleError(f"The OpenVINO files of {folder} are not what this package writes; export them again.")

    def __call__(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Runner`."""
        answer = self._model({"pixel_values": normalised(photos)})
        evidence = self._outputs.get("evidence")
        return answer[self._outputs["logits"]], None if evidence is None else answer[evidence]


class OpenVINO(Format):
    """openvino/model.xml and .bin: as the ONNX file, in full precision."""

    name, title = "openvino", "OpenVINO"
    loads = "`openvino/model.xml` and its weights: the ONNX file's inputs and outputs, computed in float32."
    tag = "openvino"
    files = converted = (GRAPH, WEIGHTS)
    makers = ("openvino",)
    modules, install = ("openvino",), "openvino"
    standard = False

    def write(self, source: Source, folder: Path) -> None:
        """See `Format`."""
        onnx = io.BytesIO(bundle.read_bytes(folder, bundle.ONNX))  # as bytes it cannot name other files as its weights
        with converting(self):
            openvino = _openvino()
            graph = openvino.Core().read_model(onnx)
            for place, node in enumerate(graph.get_ordered_ops()):
                if node.friendly_name == node.name:  # numbered by how many nodes this process has made before
                    node.friendly_name = f"{node.get_type_name()}_{place}"
            (folder / GRAPH).parent.mkdir(exist_ok=True)
            openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)

    def open(self, folder: Path, config: Config) -> OpenVINORunner:
        """See `Format`."""
        return OpenVINORunner(folder, config)

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`."""
        load = (
            f'hf_hub_download("{repo_id}", "{WEIGHTS}")\n'
            f'graph = hf_hub_download("{repo_id}", "{GRAPH}")  # its weights lie beside it\n'
            'model = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})'
        )
        return pillow_snippet(
            config,
            imports="import numpy as np\nimport openvino\n",
            load=load,
            pixels="np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1",
            logits='model(pixels)["logits"][0]',
        )


def _openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which on import writes into the home folder and calls home."""
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    modules.setdefault("openvino_telemetry", None)  # its importers catch this and take a stub
    import openvino

    return openvino
