"""What two runtimes may differ by, and agreement.json, which says how far they do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hub.bundle import AGREEMENT, read_json
from hub.errors import BundleError
from hub.scores import softmax

TOLERANCE = 1e-4  # in probabilities; in evidence, as a share of the largest cell (float32 rounds relative to size)
SAME_FILE = ("probability", "other_label", "unread", "largest_photo", "turned_photo")  # of a runtime in agreement.json


def read_agreement(folder: Path) -> dict | None:
    """Return what agreement.json says of a bundle; None where it was never verified.

    Raises:
        BundleError: it is not what `hub.publishing.verify.verify` of this version writes.
    """
    if not (folder / AGREEMENT).is_file():
        return None
    found = read_json(folder, AGREEMENT)
    if not _is_agreement(found):
        raise BundleError(
            f"{folder / AGREEMENT} is not what this version writes; run "
            f"`python -m hub verify {folder} --photos FOLDER`."
        )
    return found


def _is_agreement(found: dict) -> bool:
    def numbers(part: object, *names: str) -> bool:
        values = [part.get(name) if isinstance(part, dict) else None for name in names]
        return all(type(value) in (int, float) and math.isfinite(value) for value in values)

    def texts(part: object) -> bool:
        return isinstance(part, dict) and all(isinstance(value, str) for value in part.values())

    def is_row(row: object) -> bool:
        if not isinstance(row, dict) or not isinstance(row.get("title"), str) or not texts(row.get("versions")):
            return False
        tensor, file = row.get("same_tensor"), row.get("same_file")
        return is_difference(tensor) and numbers(file, *SAME_FILE)

    def is_difference(part: object) -> bool:
        evidence = numbers(part, "evidence") or (isinstance(part, dict) and part.get("evidence") is None)
        return numbers(part, "probability", "logits") and evidence

    def is_remade(part: object) -> bool:
        return (
            isinstance(part, dict)
            and all(texts(part.get(name)) for name in ("verified", "made_by", "versions"))
            and isinstance(part.get("processor"), str)
            and isinstance(part.get("pictures"), dict)
            and numbers(part["pictures"], *part["pictures"])
            and is_difference(part.get("same_tensor"))
        )

    largest, rows = found.get("largest_photo"), found.get("runtimes")
    return (
        numbers(found, "tolerance", "photos", "unreadable")
        and (numbers(found, "largest_evidence") or found.get("largest_evidence") is None)
        and isinstance(found.get("title"), str)
        and numbers(largest, "width", "height")
        and isinstance(largest.get("enlarged"), bool)
        and isinstance(rows, dict)
        and all(is_row(row) for row in rows.values())
        and all(texts(found.get(name)) for name in ("files", "written_only", "left_out"))
        and isinstance(found.get("remade", {}), dict)
        and all(is_remade(part) for part in found.get("remade", {}).values())
    )


def difference(reference: tuple, other: tuple) -> dict[str, float | None]:
    """Return how far two answers (logits (N, K), evidence (N, h, w, K) or None) are apart at most; NaN stays NaN."""
    pairs = {"probability": tuple(softmax(logits) for logits, _ in (reference, other))}
    pairs["logits"] = (reference[0], other[0])
    pairs["evidence"] = (reference[1], other[1])
    return {name: None if b is None or a is None else float(np.abs(a - b).max()) for name, (a, b) in pairs.items()}


def too_far(found: dict[str, float | None], largest_evidence: float | None) -> str | None:
    """Say what in a `difference` is above the tolerance; None if nothing is."""
    limits = {"probability": TOLERANCE, "evidence": TOLERANCE * max(1.0, largest_evidence or 0.0)}
    for name, limit in limits.items():
        if found[name] is not None and not found[name] <= limit:
            return f"{name} differs from Keras by {found[name]:.2g}, more than {limit:.2g}"
    return None


def failures(agreement: dict) -> list[str]:
    """Say in a sentence each which runtimes differ from Keras by more than the tolerance."""
    rows = agreement["runtimes"].values()
    wrong = [(row["title"], too_far(row["same_tensor"], agreement["largest_evidence"])) for row in rows]
    return [f"{title}: {problem}." for title, problem in wrong if problem]
