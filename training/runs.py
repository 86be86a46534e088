"""A run's folder as it is read again: settings, history, scores, and the record of held-out pictures."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hub import bundle as bundle_files
from hub.errors import DataError
from hub.record import Predictions, read_predictions
from training.results.bootstrap import point_scores, scores_of
from training.results.figures import read_history
from training.settings import DEFAULTS, OF_BACKBONES, OF_NETWORKS

SEEDS = re.compile(r"seed-\d+")  # the folders that `fit --seeds` makes within the one it is given
HELD_OUT = ("test", "validation")  # splits that a record may have, the one to speak of first


@dataclass(frozen=True)
class Run:
    """What a finished fit has left in its folder."""

    folder: Path
    record: dict  # settings.json
    history: dict[str, np.ndarray]  # columns of history.csv, a value an epoch
    config: dict  # of the bundle
    metrics: dict  # of the bundle
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
    def training(self) -> dict:
        """What metrics.json says of the training."""
        return self.metrics.get("training") or {}

    @property
    def recipe(self) -> str:
        """The recipe's name, as far as it is recorded."""
        return str(self.training.get("recipe") or "unknown")

    @property
    def settings(self) -> dict:
        """The recipe's settings; knobs that are newer than the run have the value that then held."""
        own = self.record.get("settings") or {}
        return {**DEFAULTS, **(OF_BACKBONES if "backbone" in own else OF_NETWORKS), **own}

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

    def scores(self, split: str) -> dict:
        """The split's scores with intervals: the bundle's, or computed where those are not of its record."""
        known, found = self.metrics.get(split) or {}, self.predictions.subset(split)
        value = (known.get("accuracy") or {}).get("value")
        same = value is not None and abs(value - point_scores(found.labels, found.logits)["accuracy"]) < 1e-9
        return known if same and known.get("photos") == len(found) else scores_of(found)


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
        DataError: it is no such folder, or the run has not ended. BundleError: its bundle is damaged.
    """
    folder = Path(folder)
    path = folder / "settings.json"
    if not path.is_file():
        raise DataError(f"{folder} is not a run: it has no settings.json; name a folder that a fit has made.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read; name a folder that a fit has made.") from error
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise DataError(f"{path} holds no settings of a run; name a folder that a fit has made.")
    if not (folder / "bundle").is_dir():
        raise DataError(f"{folder} has no bundle yet; run its fit command again to finish it.")
    config = bundle_files.read_json(folder / "bundle", bundle_files.CONFIG)
    return Run(
        folder=folder,
        record=record,
        history=read_history(folder / "history.csv"),
        config=bundle_files.check_config(config, f"The config.json of {folder / 'bundle'}"),
        metrics=bundle_files.read_json(folder / "bundle", bundle_files.METRICS),
        predictions=read_predictions(folder / "bundle"),
    )


def kept_row(history: dict[str, np.ndarray]) -> int:
    """The row of a history whose weights a fit keeps; the last where no validation loss is known."""
    for column in ("validation_calibrated_loss", "validation_loss"):
        values = history.get(column)
        if values is not None and np.isfinite(values).any():
            return int(np.nanargmin(values))
    return len(history["epoch"]) - 1
