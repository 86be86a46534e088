"""Writing so that a half-written file never looks whole: aside, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
def folder_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `folder` when the block ends well, and only then.

    It lies beside `folder`, in .NAME.part-xxxx, so that the last step is a rename; what was at `folder` goes with it.
    If the block raises, an older `folder` is as it was. If the process is killed, the next call for the same `folder`
    clears up: it deletes what was half written, and puts an older `folder` back that was just being replaced.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    from filelock import FileLock

    folder = Path(folder).resolve()
    with storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(folder)
        aside = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent))
        new, old, lock = aside / "new", aside / "old", FileLock(aside / "lock")
        try:
            with lock:  # tells others that this process still lives
                new.mkdir()  # not `aside` itself, which only its owner may read
                yield new
                _flush(new)
                _swap(new, folder, old)
        finally:
            if folder.exists() or not old.exists():
                shutil.rmtree(aside, ignore_errors=True)


def _prefix(folder: Path) -> str:
    return f".{folder.name}.part-"


def _clear_up(folder: Path) -> None:
    """Remove what killed processes have left beside `folder`; what a living one is at, or a stranger's, stays."""
    from filelock import FileLock, Timeout

    for aside in [path for path in folder.parent.iterdir() if path.name.startswith(_prefix(folder))]:
        names = {path.name for path in aside.iterdir()} if aside.is_dir() and not aside.is_symlink() else set()
        if "lock" not in names or names - {"lock", "new", "old"}:
            continue
        with contextlib.suppress(Timeout), FileLock(aside / "lock", timeout=0):
            if (aside / "old").exists() and not folder.exists():
                (aside / "old").rename(folder)
            shutil.rmtree(aside, ignore_errors=True)


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `new` to `folder`, what was there to `old`; undo where the second step fails."""
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


def _flush(folder: Path) -> None:
    """Have every file on the disk before the rename makes them whole, should the power fail."""

    def flush(path: Path) -> None:
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    with ThreadPoolExecutor(16) as pool:  # the disk takes many at once in little more time than one
        list(pool.map(flush, (path for path in folder.rglob("*") if path.is_file())))


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
