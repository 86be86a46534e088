"""metrics.json as a value: `metrics_of` reads one with suspicion, `Metrics.to_json` writes it.

A stranger's file may be odd in one entry, and the rest of it is shown all the same: what is not of its kind counts as
not measured. It stays in `more`, beside what this version does not know, and is written again as it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hub.bundle import METRICS, read_json
from hub.parts import count, read, text, to_json
from hub.scores import SCORES, Interval, finite, interval_of


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals were made."""

    resamples: int | None = None
    level: float | None = None  # the share of resamples that an interval holds
    seed: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether all three are known."""
        return None not in (self.resamples, self.level, self.seed)


@dataclass(frozen=True)
class SplitScores:
    """The scores of one set of pictures."""

    photos: int | None = None
    scores: Mapping[str, Interval] = field(default_factory=dict)  # by the names of `hub.scores.SCORES`
    confusion_matrix: list[list[int]] | None = None  # rows are the true labels
    bootstrap: Bootstrap | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the block of metrics.json."""
        content: dict[str, Any] = to_json(self)
        scores = content.pop("scores")
        return {name: content.pop(name) for name in ("photos",) if name in content} | scores | content

    def score(self, name: str) -> Interval:
        """Return a score; one without a value where it was not measured."""
        return self.scores.get(name, Interval())


@dataclass(frozen=True)
class SplitPhotos:
    """How many photos a split has, and which share of them each label."""

    photos: int | None = None
    share: Mapping[str, float] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """What is recorded of the pictures that a model was trained on."""

    name: str | None = None
    hub_id: str | None = None
    note: str | None = None
    license: str | None = None
    photos: int | None = None
    image_size: Any = None  # a pair, one side, or words, in pixels
    splits: Mapping[str, SplitPhotos] | None = None
    unreadable: int | None = None
    unlabelled: int | None = None
    duplicates: int | None = None
    duplicates_across_splits: int | None = None
    conflicts: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What is recorded of the training."""

    recipe: str | None = None
    command: str | None = None
    settings: Mapping[str, Any] | None = None
    seconds: float | None = None
    epochs: Any = None  # a number, or words
    temperature: float | None = None
    left_out: int | None = None
    started: str | None = None
    machine: Any = None  # words by name, or words
    versions: Any = None  # words by name, or words
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedAgreement:
    """How far ONNX and Keras differed at most when the bundle was saved."""

    photos: int | None = None
    probability: float | None = None
    evidence: float | None = None
    tolerance: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metrics:
    """The content of metrics.json."""

    dataset: Dataset | None = None
    training: Training | None = None
    validation: SplitScores | None = None
    test: SplitScores | None = None
    agreement: SavedAgreement | None = None
    elsewhere: Mapping[str, SplitScores] | None = None  # pictures from elsewhere, by their name
    more: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> SplitScores | None:
        """Return the scores of a split of the data set, or of pictures from elsewhere; None where there are none."""
        own = {"validation": self.validation, "test": self.test}.get(name)
        return own if own is not None else (self.elsewhere or {}).get(name)

    def fitting(self, labels: int) -> Metrics:
        """Return it without the confusion matrices that are of another number of labels."""

        def fit(scores: SplitScores | None) -> SplitScores | None:
            fits = scores is None or scores.confusion_matrix is None or len(scores.confusion_matrix) == labels
            return scores if fits or scores is None else replace(scores, confusion_matrix=None)

        elsewhere = {name: fitted for name, scores in (self.elsewhere or {}).items() if (fitted := fit(scores))}
        return replace(self, validation=fit(self.validation), test=fit(self.test), elsewhere=elsewhere)

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        content: dict[str, Any] = to_json(replace(self, validation=None, test=None, elsewhere=None))
        order = ("dataset", "training", "validation", "test", "agreement", "elsewhere")
        for name in ("validation", "test"):
            if (found := getattr(self, name)) is not None:
                content[name] = found.to_json()
        if self.elsewhere is not None:
            content["elsewhere"] = {name: found.to_json() for name, found in self.elsewhere.items()}
        return {name: content[name] for name in [*order, *content] if name in content}


def read_metrics(folder: Path) -> Metrics:
    """Read the metrics.json of a bundle.

    Raises:
        BundleError: it is missing, or no JSON object.
    """
    return metrics_of(read_json(folder, METRICS))


def metrics_of(content: Mapping[str, Any]) -> Metrics:
    """Return what the content of a metrics.json says."""
    parts = {"dataset": _dataset, "training": _training, "agreement": _saved_agreement, "elsewhere": _elsewhere}
    return read(Metrics, content, validation=split_scores, test=split_scores, **parts)


def split_scores(content: Any) -> SplitScores | None:
    """Return the scores of one set of pictures; None of what is no object, or an empty one."""
    if not isinstance(content, dict) or not content:
        return None
    scores = {name: interval_of(content[name]) for name in SCORES if isinstance(content.get(name), dict)}
    rest = {name: value for name, value in content.items() if name not in scores}
    found = read(SplitScores, rest, photos=count, confusion_matrix=_matrix, bootstrap=_bootstrap)
    return replace(found, scores=scores)


def _elsewhere(content: Any) -> dict[str, SplitScores] | None:
    if not isinstance(content, dict):
        return None
    found = {name: split_scores(block) for name, block in content.items()}
    return {name: scores for name, scores in found.items() if scores is not None}


def _bootstrap(content: Any) -> Bootstrap | None:
    return read(Bootstrap, content, resamples=count, level=finite, seed=_whole) if isinstance(content, dict) else None


def _dataset(content: Any) -> Dataset | None:
    if not isinstance(content, dict) or not content:
        return None
    texts = dict.fromkeys(("name", "hub_id", "note", "license"), text)
    counts = ("photos", "unreadable", "unlabelled", "duplicates", "duplicates_across_splits", "conflicts")
    return read(Dataset, content, **texts, **dict.fromkeys(counts, count), image_size=_any, splits=_splits)


def _splits(content: Any) -> dict[str, SplitPhotos] | None:
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        return None
    found = {name: read(SplitPhotos, one, photos=count, share=_shares) for name, one in content.items()}
    return None if any(one.photos is None for one in found.values()) else found


def _shares(content: Any) -> dict[str, float] | None:
    fine = isinstance(content, dict) and all(finite(share) is not None for share in content.values())
    return content if fine else None


def _training(content: Any) -> Training | None:
    if not isinstance(content, dict) or not content:
        return None
    return read(
        Training, content, **dict.fromkeys(("recipe", "command", "started"), text), settings=_object, seconds=finite,
        epochs=_any, temperature=finite, left_out=count, machine=_any, versions=_any,
    )  # fmt: skip


def _saved_agreement(content: Any) -> SavedAgreement | None:
    if not isinstance(content, dict) or not content:
        return None
    numbers = dict.fromkeys(("probability", "evidence", "tolerance"), finite)
    return read(SavedAgreement, content, photos=count, **numbers)


def _matrix(content: Any) -> list[list[int]] | None:
    square = isinstance(content, list) and all(isinstance(row, list) and len(row) == len(content) for row in content)
    return content if square and content and all(count(cell) is not None for row in content for cell in row) else None


def _object(content: Any) -> dict[str, Any] | None:
    return content if isinstance(content, dict) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _any(value: Any) -> Any:
    return value
