"""Writing so that a half-written file never looks whole: aside, flushed to disk, then renamed."""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hub.errors import StorageError


def write_aside(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Give `path` the content that `write(file)` produces, all of it or none.

    Raises:
        StorageError: the folder cannot be written to or the disk is full; the old file is untouched.
    """
    aside = path.with_name(f".{path.name}.part")
    with storage(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


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
def storage(folder: Path) -> Iterator[None]:
    """Turn what a full disk or a closed folder raises into one sentence (a StorageError)."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".").lower()
        raise StorageError(f"Cannot write to {folder}: {reason}; free some space or choose another folder.") from error
