"""Files that a push has made of model.keras itself, and that are others than those that were verified.

A converter may write other bytes on another processor or in another version, though the file computes the same. Such a
file is run against Keras on the spot, on pictures that are drawn, so that whoever has no photos can publish too.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hub.agreement import TOLERANCE, Remade, difference
from hub.config import read_config
from hub.drawn import drawn, kinds
from hub.errors import BundleError
from hub.formats import FORMATS, Answers, Format
from hub.formats.base import versions

REFERENCE = "keras"
PICTURES = 96


def prove(staged: Path, formats: Iterable[Format]) -> dict[str, Remade]:
    """Compare formats with Keras on drawn pictures, each in a process of its own.

    Args:
        staged: the folder that is published; its model.keras is the one that was verified.
        formats: whose files were made in this folder.

    Returns:
        By the format's name what agreement.json keeps of it, but for the hashes that were verified.

    Raises:
        BundleError: a runtime is not installed, fails, or differs from Keras by more than the tolerance.
    """
    formats = list(formats)
    for one in formats:
        if missing := one.missing(None):
            raise BundleError(
                f"{one.title} is another file here than the one that was verified, and it is not installed here (no "
                f"{', '.join(missing)}), so the two cannot be compared: install {one.install}, or push "
                f"--without {one.name}."
            )
    with tempfile.TemporaryDirectory() as aside:
        tensors = Path(aside, "tensors.npy")
        np.save(tensors, drawn(PICTURES, read_config(staged).image_size))
        with ThreadPoolExecutor(max_workers=2) as two:
            asked = two.map(lambda one: one.answer(staged, tensors, []), [FORMATS[REFERENCE], *formats])
            reference, *answers = asked
    return {one.name: _record(one, reference, answer) for one, answer in zip(formats, answers, strict=True)}


def _record(one: Format, reference: Answers, answer: Answers) -> Remade:
    found = difference((reference.logits, reference.evidence), (answer.logits, answer.evidence))
    largest = {"probability": np.ones(1), "logits": reference.logits, "evidence": reference.evidence}
    for name, values in largest.items():
        if (apart := getattr(found, name)) is None or values is None:
            continue
        limit = TOLERANCE * max(1.0, float(np.abs(values).max()))
        if not apart <= limit:  # NaN too
            raise BundleError(
                f"{one.title} is another file here than the one that was verified, and its {name} differs from "
                f"Keras by {apart:.2g}, more than {limit:.2g}, so nothing is published; push it --without "
                f"{one.name}."
            )
    return Remade(versions(one.makers), processor(), kinds(PICTURES), answer.versions, found)


def processor() -> str:
    """Return the kind of this machine's processor, with its name where the system tells it."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # another system
        pass
    machine = platform.machine()
    return f"{machine}, {name}" if name and name != machine else machine
