"""The numbers behind the charts: rankings, curves, counts at a threshold, calibration. NumPy alone.

The definitions are scikit-learn's, and those of `training/results/evaluate.py`, which wrote metrics.json: a score
computed here from predictions.parquet is the one that stands there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Counts:
    """The four counts at a threshold, and the scores made of them; a score without a denominator is None."""

    tp: int  # true positives: the label, called so
    fn: int  # false negatives: the label, called something else
    fp: int  # false positives: something else, called the label
    tn: int  # true negatives: something else, called so

    @property
    def positives(self) -> int:
        """How many pictures have the label."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """How many have another."""
        return self.fp + self.tn

    @property
    def called(self) -> int:
        """How many are called the label."""
        return self.tp + self.fp

    @property
    def right(self) -> int:
        """How many are classified correctly."""
        return self.tp + self.tn

    @property
    def total(self) -> int:
        """How many there are."""
        return self.positives + self.negatives

    @property
    def recall(self) -> float | None:
        """The share of the label's pictures that are found: the true-positive rate."""
        return _share(self.tp, self.positives)

    @property
    def false_positive_rate(self) -> float | None:
        """The share of the other pictures that are called the label."""
        return _share(self.fp, self.negatives)

    @property
    def precision(self) -> float | None:
        """The share of those called the label that have it."""
        return _share(self.tp, self.called)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, 0 where neither is above 0."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float | None:
        """The share of all pictures that are classified correctly."""
        return _share(self.right, self.total)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class Ranking:
    """Pictures in the order of one label's log-odds: every threshold's counts, and the curves through them.

    Args:
        truth: (N,) bool, whether a picture has the label.
        odds: (N,) log-odds of the label.
    """

    def __init__(self, truth: np.ndarray, odds: np.ndarray):
        """Sort once; everything else looks it up."""
        self.truth, self.odds = truth.astype(bool), odds.astype(np.float64)
        self.order = np.argsort(-self.odds, kind="stable")
        self._ascending = np.sort(self.probability)
        self._cumulative = np.r_[0, np.cumsum(self.truth[self.order])]  # among the first n
        self.positives, self.negatives = int(self._cumulative[-1]), int(len(truth) - self._cumulative[-1])

    @cached_property
    def probability(self) -> np.ndarray:
        """The probability of the label (N,)."""
        with np.errstate(over="ignore"):  # exp(-odds) of a very sure no: the probability is 0
            return 1 / (1 + np.exp(-self.odds))

    @property
    def has_curves(self) -> bool:
        """Whether both kinds of pictures are there; without both there is no curve."""
        return bool(self.positives and self.negatives)

    def at(self, threshold: float) -> Counts:
        """Count what is right and wrong if a picture is called the label from this probability on."""
        called = len(self._ascending) - int(np.searchsorted(self._ascending, threshold, side="left"))
        tp = int(self._cumulative[called])
        fp = called - tp
        return Counts(tp, self.positives - tp, fp, self.negatives - fp)

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives after each run of equal scores, from the highest score down."""
        ends = np.r_[np.flatnonzero(np.diff(self.odds[self.order])), len(self.odds) - 1]
        tp = self._cumulative[ends + 1]
        return tp, ends + 1 - tp

    @cached_property
    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rate at every corner of the curve, from (0, 0) to (1, 1)."""
        tp, fp = self._steps
        if len(tp) > 2:  # points on a straight line between their neighbours add nothing
            corner = np.r_[True, (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0), True]
            tp, fp = tp[corner], fp[corner]
        tp, fp = np.r_[0, tp], np.r_[0, fp]
        return fp / self.negatives, tp / self.positives

    @property
    def roc_auc(self) -> float:
        """The area under the ROC curve: the chance that a picture of the label ranks above one without it."""
        return float(np.trapezoid(self.roc[1], self.roc[0]))

    @cached_property
    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall at every threshold, from recall 0 (where precision counts as 1) upward."""
        tp, fp = self._steps
        return np.r_[1.0, tp / (tp + fp)], np.r_[0.0, tp / self.positives]

    @property
    def average_precision(self) -> float:
        """The mean precision over the steps of recall."""
        precision, recall = self.precision_recall
        return float((np.diff(recall) * precision[1:]).sum())

    def mistakes(self, threshold: float) -> np.ndarray:
        """Return the pictures (indices) on the wrong side of a threshold, those furthest from it first."""
        wrong = np.flatnonzero((self.probability >= threshold) != self.truth)
        with np.errstate(divide="ignore"):
            boundary = np.log(threshold) - np.log1p(-threshold)
        if not np.isfinite(boundary):  # all are on one side: the surest of the opposite first
            boundary = 0.0 if not len(wrong) else (self.odds.max() if boundary > 0 else self.odds.min())
        return wrong[np.argsort(-np.abs(self.odds[wrong] - boundary), kind="stable")]
