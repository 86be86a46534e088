"""A zip of pictures as a folder: unpacked once, by its content, and never to a place that a name in it chooses."""

import errno
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from hub.errors import DataError, StorageError
from hub.files import folder_aside, sha256
from training.files import exclusive

MOST_FILES = 2_000_000
MOST_TIMES = 100  # a zip's size, and then some: pictures are packed already, and blank ones are small
SOME = 10**9  # bytes
CHUNK = 2**20
COUNT = ".files"  # holds the number of files that were unpacked
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError,
    FileExistsError, NotADirectoryError, IsADirectoryError,  # a name that is a file and a folder
)  # fmt: skip


def unpacked(path: Path, folder: Path) -> Path:
    """The folder that a zip is unpacked to, in `folder`; a second time it is there already.

    Raises:
        DataError: it is no zip, damaged, encrypted, far larger inside than outside, or has names that lead elsewhere.
        StorageError: it cannot be unpacked there.
    """
    if not zipfile.is_zipfile(path):
        if _starts_as_zip(path):
            raise DataError(f"{path} is a zip that is cut short; make or download it again.")
        raise DataError(f"{path} is a file, but not a zip; unpack it, or give its folder.")
    target = folder / sha256(path)[:32]
    if not _is_whole(target):
        with exclusive(target):
            if not _is_whole(target):
                with folder_aside(target) as aside:
                    _extract(path, aside)
    return target


def _starts_as_zip(path: Path) -> bool:
    """Whether a file begins like a zip; what lists the files in it comes last, so one that is cut short has none."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}).") from error


def _is_whole(target: Path) -> bool:
    """Whether as many files are there as were unpacked."""
    count = target / COUNT
    return count.is_file() and count.read_text(errors="replace") == str(_count(target))


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*") if path.name != COUNT)


def _extract(path: Path, aside: Path) -> None:
    left = MOST_TIMES * path.stat().st_size + SOME
    try:
        with _opened(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MOST_FILES:
                raise DataError(f"{path} holds more than {MOST_FILES:,} files; unpack it and give the folder.")
            for entry in entries:
                name = PurePosixPath(entry.filename.replace("\\", "/"))
                if not name.parts:
                    continue
                if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
                    raise DataError(f"{path} holds a file that leads out of it ({entry.filename!r}); do not use it.")
                if entry.flag_bits & 0x1:
                    raise DataError(f"{path} is encrypted; unpack it with its password and give the folder.")
                place = aside.joinpath(*name.parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(place, "wb") as file:
                    while chunk := source.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise DataError(f"{path} is far larger inside than outside; unpack it and give the folder.")
                        file.write(chunk)
        (aside / COUNT).write_text(str(_count(aside)))
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged and cannot be unpacked ({error}); make or download it again.") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise DataError(f"{path} holds a name too long for this disk; make it again with shorter ones.") from error


def _opened(path: Path) -> zipfile.ZipFile:
    """The zip, with names in UTF-8 where they can be that: macOS writes them so without the mark that says it."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)
