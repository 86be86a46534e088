"""The process that runs one runtime alone: python -c … NAME FOLDER TENSORS FILES OUT (see Format.answer)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from hub.config import read_config
from hub.formats import FORMATS
from hub.formats.base import Runner, batched, versions


def main() -> None:
    """Answer for the tensors and the files, and leave logits, evidence, probabilities and versions in OUT."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # the folder holds all that is compared, so nothing is looked up
    name, folder, tensors, files, out = sys.argv[1:]
    chosen = FORMATS[name]
    runner = chosen.start(Path(folder), read_config(Path(folder)))
    logits, evidence = batched(runner, np.load(tensors, mmap_mode="r"))
    paths = json.loads(Path(files).read_text(encoding="utf-8"))
    count = logits.shape[1]
    read = np.array([_read(runner, Path(path), count) for path in paths], np.float32).reshape(-1, count)
    arrays = {"logits": logits, "files": read, "versions": json.dumps(versions(chosen.modules))}
    np.savez(out, **arrays, **({} if evidence is None else {"evidence": evidence}))


def _read(runner: Runner, path: Path, count: int) -> np.ndarray:
    """Return a file's probabilities (K,), NaN where the library cannot read it."""
    try:
        return runner.read(path)
    except Exception:  # whatever the library raises of what is no picture to it
        return np.full(count, np.nan, np.float32)
