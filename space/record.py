"""What a bundle says of itself: predictions.parquet and metrics.json, read with suspicion, and the photos behind them.

The answers are small and read at once; the evidence is read when the first map is asked for.
"""

from __future__ import annotations

import functools
import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hub import BundleError, ImageClassifier, ImageError
from hub.batch import SUFFIXES
from hub.bundle import METRICS, PREDICTIONS, read_json
from hub.errors import DataError
from hub.images import open_image, pixel_hash

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MOST_BYTES = 256 * 2**20  # of the file
MOST_VALUES = 16_000_000  # float32 of one column in memory: 64 MB
MOST_ROWS = 1_000_000  # a hash of 64 characters each in memory: 256 MB
LONGEST = 200  # bytes of a hash or of a split's name
SPLITS = ("test", "validation", "train")  # the data set's own; every other name is of photos from elsewhere


class NoRecord(BundleError):
    """The bundle keeps no predictions."""


@functools.lru_cache(maxsize=4)
def fetch(classifier: ImageClassifier) -> str | None:
    """Bring what is known of a Hub model into its folder, once; return the sentence that says why it failed."""
    try:
        classifier.fetch_record()
    except (ValueError, OSError) as error:  # the classes of hub.errors
        return str(error)
    return None


@dataclass(frozen=True, eq=False)
class Split:
    """The answers for one set of pictures."""

    name: str
    rows: np.ndarray  # (N,) where they stand in the file
    hashes: np.ndarray  # (N,) str, hub.images.pixel_hash
    truth: np.ndarray  # (N,) int64
    logits: np.ndarray  # (N, K) float32
    claimed: dict[str, Any]  # its block of metrics.json; {} where there is none

    def __len__(self) -> int:
        return len(self.truth)

    def score(self, name: str) -> tuple[float, float | None, float | None] | None:
        """Return a score of metrics.json with the ends of its interval; None where it does not stand there."""
        entry = self.claimed.get(name)
        if not isinstance(entry, dict) or (value := _number(entry.get("value"))) is None:
            return None
        low, high = _number(entry.get("low")), _number(entry.get("high"))
        return (value, None, None) if low is None or high is None else (value, low, high)

    @property
    def level(self) -> float | None:
        """The share of resamples that the intervals hold, where metrics.json says so."""
        bootstrap = self.claimed.get("bootstrap")
        level = _number(bootstrap.get("level")) if isinstance(bootstrap, dict) else None
        return level if level is not None and 0 < level < 1 else None


def _number(value: object) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else None


class Record:
    """predictions.parquet of a bundle's folder, split by split.

    Raises:
        NoRecord: there is none.
        BundleError: it, or metrics.json, is not what this project writes, or too large to be shown.
    """

    def __init__(self, folder: Path):
        """Read the answers, not yet the evidence."""
        self._path = folder / PREDICTIONS
        if not self._path.is_file():
            raise NoRecord(f"There is no {PREDICTIONS}; save the model again with its predictions.")
        if self._path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{PREDICTIONS} is larger than {MOST_BYTES / 2**20:.0f} MB; evaluate on fewer photos.")
        self._evidence: np.ndarray | None = None
        self._lock = threading.Lock()
        metrics = _metrics(folder)
        with _opened(self._path) as file:
            notes = file.schema_arrow.metadata or {}
            self.labels: list[str] = json.loads(notes[b"labels"])
            self.grid: list[int] | None = json.loads(notes[b"grid"])
            self._check_notes()
            hashes, names, truth, logits = self._columns(file)
        order = sorted(dict.fromkeys(names.tolist()), key=_place)
        chosen = {name: np.flatnonzero(names == name) for name in order}
        self.splits = MappingProxyType({
            name: Split(name, rows, hashes[rows], truth[rows], logits[rows], _claimed(metrics, name))
            for name, rows in chosen.items()
        })  # fmt: skip

    def evidence(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the evidence (n, h, w, K) float32 of some rows of the file; None where it keeps none.

        Raises:
            BundleError: the column does not hold what the file says of it.
        """
        if self.grid is None:
            return None
        with self._lock:
            if self._evidence is None:
                with _opened(self._path) as file:
                    self._evidence = self._matrix(file, "evidence", *self.grid, len(self.labels))
        return self._evidence[rows]

    def _check_notes(self) -> None:
        labels, grid = self.labels, self.grid
        fine = isinstance(labels, list) and len(labels) > 1 and all(isinstance(name, str) for name in labels)
        cells = isinstance(grid, list) and len(grid) == 2 and all(type(side) is int and side > 0 for side in grid)
        if not fine or not (grid is None or cells):
            raise ValueError("labels or grid")

    def _columns(self, file: pq.ParquetFile) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if file.metadata.num_rows > MOST_ROWS:
            raise BundleError(f"{PREDICTIONS} holds more photos than can be shown here; evaluate on fewer photos.")
        _demand_small(file, "logits")
        table = file.read(columns=["hash", "split", "label"], use_threads=False)
        truth = table["label"].to_numpy().astype(np.int64)
        if not len(truth) or truth.min() < 0 or truth.max() >= len(self.labels):
            raise ValueError("label")
        logits = self._matrix(file, "logits", len(self.labels))
        return _texts(table["hash"]), _texts(table["split"]), truth, logits

    def _matrix(self, file: pq.ParquetFile, column: str, *shape: int) -> np.ndarray:
        _demand_small(file, column)
        values = file.read(columns=[column], use_threads=False)[column].combine_chunks().flatten()
        matrix = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(file.metadata.num_rows, *shape)
        if not np.isfinite(matrix).all():
            raise ValueError(column)
        return matrix


def _texts(column: Any) -> np.ndarray:
    """Return a column of text, read as dictionaries: NumPy gives every row the room of the longest."""
    import pyarrow.compute as pc

    if any((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0) > LONGEST for chunk in column.chunks):
        raise ValueError("a text is too long")
    return np.array(column.to_pylist(), dtype=str)


def _demand_small(file: pq.ParquetFile, column: str) -> None:
    """Refuse a column that would not fit beside the rest of the page; the file says how much it is."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    parts = [group.column(index) for group in groups for index in range(group.num_columns)]
    if sum(part.num_values for part in parts if part.path_in_schema.split(".")[0] == column) > MOST_VALUES:
        raise BundleError(f"{PREDICTIONS} holds more {column} than can be shown here; evaluate on fewer photos.")


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open the file; whatever pyarrow and NumPy raise on a strange one becomes one sentence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    strange = (pa.ArrowException, KeyError, ValueError, TypeError, AttributeError, OSError, RecursionError)
    try:
        with pq.ParquetFile(path, read_dictionary=["hash", "split"]) as file:
            yield file
    except BundleError:
        raise
    except strange as error:
        raise BundleError(
            f"{PREDICTIONS} is not a record of predictions ({type(error).__name__}); save the model again."
        ) from error
    finally:
        pa.default_memory_pool().release_unused()  # about 20 MB that it would keep for the next file


def _place(name: str) -> tuple[int, str]:
    """The test split first, then photos from elsewhere, then what training has used."""
    return ({"test": 0, "validation": 2, "train": 3}.get(name, 1), name)


def _metrics(folder: Path) -> dict:
    """metrics.json, {} where there is none.

    Raises:
        BundleError: it is no JSON object; without the folder, which is nobody's business.
    """
    if not (folder / METRICS).is_file():
        return {}
    try:
        return read_json(folder, METRICS)
    except (BundleError, OSError) as error:
        raise BundleError(f"{METRICS} cannot be read; save the model again.") from error


def _claimed(metrics: dict, split: str) -> dict:
    elsewhere = metrics.get("elsewhere")
    block = metrics.get(split) if split in SPLITS else None
    if block is None and isinstance(elsewhere, dict):
        block = elsewhere.get(split)
    return block if isinstance(block, dict) else {}


class Photos:
    """The photos of a record, found in a folder by the hash of their pixels: looked through once, in the background.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: Path, wanted: set[str]):
        """Remember what to look for; nothing is read before `start`."""
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}; check what --photos names.")
        self._folder, self._wanted = folder, frozenset(wanted)
        self._found: dict[str, Path] = {}
        self._begun = threading.Lock()
        self.done = threading.Event()

    def start(self) -> None:
        """Begin to look, the first time this is called."""
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._look, name="photos", daemon=True).start()

    def path(self, name: str) -> Path | None:
        """Return the file that has this pixel hash, as far as is known."""
        return self._found.get(name)

    @property
    def found(self) -> int:
        """How many were found so far."""
        return len(self._found)

    @property
    def wanted(self) -> int:
        """How many photos are looked for."""
        return len(self._wanted)

    def _look(self) -> None:
        try:
            for folder, folders, files in os.walk(self._folder):
                folders.sort()
                for file in sorted(files):
                    if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                        self._try(Path(folder, file))
                    if len(self._found) == len(self._wanted):
                        return
        finally:
            self.done.set()

    def _try(self, path: Path) -> None:
        try:
            name = pixel_hash(open_image(path))
        except ImageError:
            return  # no photo of the record
        if name in self._wanted:
            self._found.setdefault(name, path)
