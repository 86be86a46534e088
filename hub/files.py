"""Writing so that a half-written file never looks whole: aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from hub.errors import StorageError


def write_aside(path: Path, write: Callable[[BinaryIO], object]) -> None:
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


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
