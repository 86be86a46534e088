"""What runs write: JSON, arrays and tables, each whole or not at all."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from hub.files import storage, write_aside


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_aside(
        path,
        lambda file: file.write((json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()),
    )


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one uncompressed .npz, whole or not at all."""
    write_aside(path, lambda file: np.savez(file, **arrays))


def write_rows(path: Path, rows: list[dict], columns: list[str]) -> None:
    """Write `rows` as CSV with a header, whole or not at all."""

    def write(file: BinaryIO) -> None:
        lines: list[str] = []
        writer = csv.DictWriter(type("Lines", (), {"write": staticmethod(lines.append)}), columns)
        writer.writeheader()
        writer.writerows(rows)
        file.write("".join(lines).encode())

    write_aside(path, write)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time make what several would put at `path`; the others wait, and then find it there.

    Raises:
        StorageError: its folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
