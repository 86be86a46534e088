"""Whether a difference between two classifiers is more than the luck of the pictures that they were asked about."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from training.results.bootstrap import LEVEL, RESAMPLES, SEED, ResampledScores, point_scores, resample_counts

COMPARED = ("accuracy", "log_loss", "roc_auc")


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict:
    """The exact McNemar test of two classifiers on the same N pictures.

    Pictures that both or neither classify correctly say nothing of a difference. If both are right equally often, each
    other picture is as likely to be one's as the other's: a fair coin. McNemar 1947; Dietterich 1998,
    https://doi.org/10.1162/089976698300017197, section 2.

    Args:
        first, second: whether each answer is right, bool (N,).

    Returns:
        only_first, only_second: pictures that only one classifies correctly.
        p: how often luck alone divides those at least this unevenly, to either side; 1 where there are none.
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = binomtest(min(one, other), one + other).pvalue if one + other else 1.0
    return {"only_first": one, "only_second": other, "p": float(p)}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the same order: of m the smallest times m, the next times m - 1, …

    None is let below a smaller one's, or above 1. Holm 1979, https://www.jstor.org/stable/4615733
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    corrected = np.minimum(1, np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors))
    result = np.empty(len(order))
    result[order] = corrected
    return result.tolist()


def affordable(labels: int) -> int:
    """Resamples for so many labels: each label has a ranking of its own, so with many they take minutes."""
    return min(RESAMPLES, max(400, 20 * RESAMPLES // labels))


class Resampled:
    """A classifier's scores on N pictures and on resamples of them.

    Two of the same pictures in the same order are resampled alike, so that their differences are paired.
    """

    def __init__(self, labels: np.ndarray, logits: np.ndarray, *, resamples: int | None = None, seed: int = SEED):
        self.value = {name: value for name, value in point_scores(labels, logits).items() if name in COMPARED}
        scores = ResampledScores(labels, logits)
        resamples = resamples or affordable(logits.shape[1])
        blocks = [scores(counts) for counts in resample_counts(len(labels), resamples, seed)]
        self.drawn = {name: np.concatenate([block[name] for block in blocks]) for name in COMPARED}


def differences(first: Resampled, second: Resampled, level: float = LEVEL) -> dict[str, dict]:
    """How much more the first has of each score, with its paired bootstrap interval.

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13: the percentiles of the differences over
    resamples of the pictures. Where a score needs a label that is not there, value, low and high are None.
    """
    found = {}
    for name in COMPARED:
        drawn = first.drawn[name] - second.drawn[name]
        drawn = drawn[np.isfinite(drawn)]
        value = first.value[name] - second.value[name]
        if np.isfinite(value) and len(drawn):
            low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
            found[name] = {"value": float(value), "low": float(low), "high": float(high)}
        else:
            found[name] = {"value": None, "low": None, "high": None}
    return found
