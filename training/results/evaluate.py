"""Scores with intervals, the per-picture record they are computed from, and `python -m training evaluate`."""

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk

from hub import bundle as bundle_files
from hub.errors import BundleError, DataError
from hub.files import write_aside
from hub.publishing import card, staging
from training.files import write_json

if TYPE_CHECKING:
    from hub.classifier import ImageClassifier
    from training.photos.data import Photos

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
BINS = 15
SCORES = card.SCORES


# Scores -----------------------------------------------------------------------------------------------------


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each label against all others, (N, K) float64; for K = 2, column 1 is `z[1] - z[0]`.

    It orders pictures as the probability does, but never saturates: two probabilities that both round to 1
    are a tie that the network did not make.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    others = np.empty_like(log_p)
    for k in range(log_p.shape[1]):
        others[:, k] = np.logaddexp.reduce(np.delete(log_p, k, axis=1), axis=1)
    return log_p - others


def calibration_bins(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin of each picture, its top probability, and whether the top label is right; three arrays (N,).

    Bins are 0 … 14: 15 of equal width, each open below and closed above, over the top probability
    (Guo, Pleiss, Sun and Weinberger 2017, https://arxiv.org/abs/1706.04599, section 2).
    """
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return bins, confidence, np.argmax(logits, axis=1) == labels


def expected_calibration_error(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean of |share right - mean top probability| in each picture's bin (Guo et al., eq. 3)."""
    bins, confidence, right = calibration_bins(labels, logits)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def point_scores(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The nine scores of these pictures, by scikit-learn; NaN where one needs a label that is not among them.

    K = 2: precision, recall, F1, average precision and ROC AUC are those of label 1. K > 2: the mean of the
    one-vs-rest scores over the labels that occur among the pictures.
    """
    count = logits.shape[1]
    guess = np.argmax(logits, axis=1)
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    odds = log_odds(logits)
    wanted = _scored_labels(labels, count)
    ranked = [k for k in wanted if not (labels == k).all()]
    each = {"labels": wanted, "average": "macro", "zero_division": 0}

    def per_label(score: Callable[..., float]) -> float:
        return float(np.mean([score(labels == k, odds[:, k]) for k in ranked])) if ranked else math.nan

    def of_guesses(score: Callable[..., float]) -> float:
        return float(score(labels, guess, **each)) if wanted else math.nan

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
        "expected_calibration_error": expected_calibration_error(labels, logits),
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
        probabilities = softmax(np.asarray(logits, np.float64), axis=1)
        own = probabilities[np.arange(len(labels)), labels]
        tiny = np.finfo(np.float64).eps  # scikit-learn's clipping, so that the interval is of the same score
        self.loss = -np.log(np.clip(own, tiny, 1 - tiny))
        bins, confidence, right = calibration_bins(labels, logits)
        self.gaps = np.eye(BINS)[bins] * (right - confidence)[:, None]
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
        raise DataError("Some logits are not finite numbers; the model that gave them cannot be scored, train it anew.")
    return labels.astype(np.int64), logits


def _with_interval(value: float, drawn: np.ndarray, level: float) -> dict[str, float | None]:
    if not math.isfinite(value) or drawn.size == 0:
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


# The per-picture record -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a classifier answered for N pictures with known labels, in the classifier's label order."""

    hashes: np.ndarray  # (N,) str, hub.images.pixel_hash
    splits: np.ndarray  # (N,) str
    labels: np.ndarray  # (N,) int64
    logits: np.ndarray  # (N, K) float32
    evidence: np.ndarray | None  # (N, h, w, K) float32; None of a model whose head keeps no map
    label_names: list[str]  # K names

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Predictions":
        """The pictures at these rows (indices or a mask), in that order."""
        arrays = {name: getattr(self, name) for name in ("hashes", "splits", "labels", "logits", "evidence")}
        return replace(self, **{name: None if array is None else array[rows] for name, array in arrays.items()})

    def subset(self, split: str) -> "Predictions":
        """The pictures of one split."""
        return self.take(self.splits == split)

    def metrics(self, **options: float) -> dict:
        """`metrics` of these pictures."""
        return metrics(self.labels, self.logits, **options)


def predictions_table(predictions: Predictions | Iterable[Predictions]) -> pa.Table:
    """The table that a bundle keeps as predictions.parquet; several sets (validation, test) become one table.

    Columns hash, split, label, logits (K), evidence (h·w·K, row-major; null of a model without a map); the
    schema's metadata names the labels and the grid, so that the file can be read with nothing beside it.
    """
    parts = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    first = parts[0]
    grid = None if first.evidence is None else list(first.evidence.shape[1:3])
    schema = pa.schema(
        [
            ("hash", pa.string()),
            ("split", pa.string()),
            ("label", pa.int64()),
            ("logits", pa.list_(pa.float32())),
            ("evidence", pa.list_(pa.float32())),
        ],
        metadata={"labels": json.dumps(first.label_names), "grid": json.dumps(grid)},
    )
    columns = {
        "hash": [str(name) for part in parts for name in part.hashes],
        "split": [str(name) for part in parts for name in part.splits],
        "label": np.concatenate([part.labels for part in parts]),
        "logits": _rows([part.logits for part in parts]),
        "evidence": _rows([part.evidence for part in parts]) if grid else [None] * sum(map(len, parts)),
    }
    return pa.table(columns, schema=schema)


def _rows(arrays: list[np.ndarray]) -> pa.ListArray:
    """One list of float32 for each picture."""
    flat = np.concatenate([np.asarray(a, np.float32).reshape(len(a), -1) for a in arrays])
    starts = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
    return pa.ListArray.from_arrays(starts, pa.array(flat.ravel()))


def read_predictions(bundle: str | os.PathLike) -> Predictions:
    """The record of a bundle folder (or the parquet file itself).

    Raises:
        BundleError: the file is missing or is not such a table.
    """
    path = Path(bundle)
    path = path / bundle_files.PREDICTIONS if path.is_dir() else path
    if not path.is_file():
        raise BundleError(
            f"There is no {path}, the record of held-out pictures; save the bundle again with its predictions."
        )
    try:
        table = pq.read_table(path)
        notes = table.schema.metadata or {}
        names, grid = json.loads(notes[b"labels"]), json.loads(notes[b"grid"])
        size, count = len(table), len(names)
        return Predictions(
            hashes=np.array(table["hash"].to_pylist(), dtype=str),
            splits=np.array(table["split"].to_pylist(), dtype=str),
            labels=table["label"].to_numpy().astype(np.int64),
            logits=_matrix(table["logits"], size, count),
            evidence=_matrix(table["evidence"], size, *grid, count) if grid else None,
            label_names=names,
        )
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise BundleError(
            f"{path} is not a record of predictions ({type(error).__name__}); save the bundle again to write a new one."
        ) from error


def _matrix(column: pa.ChunkedArray, *shape: int) -> np.ndarray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(shape)


# Predicting -------------------------------------------------------------------------------------------------


def map_labels(
    labels: np.ndarray, names: list[str], bundle_names: list[str], *, echo: Callable[[str], None] = print
) -> np.ndarray:
    """A data set's label numbers (N,) as the bundle's, matched by name.

    Names are equal only where they are equal as Unicode (NFC). A name that has no equal is taken for the bundle's that
    differs by case, outer blanks or an English plural alone, if it is the only one on both sides; `echo` is told so.

    Raises:
        DataError: a picture has a label that the bundle does not know.
    """
    used = [int(k) for k in np.unique(labels)]
    place = {unicodedata.normalize("NFC", name): k for k, name in enumerate(bundle_names)}
    table = np.array([place.get(unicodedata.normalize("NFC", name), -1) for name in names], np.int64)
    similar = _similar([names[k] for k in used if table[k] < 0], [
        name for k, name in enumerate(bundle_names) if k not in table[used]
    ])  # fmt: skip
    for k in used:
        if table[k] < 0 and names[k] in similar:
            table[k] = bundle_names.index(similar[names[k]])
    strange = [names[k] for k in used if table[k] < 0]
    if strange:
        raise DataError(
            f"The data has the label {strange[0]!r}, which the model does not know; it knows "
            f"{', '.join(bundle_names)}: rename the label or leave those pictures out."
        )
    if similar:
        pairs = ", ".join(f"{name} as {other}" for name, other in similar.items())
        echo(f"Labels of the data that the model spells differently are read as the model's: {pairs}.")
    return table[labels]


def _similar(names: list[str], others: list[str]) -> dict[str, str]:
    """The names that have one similar name among the others, which is similar to no other name of theirs."""
    forms = {name: _forms(name) for name in (*names, *others)}
    near = {name: [other for other in others if forms[name] & forms[other]] for name in names}
    back = [other for found in near.values() for other in found]
    return {name: found[0] for name, found in near.items() if len(found) == 1 and back.count(found[0]) == 1}


def _forms(name: str) -> set[str]:
    """A name without case and outer blanks, and what it may be the plural of."""
    name = unicodedata.normalize("NFC", name).strip().casefold()
    singulars = {name.removesuffix("s"), name.removesuffix("es"), re.sub("ies$", "y", name)}
    return {name} | {form for form in singulars if len(form) > 2}


def evaluate(
    classifier: "ImageClassifier",
    photos: "Photos",
    *,
    batch_size: int = 32,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> Predictions:
    """Answers of the classifier for labelled photos, by the same ONNX graph that a user runs.

    Args:
        photos: pixels at the classifier's `image_size`.
        echo: is told which labels are matched although they are spelt differently.

    Raises:
        DataError: a label the classifier does not know, or pixels of another size.
    """
    from tqdm import tqdm

    if len(photos) == 0:
        raise DataError(f"{photos.name} holds no pictures to evaluate; name a data set that does.")
    if photos.pixels.shape[1] != classifier.image_size:
        raise DataError(
            f"The pictures are {photos.pixels.shape[1]} px and the model takes {classifier.image_size}; "
            "load them at the model's size."
        )
    labels = map_labels(photos.labels, photos.label_names, classifier.labels, echo=echo)
    logits, evidence = [], []
    with tqdm(total=len(photos), unit="photo", desc="predict", disable=not progress) as bar:
        for start in range(0, len(photos), 8 * batch_size):
            part = np.asarray(photos.pixels[start : start + 8 * batch_size])
            answer = classifier.predict_tensors(part, batch_size=batch_size)
            logits.append(answer[0])
            evidence.append(answer[1])
            bar.update(len(part))
    return Predictions(
        hashes=np.asarray(photos.hashes, str),
        splits=np.asarray(photos.splits, str),
        labels=labels,
        logits=np.concatenate(logits).astype(np.float32),
        evidence=None if evidence[0] is None else np.concatenate(evidence).astype(np.float32),
        label_names=list(classifier.labels),
    )


# The command ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """How a data set meets one split of a bundle's record."""

    split: str
    rows: np.ndarray  # rows of the data set that the split holds, in the record's order
    recorded: int  # pictures of the split in the record

    @property
    def complete(self) -> bool:
        return len(self.rows) == self.recorded


def overlaps(hashes: np.ndarray, record: Predictions) -> list[Overlap]:
    """For each split of the record, which of these pictures belong to it."""
    position = {name: row for row, name in enumerate(hashes)}
    found = []
    for split in dict.fromkeys(record.splits.tolist()):
        wanted = record.hashes[record.splits == split]
        rows = [position[name] for name in wanted if name in position]
        found.append(Overlap(split, np.array(rows, np.int64), len(wanted)))
    return found


def run_evaluation(
    bundle: str | os.PathLike | None,
    data: str | os.PathLike,
    *,
    out: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    record_as: str | None = None,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> int:
    """`python -m training evaluate BUNDLE --data DATA`: repeat a bundle's numbers, or score other pictures.

    Pictures are told by the hash of their pixels against the bundle's predictions.parquet. Where the data
    holds every picture of a recorded split, these are answered anew and the numbers compared with the card's,
    to the printed digit. Otherwise the scores are those of "these N pictures", not of a test split.

    Args:
        bundle: bundle folder or Hub name; None is the embedded model.
        data: Hub name of a data set, or a folder.
        out: folder for metrics.json, predictions.parquet and figures of this evaluation.
        record_as: put the scores into the bundle's metrics.json as "elsewhere" under this name, and the answers
            behind them into its predictions.parquet as a split of this name. Only for pictures of which none is
            recorded under another name; that none was trained on is the caller's word.

    Returns:
        Exit code: 0, or 1 where numbers that should repeat do not.
    """
    from hub.classifier import ImageClassifier
    from training.photos.data import load_photos

    if record_as and bundle is not None and not Path(bundle).is_dir():
        raise DataError(
            f"{bundle} is no folder here, so nothing can be recorded in it; save the model to a folder first."
        )
    classifier = ImageClassifier.from_pretrained(bundle)
    record = _record_of(classifier, echo)
    photos = load_photos(data, classifier.image_size, cache=cache, progress=progress)
    for sentence in photos.report["told"]:
        echo(sentence)
    met = overlaps(np.asarray(photos.hashes).astype(str), record) if record else []
    complete = [overlap for overlap in met if overlap.complete]
    if record_as and any(len(overlap.rows) for overlap in met if overlap.split != record_as):
        raise DataError(
            f"Pictures of {photos.name} are in this model's own record of held-out pictures, so they are "
            "not from elsewhere; leave --record-as out."
        )
    if complete and not record_as:
        _say_partial(met, photos, echo)
        _say_rest(met, photos, echo)
        agreed = [_repeat(classifier, photos, record, overlap, out, progress, echo) for overlap in complete]
        return 0 if all(agreed) else 1
    _say_partial(met, photos, echo)
    predictions = evaluate(classifier, photos, progress=progress, echo=echo)
    scores = predictions.metrics()
    _say_these(met, predictions, scores, echo)
    if record_as:
        record_elsewhere(classifier.folder, record_as, predictions)
        echo(f"Recorded in {classifier.folder} as elsewhere / {record_as}.")
    if out:
        _write_out(Path(out), f"these {len(photos):,} pictures", predictions, scores, photos, classifier, echo)
    return 0


def _record_of(classifier: "ImageClassifier", echo: Callable[[str], None]) -> Predictions | None:
    """The bundle's record, or None (and says so) where it keeps none. A damaged one is an error."""
    classifier.fetch_record()
    if classifier.folder is None or not (Path(classifier.folder) / bundle_files.PREDICTIONS).is_file():
        echo("This model keeps no record of held-out pictures, so which pictures it was trained on cannot be told.")
        return None
    return read_predictions(classifier.folder)


def _say_partial(met: list[Overlap], photos: "Photos", echo: Callable[[str], None]) -> None:
    for overlap in met:
        if 0 < len(overlap.rows) < overlap.recorded:
            echo(
                f"{photos.name} holds {len(overlap.rows):,} of the {overlap.recorded:,} recorded "
                f"{overlap.split} pictures, not all of them, so the card's {overlap.split} numbers cannot "
                "be repeated on it."
            )


def _say_rest(met: list[Overlap], photos: "Photos", echo: Callable[[str], None]) -> None:
    rest = len(photos) - sum(len(overlap.rows) for overlap in met)
    if rest:
        echo(
            f"The other {rest:,} pictures of {photos.name} are not in the record of held-out pictures: the "
            "model may have been trained on them, so they are not scored."
        )


def _say_these(met: list[Overlap], predictions: Predictions, scores: dict, echo: Callable[[str], None]) -> None:
    held_out = sum(len(overlap.rows) for overlap in met)
    number = len(predictions)
    if held_out == number:
        echo("All these pictures are held-out ones of the record, but only a part of it: this is not its test score.")
    else:
        echo(
            f"Warning: {number - held_out:,} of these {number:,} pictures are not in the model's record of "
            "held-out pictures. Photos it was trained on may be among them, so this is not a test score."
        )
    echo(score_lines(f"These {number:,} pictures", scores))


def _repeat(
    classifier: "ImageClassifier",
    photos: "Photos",
    record: Predictions,
    overlap: Overlap,
    out: str | os.PathLike | None,
    progress: bool,
    echo: Callable[[str], None],
) -> bool:
    """Answer a recorded split anew and print both numbers; whether all printed digits are equal."""
    photos = photos.subset(overlap.rows)
    predictions = evaluate(classifier, photos, progress=progress, echo=echo)
    predictions = replace(predictions, splits=np.full(len(predictions), overlap.split))
    scores = predictions.metrics()
    known = _read_metrics(classifier.folder)
    claimed = known.get(overlap.split) or (known.get("elsewhere") or {}).get(overlap.split)
    echo(score_lines(f"{overlap.split[:1].upper()}{overlap.split[1:]}, {len(predictions):,} pictures", scores, claimed))
    recorded = record.subset(overlap.split)
    relabelled = int((recorded.labels != predictions.labels).sum())
    if relabelled:
        echo(f"{relabelled:,} of these pictures carry another label in this data than in the record.")
    drift = float(np.abs(recorded.logits - predictions.logits).max())
    echo(f"Largest difference from the recorded logits: {drift:.2g}.")
    if out:
        _write_out(Path(out) / overlap.split, overlap.split, predictions, scores, photos, classifier, echo)
    return _say_whether_equal(overlap.split, scores, claimed, echo)


def _say_whether_equal(split: str, scores: dict, claimed: dict | None, echo: Callable[[str], None]) -> bool:
    if not claimed:
        echo(f"The bundle's metrics.json gives no {split} numbers, so there is nothing to repeat.")
        return False
    differing = [name for name in SCORES if card.score(name, scores.get(name)) != card.score(name, claimed.get(name))]
    if scores["confusion_matrix"] != claimed.get("confusion_matrix"):
        differing.append("confusion_matrix")
    if differing:
        names = ", ".join(name.replace("_", " ") for name in differing)
        echo(f"The {split} numbers do NOT repeat: {names} differ.")
        return False
    echo(f"The {split} numbers repeat to the printed digit.")
    return True


def score_lines(title: str, scores: dict, claimed: dict | None = None) -> str:
    """The scores as lines of text, in the card's digits; with the card's own beside them where given."""
    lines = [title]
    for name in SCORES:
        line = f"  {card.SCORES[name]:<28}{card.score(name, scores[name])}"
        lines.append(f"{line:<64}card: {card.score(name, claimed.get(name))}" if claimed else line)
    return "\n".join(lines)


def repeats(bundles: list[Path]) -> str:
    """Mean and range of the scores of runs that differ in their seed, on the last split that all have scored."""
    found = [_read_metrics(bundle) for bundle in bundles]
    split = next(name for name in ("test", "validation") if all(name in metrics for metrics in found))
    seconds = [metrics["training"]["seconds"] for metrics in found]
    lines = [f"{split.capitalize()} split, mean and range of {len(found)} runs"]
    for name in SCORES:
        values = [metrics[split][name]["value"] for metrics in found]
        if None not in values:
            mean, low, high = (card.number(name, value) for value in (np.mean(values), min(values), max(values)))
            lines.append(f"  {SCORES[name]:<28}{mean} ({low.removesuffix(' %')}–{high.removesuffix(' %')})")
    lines.append(f"  {'Time':<28}{card.duration(np.mean(seconds))} each")
    return "\n".join(lines)


def _read_metrics(folder: str | os.PathLike) -> dict:
    """The bundle's metrics.json; empty where there is none."""
    folder = Path(folder)
    return bundle_files.read_json(folder, bundle_files.METRICS) if (folder / bundle_files.METRICS).is_file() else {}


def record_elsewhere(bundle: str | os.PathLike, name: str, predictions: Predictions) -> None:
    """Put pictures from elsewhere into a bundle: their scores, the answers behind them, and its README.md anew.

    Each file is written aside and then renamed; the record comes first, so that no score stands without it.

    Raises:
        DataError: the name is one of the data set's own splits. BundleError: the folder is not a bundle.
        StorageError: it cannot be written.
    """
    if name in ("train", "validation", "test"):
        raise DataError(f"{name!r} is the name of a split; give pictures from elsewhere another.")
    folder = Path(bundle)
    bundle_files.read_json(folder, bundle_files.CONFIG)  # refused here if it is no bundle, before anything is written
    content = _read_metrics(folder)
    content["elsewhere"] = {**(content.get("elsewhere") or {}), name: predictions.metrics()}
    parts = [replace(predictions, splits=np.full(len(predictions), name))]
    if (folder / bundle_files.PREDICTIONS).is_file():
        record = read_predictions(folder)
        parts.insert(0, record.take(record.splits != name))
    table = predictions_table(parts)
    write_aside(folder / bundle_files.PREDICTIONS, lambda file: pq.write_table(table, file))
    write_json(folder / bundle_files.METRICS, content)
    write_aside(folder / bundle_files.CARD, lambda file: file.write(staging.card(folder).encode()))


def _write_out(
    folder: Path,
    title: str,
    predictions: Predictions,
    scores: dict,
    photos: "Photos",
    classifier: "ImageClassifier",
    echo: Callable[[str], None],
) -> None:
    """metrics.json, predictions.parquet and the figures of one evaluation."""
    from training.results import figures

    write_json(folder / "metrics.json", {"data": photos.name, "pictures": title, "scores": scores})
    table = predictions_table(predictions)
    write_aside(folder / "predictions.parquet", lambda file: pq.write_table(table, file))
    figures.save(folder, predictions, title=title, pixels=photos.pixels, scale=classifier.evidence_scale)
    echo(f"Figures, metrics.json and predictions.parquet are in {folder}.")
