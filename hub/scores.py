"""Scores: how they are computed of logits, and how they are written. NumPy alone.

Each is defined once here, for training, for the card and for the page, so that the same pictures give the same digits
everywhere. The scores that scikit-learn computes while training are in `training.results`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hub.parts import read

BINS = 15  # of the calibration error
# From the first on a probability with one decimal would read 100 %, below the second 0 %.
NEARLY_1, NEARLY_0 = 0.9995, 0.0005

SCORES = {
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "log_loss": "Log loss",
    "expected_calibration_error": "Expected calibration error",
}
_FIVE_DECIMALS = {"roc_auc", "average_precision"}
_FOUR_DECIMALS = {"log_loss", "expected_calibration_error"}
NOT_MEASURED = "not measured"


# ---- from logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (..., K) float64 of logits (..., K)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Return the log-odds of each label against all others, (N, K) float64, of logits (N, K).

    For K = 2, column 1 is `logits[:, 1] - logits[:, 0]`. It orders pictures as the probability does, but never
    saturates: two probabilities that both round to 1 would be a tie that the network did not make.
    """
    logits = np.asarray(logits, np.float64)
    odds = np.empty_like(logits)
    for k in range(logits.shape[1]):
        others = np.delete(logits, k, axis=1)
        top = others.max(axis=1, keepdims=True)
        odds[:, k] = logits[:, k] - (top[:, 0] + np.log(np.exp(others - top).sum(axis=1)))
    return odds


@dataclass(frozen=True)
class Calibration:
    """How sure answers are, and how often they are right, in BINS of equal width of the top probability.

    Each bin is open below and closed above (Guo, Pleiss, Sun and Weinberger 2017,
    https://arxiv.org/abs/1706.04599, section 2).
    """

    bins: np.ndarray  # (N,) the bin of each picture, 0 … BINS - 1
    certainty: np.ndarray  # (N,) float64, its top probability
    is_right: np.ndarray  # (N,) bool, whether the top label is the true one

    @property
    def photos(self) -> np.ndarray:
        """How many pictures each bin holds, (BINS,)."""
        return np.bincount(self.bins, minlength=BINS)

    @property
    def confidence(self) -> np.ndarray:
        """Mean top probability in each bin, (BINS,), NaN where it holds none."""
        return self._mean(self.certainty)

    @property
    def right(self) -> np.ndarray:
        """Share of right answers in each bin, (BINS,), NaN where it holds none."""
        return self._mean(self.is_right)

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap of the two, weighted by the pictures (Guo et al., eq. 3)."""
        gaps = np.bincount(self.bins, weights=self.is_right - self.certainty, minlength=BINS)
        return float(np.abs(gaps).sum() / len(self.bins))

    def _mean(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.bincount(self.bins, weights=values, minlength=BINS) / self.photos


def calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Compare how sure the answers are with how often they are right.

    Args:
        labels: (N,) the true labels' numbers.
        logits: (N, K).
    """
    certainty = softmax(np.asarray(logits)).max(axis=1)
    bins = np.clip(np.ceil(certainty * BINS).astype(int) - 1, 0, BINS - 1)
    return Calibration(bins, certainty, np.argmax(logits, axis=1) == labels)


def wilson(share: np.ndarray | float, number: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of a share of `number` pictures (Wilson 1927), sensible for few and for 0 and 1."""
    z = 1.959964
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return np.minimum(centre - half, share), np.maximum(centre + half, share)


# ---- in print


def number(name: str, value: float) -> str:
    """One score in its printed digits: 0.99925, 98.90 % or 0.0327."""
    if name in _FIVE_DECIMALS:
        return f"{value:.5f}"
    return f"{value:.4f}" if name in _FOUR_DECIMALS else f"{100 * value:.2f} %"


@dataclass(frozen=True)
class Interval:
    """A score and the ends of its interval; None for what was not measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # what else the entry holds

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends, None where one lacks."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def interval_of(entry: Mapping[str, Any]) -> Interval:
    """Return the score that an object of metrics.json gives."""
    return read(Interval, entry, value=finite, low=finite, high=finite)


def finite(value: Any) -> float | None:
    """Return a finite number, None of anything else."""
    return value if type(value) in (int, float) and math.isfinite(value) else None


def score(name: str, entry: Interval | Mapping[str, Any] | None) -> str:
    """A score with its interval, such as `98.90 % (98.40–99.30)`; says so where there is none."""
    found = entry if isinstance(entry, Interval) else interval_of(entry or {})
    if found.value is None:
        return NOT_MEASURED
    text = number(name, found.value)
    if found.ends is None:
        return text
    low, high = (number(name, end).removesuffix(" %") for end in found.ends)
    return f"{text} ({low}–{high})"


def percent(probability: float) -> str:
    """A probability in per cent with one decimal, never rounded to 0 or 100 %: 98.7 %, > 99.9 %, < 0.1 %."""
    if probability >= NEARLY_1:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %" if probability >= NEARLY_0 else "< 0.1 %"


def duration(seconds: float) -> str:
    """A time in words: 47 s, 1 min 30 s, 12 min, 1 h 34 min; from ten minutes on without seconds."""
    total = math.floor(seconds + 0.5)
    if total < 60:
        return f"{total} s"
    if total < 600:
        large, small, units = *divmod(total, 60), ("min", "s")
    else:
        large, small, units = *divmod(math.floor(seconds / 60 + 0.5), 60), ("h", "min")
    parts = [f"{value} {unit}" for value, unit in zip((large, small), units, strict=True) if value]
    return " ".join(parts)


def many(count: int, what: str) -> str:
    """So many of something, in words: "1 picture", "2 pictures"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
