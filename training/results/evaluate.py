"""Scores with intervals, the per-picture record they are computed from, and `python -m training evaluate`."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hub import bundle as bundle_files
from hub.classifier import ImageClassifier
from hub.errors import DataError
from hub.files import write_aside
from hub.metrics import Metrics, SplitScores, Training, read_metrics, split_scores
from hub.publishing import staging
from hub.record import Predictions, predictions_table, read_predictions
from hub.scores import SCORES, duration, number, score
from training.files import write_json
from training.photos.answers import evaluate
from training.photos.data import Photos, load_photos
from training.photos.sources import demand_outside
from training.results import figures
from training.results.bootstrap import scores_of

# Predicting -------------------------------------------------------------------------------------------------


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
    if record_as and bundle is not None and not Path(bundle).is_dir():
        raise DataError(
            f"{bundle} is not a folder here, so nothing can be recorded in it; save the model to a folder first."
        )
    if out:
        demand_outside(data, Path(out), "--out")
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
    scores = scores_of(predictions)
    _say_these(met, predictions, scores, echo)
    if record_as:
        record_elsewhere(classifier.folder, record_as, predictions)
        echo(f"Recorded in {classifier.folder} as elsewhere / {record_as}.")
    if out:
        _write_out(Path(out), f"these {len(photos):,} pictures", predictions, scores, photos, classifier, echo)
    return 0


def _record_of(classifier: ImageClassifier, echo: Callable[[str], None]) -> Predictions | None:
    """The bundle's record, or None (and says so) where it keeps none. A damaged one is an error."""
    classifier.fetch_record()
    if classifier.folder is None or not (Path(classifier.folder) / bundle_files.PREDICTIONS).is_file():
        echo("This model has no record of held-out pictures, so it is unknown which pictures it was trained on.")
        return None
    return read_predictions(classifier.folder)


def _say_partial(met: list[Overlap], photos: Photos, echo: Callable[[str], None]) -> None:
    for overlap in met:
        if 0 < len(overlap.rows) < overlap.recorded:
            echo(
                f"{photos.name} holds {len(overlap.rows):,} of the {overlap.recorded:,} recorded "
                f"{overlap.split} pictures, not all of them, so the card's {overlap.split} numbers cannot "
                "be repeated on it."
            )


def _say_rest(met: list[Overlap], photos: Photos, echo: Callable[[str], None]) -> None:
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
    classifier: ImageClassifier,
    photos: Photos,
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
    scores = scores_of(predictions)
    known = _read_metrics(classifier.folder)
    claimed = known.split(overlap.split)
    echo(score_lines(f"{overlap.split[:1].upper()}{overlap.split[1:]}, {len(predictions):,} pictures", scores, claimed))
    recorded = record.subset(overlap.split)
    relabelled = int((recorded.labels != predictions.labels).sum())
    if relabelled:
        echo(f"{relabelled:,} of these pictures have another label in this data than in the record.")
    drift = float(np.abs(recorded.logits - predictions.logits).max())
    echo(f"Largest difference from the recorded logits: {drift:.2g}.")
    if out:
        _write_out(Path(out) / overlap.split, overlap.split, predictions, scores, photos, classifier, echo)
    return _say_whether_equal(overlap.split, scores, claimed, echo)


def _say_whether_equal(split: str, scores: dict, claimed: SplitScores | None, echo: Callable[[str], None]) -> bool:
    if not claimed:
        echo(f"The bundle's metrics.json gives no {split} numbers, so there is nothing to repeat.")
        return False
    differing = [name for name in SCORES if score(name, scores.get(name)) != score(name, claimed.score(name))]
    if scores["confusion_matrix"] != claimed.confusion_matrix:
        differing.append("confusion_matrix")
    if differing:
        names = ", ".join(name.replace("_", " ") for name in differing)
        echo(f"The {split} numbers do NOT repeat: {names} differ.")
        return False
    echo(f"The {split} numbers repeat to the printed digit.")
    return True


def score_lines(title: str, scores: dict, claimed: SplitScores | None = None) -> str:
    """The scores as lines of text, in the card's digits; with the card's own beside them where given."""
    lines = [title]
    for name in SCORES:
        line = f"  {SCORES[name]:<28}{score(name, scores[name])}"
        lines.append(f"{line:<64}card: {score(name, claimed.score(name))}" if claimed else line)
    return "\n".join(lines)


def repeats(bundles: list[Path]) -> str:
    """Mean and range of the scores of runs that differ in their seed, on the last split that all have scored."""
    found = [_read_metrics(bundle) for bundle in bundles]
    split = next(name for name in ("test", "validation") if all(metrics.split(name) for metrics in found))
    seconds = [(metrics.training or Training()).seconds or np.nan for metrics in found]
    lines = [f"{split.capitalize()} split, mean and range of {len(found)} runs"]
    for name in SCORES:
        values = [(metrics.split(split) or SplitScores()).score(name).value for metrics in found]
        if None not in values:
            mean, low, high = (number(name, value) for value in (np.mean(values), min(values), max(values)))
            lines.append(f"  {SCORES[name]:<28}{mean} ({low.removesuffix(' %')}–{high.removesuffix(' %')})")
    lines.append(f"  {'Time':<28}{duration(np.mean(seconds))} each")
    return "\n".join(lines)


def _read_metrics(folder: str | os.PathLike) -> Metrics:
    """The bundle's metrics.json; empty where there is none."""
    folder = Path(folder)
    return read_metrics(folder) if (folder / bundle_files.METRICS).is_file() else Metrics()


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
    known = _read_metrics(folder)
    scores = split_scores(scores_of(predictions)) or SplitScores()
    content = replace(known, elsewhere={**(known.elsewhere or {}), name: scores}).to_json()
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
    photos: Photos,
    classifier: ImageClassifier,
    echo: Callable[[str], None],
) -> None:
    """metrics.json, predictions.parquet and the figures of one evaluation."""
    write_json(folder / "metrics.json", {"data": photos.name, "pictures": title, "scores": scores})
    table = predictions_table(predictions)
    write_aside(folder / "predictions.parquet", lambda file: pq.write_table(table, file))
    figures.save(folder, predictions, title=title, pixels=photos.pixels, scale=classifier.evidence_scale)
    echo(f"Figures, metrics.json and predictions.parquet are in {folder}.")
