"""transformers.js: Transformers' pipelines in browsers and in Node, from the ONNX file."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hub import bundle
from hub.config import Config
from hub.formats.base import Answers, Format, output_of
from hub.formats.transformers import PREPROCESSOR, Transformers

WORKER = Path(__file__).with_suffix(".mjs")
PACKAGE = "@huggingface/transformers"


class TransformersJs(Format):
    """No files of its own: it reads onnx/model.onnx under Transformers' keys and preprocessor_config.json."""

    name, title = "transformers.js", "transformers.js"
    loads = "`onnx/model.onnx` in Node.js or in a browser."
    reader = "`pipeline` in Node.js: sharp, which resizes differently"
    tag = "transformers.js"
    install = PACKAGE
    standard = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The files beside config.json that running it needs."""
        return bundle.ONNX, PREPROCESSOR

    def lacks(self, folder: Path) -> str | None:
        """See `Format`: it goes by the architecture's name in config.json."""
        return Transformers().lacks(folder) and "transformers.js has no model of this architecture"

    def config(self, folder: Path) -> dict:
        """See `Format`."""
        return Transformers().config(folder)

    def snippet(self, config: Config, repo_id: str) -> str:
        """See `Format`; this one is JavaScript."""
        count = len(config.labels)
        every = f", {{ top_k: {count} }}" if count > 5 else ""  # the pipeline's own limit
        return f"""import {{ pipeline }} from "{PACKAGE}";

const classify = await pipeline("image-classification", "{repo_id}", {{ dtype: "fp32" }});
const answers = await classify("photo.jpg"{every});
console.log(JSON.stringify(Object.fromEntries(answers.map(({{ label, score }}) => [label, score]))));
"""

    def missing(self, where: str | None) -> list[str]:
        """Return what of Node and the package is not there.

        Args:
            where: a folder that has node_modules; None is the current one.
        """
        node = [] if shutil.which("node") else ["node"]
        return node + ([] if Path(where or ".", "node_modules", PACKAGE).is_dir() else [PACKAGE])

    def answer(self, folder: Path, tensors: Path, files: list[Path], where: str | None = None) -> Answers:
        """See `Format`; `where` is a folder that has node_modules, None the current one."""
        with tempfile.TemporaryDirectory() as place:
            out = Path(place)
            listed = out / "files.json"
            listed.write_text(json.dumps([str(path.resolve()) for path in files]), encoding="utf-8")
            paths = [Path(where or ".").resolve(), folder.resolve(), tensors.resolve(), listed, out]
            output_of(["node", str(WORKER), *map(str, paths)], self.title)
            said = json.loads((out / "answers.json").read_text(encoding="utf-8"))
            arrays = {
                name: np.fromfile(out / f"{name}.f32", "<f4").reshape(shape) for name, shape in said["shapes"].items()
            }
        return Answers(arrays["logits"], arrays.get("evidence"), np.array(said["files"], np.float32), said["versions"])
