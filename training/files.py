"""What runs write, JSON, arrays and tables, each whole or not at all; and how they read it again, with suspicion."""

import contextlib
import csv
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from hub.errors import DataError, StorageError, first_line
from hub.files import storage, write_aside

# What np.load raises: zipfile's (RuntimeError of what it cannot unpack), of an array's header, of another kind of file.
DAMAGE = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, TypeError)


class DamagedError(DataError):
    """A file of a run that is cut short, empty, or not what its name says."""


def read_json(path: Path, remedy: str) -> dict:
    """The object in a JSON file.

    Args:
        remedy: how the sentence of a refusal ends.

    Raises:
        DamagedError: it holds no object. StorageError: it is missing or cannot be read.
    """
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({first_line(error)}); {remedy}.") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is damaged (it is not a JSON object); {remedy}.")
    return content


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by their names.

    Args:
        remedy: how the sentence of a refusal ends.

    Raises:
        DamagedError: it is no such file. StorageError: it is missing or cannot be read.
    """
    try:
        with np.load(io.BytesIO(_bytes(path))) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGE as error:
        raise DamagedError(f"{path} is damaged ({first_line(error)}); {remedy}.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({(error.strerror or str(error)).lower()}); check the file and who may read it."
        ) from error


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
def exclusive(path: Path, busy: str | None = None) -> Iterator[None]:
    """Let one process at a time make what several would put at `path`; the others wait, and then find it there.

    Args:
        busy: a sentence with which the others are refused in place of waiting.

    Raises:
        DataError: another process is at it. StorageError: its folder cannot be written to.
    """
    path = path.resolve()
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=-1 if busy is None else 0)
        except Timeout as error:
            raise DataError(busy) from error
    try:
        yield
    finally:
        lock.release()
