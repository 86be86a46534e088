"""Folders and files that other tools make and that people name as a model here: what each is, and what helps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEACHABLE = ("keras_model.h5", "labels.txt")  # Teachable Machine's export for Keras
KERAS_ENDINGS = (".keras", ".h5", ".hdf5")
PYTORCH = "weights for PyTorch, which cannot be used here, where a bundle is made of a Keras model"
# By the ending of a file, what it is and what to do.
ENDINGS = {
    ".pt": PYTORCH, ".pth": PYTORCH, ".ckpt": PYTORCH, ".safetensors": PYTORCH, ".bin": PYTORCH,
    ".pkl": "a pickle, which can run code, so it is never loaded here",
    ".pickle": "a pickle, which can run code, so it is never loaded here",
    ".tflite": "a LiteRT file, which cannot be used here: it can be run but not made into a bundle; look for the "
    "Keras model that it was made of",
    ".pb": "a TensorFlow graph, which cannot be used here, since it has no Keras layers; save the model as a .keras "
    "file where it was made",
    ".onnx": "an ONNX file alone, which cannot be used here; a bundle is made of a Keras model",
    ".mlmodel": "a Core ML file, which cannot be used here; a bundle is made of a Keras model",
}  # fmt: skip


def sentence(path: Path) -> str | None:
    """Return one sentence on a folder or file of another tool that was named as a model; None where it is none.

    A command in the sentence takes this very file; where nothing does, the sentence says so.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() in KERAS_ENDINGS:
        return f"{path} is a Keras model, not a bundle yet; make one with {_import(path, labels=True)}."
    kind = ENDINGS.get(path.suffix.lower())
    return kind and f"{path} is {kind}."


def of_config(config: Mapping[str, Any], where: str) -> str | None:
    """Return one sentence on the config.json of a Transformers model; None where it is another's.

    Args:
        where: how the sentence begins, such as "The config.json of cats".
    """
    names = config.get("architectures")
    names = names if isinstance(names, list) else []
    # A published bundle has Transformers' keys beside its own.
    if "preprocessing" in config or not (names or "transformers_version" in config):
        return None
    architecture = f" ({str(names[0])[:80]})" if names and str(names[0]).isprintable() else ""
    return (
        f"{where} belongs to a Transformers model{architecture}, which cannot be used here, where a bundle is made of "
        'a Keras model; load it with transformers.pipeline("image-classification").'
    )


def _of_folder(folder: Path) -> str | None:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # it may be entered but not listed
        return None
    if all(name in names for name in TEACHABLE):
        return f"{folder} is a model of Teachable Machine, not a bundle yet; make one with {_import(folder)}."
    if "saved_model.pb" in names or "model.savedmodel" in names:
        return (
            f"{folder} is a SavedModel, as TensorFlow Hub has them too, which cannot be used here, since it has no "
            "Keras layers; save the model as a .keras file where it was made."
        )
    if "model.json" in names and any(name.endswith(".bin") for name in names):
        return (
            f"{folder} is a model for TensorFlow.js, which cannot be used here; in Teachable Machine export it for "
            "TensorFlow, as Keras, and elsewhere save the Keras model as a .keras file."
        )
    # A bundle that lacks a file is one still.
    models = [
        name for name in names if name.lower().endswith(KERAS_ENDINGS) and name not in ("model.keras", "model.h5")
    ]
    if len(models) == 1:
        path = folder / models[0]
        return f"{folder} holds the Keras model {path.name}, not a bundle; make one with {_import(path, labels=True)}."
    if "model.keras" in names:
        return None
    other = next((name for name in names if Path(name).suffix.lower() in ENDINGS), None)
    return other and f"{folder} holds {other}, {ENDINGS[Path(other).suffix.lower()]}."


def _import(path: Path, *, labels: bool = False) -> str:
    more = " --labels labels.txt --pixels 0..255" if labels else ""
    hint = " (one label per line; docs/publishing.md explains --pixels)" if labels else ""
    return f"`python -m hub import {shlex.quote(str(path))} NEW_FOLDER{more}`{hint}"


def teachable_labels(text: str) -> list[str]:
    """Return the labels of a labels.txt, one a line; the numbers that Teachable Machine puts before them go.

    >>> teachable_labels("0 Cat\\n1 Dog\\n")
    ['Cat', 'Dog']
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = all(line.split(" ", 1)[0] == str(index) and " " in line for index, line in enumerate(lines))
    return [line.split(" ", 1)[1].strip() for line in lines] if numbered else lines
