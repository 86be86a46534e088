"""The nine scores of labelled pictures, by scikit-learn, each with its bootstrap interval."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from sklearn import metrics as sk

from hub.errors import DataError
from hub.metrics import SplitScores
from hub.record import Predictions
from hub.scores import BINS, SCORES, calibration, log_odds, softmax
from training.runs import Run

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


def point_scores(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The nine scores of these pictures, by scikit-learn; NaN where one needs a label that is not among them.

    K = 2: precision, recall, F1, average precision and ROC AUC are those of label 1. K > 2: the mean of the
    one-vs-rest scores over the labels that occur among the pictures.
    """
    count = logits.shape[1]
    guess = np.argmax(logits, axis=1)
    probabilities = softmax(np.asarray(logits))
    odds = log_odds(logits)
    wanted = _scored_labels(labels, count)
    ranked = [k for k in wanted if not (labels == k).all()]
    each = {"labels": wanted, "average": "macro", "zero_division": 0}

    def per_label(measure: Callable[..., float]) -> float:
        return float(np.mean([measure(labels == k, odds[:, k]) for k in ranked])) if ranked else math.nan

    def of_guesses(measure: Callable[..., float]) -> float:
        return float(measure(labels, guess, **each)) if wanted else math.nan

    present = np.unique(labels)
    return {
        "roc_auc": per_label(sk.roc_auc_score),
        "average_precision": per_label(sk.average_precision_score),
        "accuracy": float(sk.accuracy_score(labels, guess)),
        # The mean recall of the labels that occur: what balanced_accuracy_score gives, without its warning
        # about labels that were guessed but do not occur.
        "balanced_accuracy": float(sk.recall_score(labels, guess, labels=present, average="macro")),
        "precision": of_guesses(sk.precision_score),
        "recall": of_guesses(sk.recall_score),
        "f1": of_guesses(sk.f1_score),
        "log_loss": float(sk.log_loss(labels, probabilities, labels=list(range(count)))),
        "expected_calibration_error": calibration(labels, logits).error,
    }


def _scored_labels(labels: np.ndarray, count: int) -> list[int]:
    """Labels whose own score is asked for: label 1 of two, or each of more, if it occurs."""
    return [k for k in ([1] if count == 2 else range(count)) if (labels == k).any()]


class ResampledScores:
    """The nine scores of resamples of the same pictures, from how often each picture was drawn.

    A resample differs from the original only in its counts, so everything that costs time (sorting by score,
    bins, losses) is done once, and a block of resamples is a few matrix products and cumulative sums.
    Equal to `point_scores` on the drawn pictures, within rounding.
    """

    def __init__(self, labels: np.ndarray, logits: np.ndarray):
        self.count = logits.shape[1]
        guess = np.argmax(logits, axis=1)
        self.truth = np.eye(self.count)[labels]
        self.guess = np.eye(self.count)[guess]
        probabilities = softmax(np.asarray(logits))
        own = probabilities[np.arange(len(labels)), labels]
        tiny = np.finfo(np.float64).eps  # scikit-learn's clipping, so that the interval is of the same score
        self.loss = -np.log(np.clip(own, tiny, 1 - tiny))
        found = calibration(labels, logits)
        self.gaps = np.eye(BINS)[found.bins] * (found.is_right - found.certainty)[:, None]
        self.rankings = [self._ranking(odds) for odds in log_odds(logits).T]

    @staticmethod
    def _ranking(odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Order of the pictures from the highest score down, and where each run of equal scores begins."""
        order = np.argsort(-odds, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(odds[order]) != 0])
        return order, starts

    def __call__(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of B resamples from their counts (B, N): name -> (B,), NaN where a score is not defined."""
        counts = np.asarray(counts, np.float64)
        total = counts.sum(axis=1)
        support, guessed = counts @ self.truth, counts @ self.guess
        hits = counts @ (self.truth * self.guess)
        recall, precision = _ratio(hits, support), _ratio(hits, guessed)
        f1 = _ratio(2 * hits, support + guessed)
        scored = support > 0
        areas, averages = self._rank_scores(counts)
        of = self._mean_over_labels
        return {
            "roc_auc": of(areas, scored & (support < total[:, None])),
            "average_precision": of(averages, scored & (support < total[:, None])),
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": _mean_where(recall, scored),
            "precision": of(precision, scored),
            "recall": of(recall, scored),
            "f1": of(f1, scored),
            "log_loss": counts @ self.loss / total,
            "expected_calibration_error": np.abs(counts @ self.gaps).sum(axis=1) / total,
        }

    def _mean_over_labels(self, scores: np.ndarray, defined: np.ndarray) -> np.ndarray:
        return _mean_where(scores[:, 1:], defined[:, 1:]) if self.count == 2 else _mean_where(scores, defined)

    def _rank_scores(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ROC AUC and average precision of each label against the rest, (B, K) each."""
        areas, averages = np.zeros((2, len(counts), self.count))
        for k in [1] if self.count == 2 else range(self.count):
            order, starts = self.rankings[k]
            drawn = counts[:, order]
            positive = np.add.reduceat(drawn * self.truth[order, k], starts, axis=1)
            negative = np.add.reduceat(drawn, starts, axis=1) - positive
            positives, negatives = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
            # Pairs in the wrong order, ties by half: each positive meets the negatives ranked above it.
            wrong = (positive * (negatives - negative / 2)).sum(axis=1)
            areas[:, k] = 1 - _ratio(wrong, positives[:, -1] * negatives[:, -1])
            at_cut = _ratio(positives, positives + negatives)
            averages[:, k] = _ratio((positive * at_cut).sum(axis=1), positives[:, -1])
        return areas, averages


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean_where(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Mean over axis 1 of the defined values, NaN where none is."""
    number = defined.sum(axis=1)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def resample_counts(pictures: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each picture is drawn, in blocks (B, N) of a size that keeps memory near 16 MB."""
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // pictures)
    for start in range(0, resamples, block):
        rows = range(min(block, resamples - start))
        yield np.stack([np.bincount(rng.integers(0, pictures, pictures), minlength=pictures) for _ in rows])


def metrics(
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> dict:
    """All scores of one set of pictures, each with its percentile bootstrap interval over the pictures.

    Args:
        labels: true label of each picture, (N,) integers 0 … K-1.
        logits: the classifier's logits, (N, K).
        resamples: how many times N pictures are drawn with replacement.
        level: share of the resamples that the interval holds, equal tails on both sides
            (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    Returns:
        The block that `metrics.json` holds for a split, ready for `json.dumps`. A score that the pictures
        cannot give (ROC AUC where only one label occurs) has None for value, low and high.

    Raises:
        DataError: no pictures, shapes that do not fit, labels out of range, logits that are not finite.
    """
    labels, logits = _checked(labels, logits)
    value = point_scores(labels, logits)
    scores = ResampledScores(labels, logits)
    blocks = [scores(counts) for counts in resample_counts(len(labels), resamples, seed)]
    result: dict = {"photos": len(labels)}
    for name in SCORES:
        drawn = np.concatenate([block[name] for block in blocks])
        result[name] = _with_interval(value[name], drawn[np.isfinite(drawn)], level)
    result["confusion_matrix"] = sk.confusion_matrix(
        labels, np.argmax(logits, axis=1), labels=list(range(logits.shape[1]))
    ).tolist()
    result["bootstrap"] = {"resamples": resamples, "level": level, "seed": seed}
    return result


def scores_of(predictions: Predictions, **options: float) -> dict:
    """`metrics` of the pictures of a record."""
    return metrics(predictions.labels, predictions.logits, **options)


def scores_of_run(run: Run, split: str) -> dict:
    """The scores of a run's split: its bundle's, or computed where those are not of its record."""
    known, found = run.metrics.split(split) or SplitScores(), run.predictions.subset(split)
    value = known.score("accuracy").value
    same = value is not None and abs(value - point_scores(found.labels, found.logits)["accuracy"]) < 1e-9
    return known.to_json() if same and known.photos == len(found) else scores_of(found)


def _checked(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, logits = np.asarray(labels), np.asarray(logits)
    if len(labels) == 0:
        raise DataError("There are no pictures to score; name a data set that holds pictures with known labels.")
    if labels.ndim != 1 or logits.ndim != 2 or len(labels) != len(logits) or logits.shape[1] < 2:
        raise DataError(
            f"Labels {labels.shape} and logits {logits.shape} do not fit; pass N labels and N rows of K > 1 logits."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"Labels must be whole numbers from 0 to {logits.shape[1] - 1}, one for each logit.")
    if not np.isfinite(logits).all():
        raise DataError("Some logits are not finite numbers, so the model cannot be scored; train it again.")
    return labels.astype(np.int64), logits


def _with_interval(value: float, drawn: np.ndarray, level: float) -> dict[str, float | None]:
    if not math.isfinite(value) or drawn.size == 0:
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"value": value, "low": float(low), "high": float(high)}
