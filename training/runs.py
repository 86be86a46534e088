"""A run's folder as it is read again: settings, history, scores, and the record of held-out pictures."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hub.config import Config, read_config
from hub.errors import DataError
from hub.files import sha256
from hub.metrics import Metrics, Training, read_metrics
from hub.record import Predictions, read_predictions
from training.files import DamagedError, read_json
from training.settings import PLACES, check, completed

RECORD = "settings.json"
REMEDY = "if a fit has made this folder, delete the file and run the same fit command again, which continues the run"
SEEDS = re.compile(r"seed-\d+")  # the folders that `fit --seeds` makes within the one it is given
HELD_OUT = ("test", "validation")  # splits that a record may have, the one to speak of first


@dataclass(frozen=True)
class Run:
    """What a finished fit has left in its folder."""

    folder: Path
    record: dict  # settings.json
    history: dict[str, np.ndarray]  # columns of history.csv, a value an epoch
    config: Config  # of the bundle
    metrics: Metrics  # of the bundle
    predictions: Predictions

    @property
    def bundle(self) -> Path:
        """The folder of the model itself."""
        return self.folder / "bundle"

    @property
    def name(self) -> str:
        """The folder's own name; of one of several seeds with the name of the folder around it."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if SEEDS.fullmatch(folder.name) else folder.name

    @property
    def training(self) -> Training:
        """What metrics.json says of the training."""
        return self.metrics.training or Training()

    @property
    def recipe(self) -> str:
        """The recipe's name, as far as it is recorded."""
        return self.training.recipe or "unknown"

    @property
    def settings(self) -> dict:
        """The recipe's settings; knobs that are newer than the run have the value that then held."""
        return completed(self.record["settings"])

    @property
    def splits(self) -> list[str]:
        """The held-out splits of which there is a record."""
        return [split for split in HELD_OUT if (self.predictions.splits == split).any()]

    @property
    def kept(self) -> int:
        """The row of the epoch whose weights were kept: the first of the lowest validation log loss, calibrated."""
        return kept_row(self.history)

    def split(self, wanted: str | None) -> str:
        """The split to speak of: the wanted one, else test, else validation.

        Raises:
            DataError: there is no record of it.
        """
        if wanted is None and self.splits:
            return self.splits[0]
        if wanted in self.splits:
            return wanted
        has = f"it has {' and '.join(self.splits)}" if self.splits else "it has none of the data set's splits"
        remedy = "; fit it again with --open-test" if wanted == "test" else ""
        raise DataError(f"{self.folder} has no record of {wanted or 'held-out'} pictures ({has}){remedy}.")


def run_folders(folders: Sequence[str | Path]) -> list[Path]:
    """The same folders, but in place of one that `fit --seeds` has filled the runs within it."""
    found = []
    for folder in map(Path, folders):
        seeds = [path for path in folder.glob("seed-*") if SEEDS.fullmatch(path.name)]
        whole = (folder / "settings.json").exists() or not seeds
        found += [folder] if whole else sorted(seeds, key=lambda path: int(path.name.removeprefix("seed-")))
    return found


def read_run(folder: str | Path) -> Run:
    """Read a folder that `python -m training fit` has made and finished.

    Raises:
        DataError: it is no such folder, the run has not ended, or a file in it is damaged.
        BundleError: its bundle is damaged.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} is not a run: it has no {RECORD}; name a folder that a fit has made.")
    record = read_record(folder)
    if not (folder / "bundle").is_dir():
        raise DataError(f"{folder} has no bundle yet; run its fit command again to finish it.")
    _demand_possible(record["settings"], folder / RECORD)
    return Run(
        folder=folder,
        record=record,
        history=read_history(folder / "history.csv", "run its fit command again, which writes it again"),
        config=read_config(folder / "bundle"),
        metrics=read_metrics(folder / "bundle"),
        predictions=read_predictions(folder / "bundle"),
    )


def _demand_possible(settings: dict, path: Path) -> None:
    """Refuse a record whose settings no run can have had."""
    try:
        if "size" not in settings or not {"network", "backbone"} & settings.keys():
            raise DataError("it does not name the size or the network")
        check({**completed(settings), "data": "as recorded"})
    except DataError as error:
        raise DamagedError(f"{path} is damaged ({str(error).rstrip('.')}); {REMEDY}.") from error


def read_record(run: Path) -> dict:
    """What settings.json says of a run.

    Raises:
        DamagedError: it is cut short, empty, or no record of settings.
    """
    record = read_json(run / RECORD, REMEDY)
    if not isinstance(record.get("settings"), dict):
        raise DamagedError(f"{run / RECORD} is damaged (it holds no settings of a run); {REMEDY}.")
    return record


def identity(settings: dict, pictures: str) -> dict:
    """What makes a run this one and no other, as JSON holds it: settings but for places, weights, pictures.

    Args:
        pictures: `Photos.fingerprint` of them.
    """
    content = {
        "settings": {key: value for key, value in settings.items() if key not in PLACES},
        "backbone_sha256": weights_sha256(settings.get("backbone_weights", "random")),
        "pictures": pictures,
    }
    return json.loads(json.dumps(content))


def differences(there: dict, here: dict) -> list[str]:
    """The names of what differs between a recorded identity, perhaps of an older version, and another."""
    known = completed(there["settings"])
    changed = [key for key, value in here["settings"].items() if known.get(key) != value]
    return changed + [name for name in ("backbone_sha256", "pictures") if there.get(name) != here[name]]


def weights_sha256(weights: str) -> str | None:
    """SHA-256 of a weights file; None for weights that have a name ("imagenet", "random") instead."""
    return sha256(Path(weights)) if Path(weights).is_file() else None


def kept_row(history: dict[str, np.ndarray]) -> int:
    """The row of a history whose weights a fit keeps; the last where no validation loss is known."""
    for column in ("validation_calibrated_loss", "validation_loss"):
        values = history.get(column)
        if values is not None and np.isfinite(values).any():
            return int(np.nanargmin(values))
    return len(history["epoch"]) - 1


def read_history(path: str | Path, remedy: str = "name the history.csv of a run") -> dict[str, np.ndarray]:
    """Columns of history.csv as float64, a value an epoch; blanks are NaN.

    Args:
        remedy: how the sentence of a refusal ends.

    Raises:
        DamagedError: the file is missing or is no history of a run.
    """
    try:
        text = Path(path).read_bytes().decode()
        rows = list(csv.DictReader(text.splitlines()))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DamagedError(f"{path} cannot be read as a run's history; {remedy}.") from error
    counted = {"epoch", "step"} <= columns.keys() and np.isfinite([columns["epoch"], columns["step"]]).all()
    if not counted or not text.endswith("\n"):
        raise DamagedError(f"{path} is damaged or not the history of a run; {remedy}.")
    return columns
