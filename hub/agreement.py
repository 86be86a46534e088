"""What two runtimes may differ by, and agreement.json, which says how far they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hub.bundle import AGREEMENT, read_json
from hub.errors import BundleError, printable
from hub.parts import Part, read, to_json
from hub.scores import softmax

TOLERANCE = 1e-4  # in probabilities; in evidence, as a share of the largest cell (float32 rounds relative to size)

Outputs = tuple[np.ndarray, np.ndarray | None]  # logits (N, K), and evidence (N, h, w, K) of a model that has it


# ---- what agreement.json says; the order of the fields is that of the file, `more` are entries not known here


@dataclass(frozen=True)
class SameTensor:
    """How far a runtime's answers are from Keras's at most, for the same tensors."""

    probability: float
    logits: float
    evidence: float | None = None  # None where the format carries none
    more: Mapping[str, Any] = field(default_factory=dict)

    WRITES_NULL: ClassVar[bool] = True


@dataclass(frozen=True)
class SameFile:
    """How far the probabilities are from Keras's at most where each library reads the files itself."""

    probability: float
    other_label: int  # photos with another answer
    unread: int  # photos that the library cannot read
    largest_photo: float
    turned_photo: float
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What was found of one runtime."""

    title: str
    versions: Mapping[str, str]  # by package
    same_tensor: SameTensor
    same_file: SameFile
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LargestPhoto:
    """The photo of many megapixels."""

    width: int
    height: int
    enlarged: bool  # made of a smaller one
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Remade:
    """A format whose files a push made anew, as others than those verified: `hub.publishing.remade`."""

    made_by: Mapping[str, str]  # the converter's packages and their versions
    processor: str
    pictures: Mapping[str, int]  # how many of each kind it was compared on
    versions: Mapping[str, str]  # of the runtime
    same_tensor: SameTensor
    verified: Mapping[str, str] = field(default_factory=dict)  # by file, the SHA-256 that the figures belong to
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """The content of agreement.json."""

    tolerance: float
    photos: int
    title: str  # of the photos
    unreadable: int
    largest_photo: LargestPhoto
    largest_evidence: float | None  # in logits; None of a model without
    runtimes: Mapping[str, Row]  # by the format's name
    files: Mapping[str, str]  # SHA-256 by path
    written_only: Mapping[str, str]  # formats that were written and not run, with their titles
    left_out: Mapping[str, str]  # formats that were not written, with the reason
    remade: Mapping[str, Remade] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    WRITES_NULL: ClassVar[bool] = True

    @property
    def formats(self) -> set[str]:
        """The names of the formats that may be published."""
        return {*self.runtimes, *self.written_only}

    def to_json(self) -> dict[str, Any]:
        """Return the content of agreement.json."""
        content: dict[str, Any] = to_json(self)
        if not self.remade:
            del content["remade"]
        return content


def read_agreement(folder: Path) -> Agreement | None:
    """Return what agreement.json says of a bundle; None where it was never verified.

    Raises:
        BundleError: it is not what `hub.publishing.verify.verify` of this version writes.
    """
    if not (folder / AGREEMENT).is_file():
        return None
    return agreement_of(read_json(folder, AGREEMENT), folder)


def agreement_of(content: Mapping[str, Any], folder: Path) -> Agreement:
    """Return what the content of an agreement.json says; `folder` is the bundle's, for the refusal.

    Raises:
        BundleError: it is not what this version writes.
    """
    if not _is_agreement(content):
        raise BundleError(
            f"{folder / AGREEMENT} is not what this version writes; run "
            f"`python -m hub verify {folder} --photos FOLDER`."
        )
    readers: dict[str, Callable[[Any], Any]] = {
        "largest_photo": partial(_made, LargestPhoto),
        "runtimes": lambda rows: {name: _row(row) for name, row in rows.items()},
        "remade": lambda found: {name: _remade(part) for name, part in (found or {}).items()},
    }
    return _made(Agreement, content, **readers)


def _row(row: Mapping[str, Any]) -> Row:
    return _made(Row, row, same_tensor=partial(_made, SameTensor), same_file=partial(_made, SameFile))


def _remade(part: Mapping[str, Any]) -> Remade:
    return _made(Remade, part, same_tensor=partial(_made, SameTensor))


def _made(kind: type[Part], content: Mapping[str, Any], **readers: Callable[[Any], Any]) -> Part:
    """Return a dataclass of an object that was checked: its entries are taken as they are but for `readers`."""
    names = [one.name for one in fields(kind) if one.name != "more"]  # type: ignore[arg-type]
    return read(kind, content, **{**dict.fromkeys(names, _as_it_is), **readers})


def _as_it_is(value: Any) -> Any:
    return value


def _is_agreement(found: Mapping[str, Any]) -> bool:
    def numbers(part: object, *names: str) -> bool:
        values: list[Any] = [part.get(name) if isinstance(part, dict) else None for name in names]
        return all(type(value) in (int, float) and math.isfinite(value) for value in values)

    def is_line(value: object) -> bool:
        return isinstance(value, str) and printable(value) == value  # a card's line, which begins no other

    def texts(part: object) -> bool:
        return isinstance(part, dict) and all(map(is_line, part.values())) and all(map(is_line, part))

    def is_row(row: object) -> bool:
        if not isinstance(row, dict) or not is_line(row.get("title")) or not texts(row.get("versions")):
            return False
        tensor, file = row.get("same_tensor"), row.get("same_file")
        same_file = [one.name for one in fields(SameFile) if one.name != "more"]
        return is_difference(tensor) and numbers(file, *same_file)

    def is_difference(part: object) -> bool:
        evidence = numbers(part, "evidence") or (isinstance(part, dict) and part.get("evidence") is None)
        return numbers(part, "probability", "logits") and evidence

    def is_remade(part: object) -> bool:
        return (
            isinstance(part, dict)
            and all(texts(part.get(name)) for name in ("verified", "made_by", "versions"))
            and is_line(part.get("processor"))
            and isinstance(part.get("pictures"), dict)
            and numbers(part["pictures"], *part["pictures"])
            and is_difference(part.get("same_tensor"))
        )

    largest, rows = found.get("largest_photo"), found.get("runtimes")
    return (
        numbers(found, "tolerance", "photos", "unreadable")
        and (numbers(found, "largest_evidence") or found.get("largest_evidence") is None)
        and is_line(found.get("title"))
        and numbers(largest, "width", "height")
        and isinstance(largest, dict)
        and isinstance(largest.get("enlarged"), bool)
        and isinstance(rows, dict)
        and all(is_row(row) for row in rows.values())
        and all(texts(found.get(name)) for name in ("files", "written_only", "left_out"))
        and isinstance(found.get("remade", {}), dict)
        and all(is_remade(part) for part in found.get("remade", {}).values())
    )


# ---- how far is too far


def difference(reference: Outputs, other: Outputs) -> SameTensor:
    """Return how far two answers are apart at most; NaN stays NaN."""
    (logits, evidence), (other_logits, other_evidence) = reference, other
    return SameTensor(
        probability=_apart(softmax(logits), softmax(other_logits)),
        logits=_apart(logits, other_logits),
        evidence=None if evidence is None or other_evidence is None else _apart(evidence, other_evidence),
    )


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def too_far(found: SameTensor, largest_evidence: float | None) -> str | None:
    """Say what in a `difference` is above the tolerance; None if nothing is."""
    limits = {"probability": TOLERANCE, "evidence": TOLERANCE * max(1.0, largest_evidence or 0.0)}
    for name, limit in limits.items():
        apart = getattr(found, name)
        if apart is not None and not apart <= limit:
            return f"{name} differs from Keras by {apart:.2g}, more than {limit:.2g}"
    return None


def failures(agreement: Agreement) -> list[str]:
    """Say in a sentence each which runtimes differ from Keras by more than the tolerance."""
    rows = agreement.runtimes.values()
    wrong = [(row.title, too_far(row.same_tensor, agreement.largest_evidence)) for row in rows]
    return [f"{title}: {problem}." for title, problem in wrong if problem]
