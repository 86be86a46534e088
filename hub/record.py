"""predictions.parquet: what a model answered for every picture that was held out. Written by training, read by anyone.

`Predictions` is such a record whole. `Record` reads one with bounds, split by split, for a page that shows models of
strangers: the answers at once, the evidence when the first map is asked for.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hub.bundle import METRICS, PREDICTIONS
from hub.errors import BundleError, Refusal
from hub.metrics import Metrics, SplitScores, read_metrics

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MOST_BYTES = 256 * 2**20  # of the file
MOST_VALUES = 16_000_000  # float32 of one column in memory: 64 MB
MOST_ROWS = 1_000_000  # a hash of 64 characters each in memory: 256 MB
LONGEST = 200  # bytes of a hash or of a split's name
SPLITS = ("test", "validation", "train")  # the data set's own; every other name is of photos from elsewhere


class NoRecord(BundleError):
    """The bundle keeps no predictions."""


# ---- the record, whole


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

    def take(self, rows: np.ndarray) -> Predictions:
        """The pictures at these rows (indices or a mask), in that order."""
        evidence = None if self.evidence is None else self.evidence[rows]
        hashes, splits, labels = self.hashes[rows], self.splits[rows], self.labels[rows]
        return Predictions(hashes, splits, labels, self.logits[rows], evidence, self.label_names)

    def subset(self, split: str) -> Predictions:
        """The pictures of one split."""
        return self.take(self.splits == split)


def predictions_table(predictions: Predictions | Iterable[Predictions]) -> pa.Table:
    """The table that a bundle keeps as predictions.parquet; several sets (validation, test) become one table.

    Columns hash, split, label, logits (K), evidence (h·w·K, row-major; null of a model without a map); the
    schema's metadata names the labels and the grid, so that the file can be read with nothing beside it.
    """
    import pyarrow as pa

    def rows(arrays: list[np.ndarray]) -> pa.ListArray:
        flat = np.concatenate([np.asarray(a, np.float32).reshape(len(a), -1) for a in arrays])
        starts = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
        return pa.ListArray.from_arrays(starts, pa.array(flat.ravel()))

    parts = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    first = parts[0]
    maps = [part.evidence for part in parts if part.evidence is not None]
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
        "logits": rows([part.logits for part in parts]),
        "evidence": rows(maps) if grid else [None] * sum(map(len, parts)),
    }
    return pa.table(columns, schema=schema)


def read_predictions(bundle: str | os.PathLike) -> Predictions:
    """The record of a bundle folder (or the parquet file itself).

    Raises:
        NoRecord: there is none. BundleError: the file is not such a table.
    """
    path = Path(bundle)
    path = path / PREDICTIONS if path.is_dir() else path
    if not path.is_file():
        raise NoRecord(
            f"There is no {path}, the record of held-out pictures; save the bundle again with its predictions."
        )
    with _opened(path) as file:
        names, grid = _notes(file, path)
        hashes, splits, labels = _texts_and_labels(file, path, len(names))
        logits = _matrix(file, path, "logits", len(names))
        evidence = _matrix(file, path, "evidence", *grid, len(names)) if grid else None
    return Predictions(hashes, splits, labels, logits, evidence, names)


# ---- the record, split by split and within bounds


@dataclass(frozen=True, eq=False)
class Split:
    """The answers for one set of pictures."""

    name: str
    rows: np.ndarray  # (N,) where they stand in the file
    hashes: np.ndarray  # (N,) str, hub.images.pixel_hash
    truth: np.ndarray  # (N,) int64
    logits: np.ndarray  # (N, K) float32
    claimed: SplitScores  # its block of metrics.json

    def __len__(self) -> int:
        return len(self.truth)

    def score(self, name: str) -> tuple[float, float | None, float | None] | None:
        """Return a score of metrics.json with the ends of its interval; None where it does not give it."""
        found = self.claimed.score(name)
        return None if found.value is None else (found.value, *(found.ends or (None, None)))

    @property
    def level(self) -> float | None:
        """The share of resamples that the intervals hold, where metrics.json says so."""
        level = self.claimed.bootstrap.level if self.claimed.bootstrap else None
        return level if level is not None and 0 < level < 1 else None


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
            self.labels, self.grid = _notes(file, self._path)
            if file.metadata.num_rows > MOST_ROWS:
                raise BundleError(f"{PREDICTIONS} holds more photos than can be shown here; evaluate on fewer photos.")
            _demand_small(file, "logits")
            hashes, names, truth = _texts_and_labels(file, self._path, len(self.labels))
            logits = _matrix(file, self._path, "logits", len(self.labels))
        order = sorted(dict.fromkeys(names.tolist()), key=_place)
        chosen = {name: np.flatnonzero(names == name) for name in order}
        self.splits = MappingProxyType({
            name: Split(name, rows, hashes[rows], truth[rows], logits[rows], metrics.split(name) or SplitScores())
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
                    _demand_small(file, "evidence")
                    self._evidence = _matrix(file, self._path, "evidence", *self.grid, len(self.labels))
        return self._evidence[rows]


def _demand_small(file: pq.ParquetFile, column: str) -> None:
    """Refuse a column that would not fit beside the rest of the page; the file says how much it is."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    parts = [group.column(index) for group in groups for index in range(group.num_columns)]
    if sum(part.num_values for part in parts if part.path_in_schema.split(".")[0] == column) > MOST_VALUES:
        raise BundleError(f"{PREDICTIONS} holds more {column} than can be shown here; evaluate on fewer photos.")


def _place(name: str) -> tuple[int, str]:
    """The test split first, then photos from elsewhere, then what training has used."""
    return ({"test": 0, "validation": 2, "train": 3}.get(name, 1), name)


def _metrics(folder: Path) -> Metrics:
    """What metrics.json says, nothing where there is none.

    Raises:
        BundleError: it is no JSON object; without the folder, which is nobody's business.
    """
    if not (folder / METRICS).is_file():
        return Metrics()
    try:
        return read_metrics(folder)
    except Refusal as error:
        raise BundleError(f"{METRICS} cannot be read; save the model again.") from error


# ---- the file, read with suspicion


def _strange(path: Path, what: str) -> BundleError:
    """Without the folder, which is nobody's business on a page."""
    return BundleError(f"{path.name} is not a record of predictions ({what}); save the model again.")


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open the file; whatever pyarrow raises in the block on a strange one becomes one sentence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, read_dictionary=["hash", "split"]) as file:
            yield file
    except (pa.ArrowException, OSError) as error:  # a broken file is either to pyarrow
        raise _strange(path, type(error).__name__) from error
    finally:
        pa.default_memory_pool().release_unused()  # about 20 MB that it would keep for the next file


def _notes(file: pq.ParquetFile, path: Path) -> tuple[list[str], list[int] | None]:
    """The labels and the grid (h, w), None of a model without a map, as the schema's metadata names them."""
    notes = file.schema_arrow.metadata or {}
    try:
        labels, grid = json.loads(notes[b"labels"]), json.loads(notes[b"grid"])
    except (KeyError, ValueError, RecursionError) as error:
        raise _strange(path, "it does not name its labels and its grid") from error
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(name, str) for name in labels):
        raise _strange(path, "it does not name at least two labels")
    cells = isinstance(grid, list) and len(grid) == 2 and all(type(side) is int and side > 0 for side in grid)
    if not (grid is None or cells):
        raise _strange(path, "its grid is not two numbers of cells")
    return labels, grid


def _texts_and_labels(file: pq.ParquetFile, path: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hashes, the splits' names and the true labels, (N,) each."""
    import pyarrow as pa

    table = _columns(file, path, "hash", "split", "label")
    if not len(table) or not pa.types.is_integer(table.schema.field("label").type):
        raise _strange(path, "it has no pictures, or labels that are not numbers")
    labels = table["label"].to_numpy().astype(np.int64)
    if labels.min() < 0 or labels.max() >= count:
        raise _strange(path, "it has a label number that it does not name")
    return _texts(table["hash"], path), _texts(table["split"], path), labels


def _texts(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Return a column of text, read as dictionaries: NumPy gives every row the room of the longest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_dictionary(kind) and (pa.types.is_string(kind.value_type))):
        raise _strange(path, "its hashes and splits are not texts")
    if any((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0) > LONGEST for chunk in column.chunks):
        raise _strange(path, "a hash or a split's name is too long")
    return np.array(column.to_pylist(), dtype=str)


def _matrix(file: pq.ParquetFile, path: Path, column: str, *shape: int) -> np.ndarray:
    """A column of lists of numbers as (N, *shape) float32."""
    import pyarrow as pa

    lists = _columns(file, path, column)[column].combine_chunks()
    if not (pa.types.is_list(lists.type) and pa.types.is_floating(lists.type.value_type)):
        raise _strange(path, f"its {column} are not lists of numbers")
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if values.size != len(lists) * math.prod(shape) or not np.isfinite(values).all():
        raise _strange(path, f"its {column} do not fit its labels, or are not finite")
    return values.reshape(len(lists), *shape)


def _columns(file: pq.ParquetFile, path: Path, *names: str) -> pa.Table:
    """Some columns, whole and without gaps."""
    missing = [name for name in names if name not in file.schema_arrow.names]
    if missing:
        raise _strange(path, f"it has no column {missing[0]}")
    table = file.read(columns=list(names), use_threads=False)
    table.validate(full=True)  # texts that are no UTF-8, lists that lead beyond their values
    if any(column.null_count for column in table.columns):
        raise _strange(path, "it has gaps")
    return table
