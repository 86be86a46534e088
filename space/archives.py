"""Pictures out of a zip that a visitor sent, without ever unpacking it to a name from inside.

Nothing a zip says of itself is believed: its list of files is read up to a size, each picture up to a size, and all
of them together up to what the visit may still unpack, counted while they are read.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

from hub.batch import OTHER_PICTURES, SUFFIXES
from hub.errors import ImageError, printable
from space.guards import MAX_FILE_SIZE

ENTRY = MAX_FILE_SIZE  # bytes of one unpacked picture; as much as may be uploaded by itself
UNPACKED = 600 * 10**6  # bytes of all pictures of a visit's zips; two seconds' work
CHUNK = 2**20  # bytes that are unpacked before they are counted
LISTED = 2 * 2**20  # bytes of a zip's list of files: some 20,000 names
NAME = 1000  # characters of a name that are shown
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack as much as they like at once
LITTER = {"thumbs.db", "desktop.ini"}  # with what is hidden and __MACOSX, left by systems, not by people
ENCRYPTED = 0x1  # bit 0 of the flags (APPNOTE.TXT, 4.4.4)


@dataclass
class Allowance:
    """What may still be unpacked, in bytes; shared by all zips of a visit and by all threads."""

    left: int = UNPACKED
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, size: int) -> bool:
        """Count bytes that were unpacked; return whether they were still allowed."""
        with self._lock:
            self.left -= size
            return self.left >= 0


class Archive:
    """A zip's pictures.

    pictures    what to answer, in the zip's order: (name to show, entry)
    skipped     names of files that are no pictures
    """

    def __init__(self, path: Path, name: str):
        """Read the list of what is in the zip that the visitor calls `name`.

        Raises:
            ImageError: it is no zip, broken, or lists too much.
        """
        self._file = open(path, "rb")  # noqa: SIM115
        listing = _Listing(self._file)
        try:
            self._zip = zipfile.ZipFile(listing)
        except _TooLong:
            self._file.close()
            raise ImageError(
                f"{printable(name, NAME)} lists too many files; send its pictures in smaller zips."
            ) from None
        except Exception as error:  # zipfile raises almost anything on damaged data
            self._file.close()
            problem = "is broken or no zip and cannot be opened; make it again, or send the pictures themselves."
            raise ImageError(f"{printable(name, NAME)} {problem}") from error
        listing.most = ENTRY  # what follows is read in chunks
        self.pictures: list[tuple[str, ZipInfo]] = []
        self.skipped: list[str] = []
        for entry in self._zip.infolist():
            self._sort(entry)
        self._zip.filelist, self._zip.NameToInfo = [], {}  # else every entry stays as long as the file is open

    def _sort(self, entry: ZipInfo) -> None:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if entry.is_dir() or _litter(path):
            return
        # Pictures that are not read are among them: people expect a line on them, not that they vanish.
        if path.suffix.lower() in SUFFIXES | OTHER_PICTURES.keys() | {".zip"}:
            self.pictures.append((printable(entry.filename, NAME), entry))
        else:
            self.skipped.append(printable(entry.filename, NAME))

    def read(self, entry: ZipInfo, allowance: Allowance) -> bytes:
        """Return a picture's file; safe in several threads.

        Raises:
            ImageError: one sentence that names the file and the remedy.
        """
        name = printable(PurePosixPath(entry.filename.replace("\\", "/")).name, NAME)
        refuse = _refusal_of(name)
        if name.lower().endswith(".zip"):
            raise refuse("is a zip inside a zip; send it by itself")
        if entry.flag_bits & ENCRYPTED:
            raise refuse("is encrypted; make the zip without a password")
        if entry.compress_type not in METHODS:
            raise refuse("is packed in a way that is not read; make the zip with the usual method, Deflate")
        beyond = f"is beyond the {UNPACKED // 10**6} MB that are unpacked; send it in another zip"
        if not allowance.take(0):
            raise refuse(beyond)
        content = bytearray()
        try:
            with self._zip.open(entry) as file:
                while chunk := file.read(CHUNK):
                    if not allowance.take(len(chunk)):
                        raise refuse(beyond)
                    content += chunk
                    if len(content) > ENTRY:
                        raise refuse(f"is larger than {ENTRY // 2**20} MB; make it smaller and try again")
        except ImageError:
            raise
        except Exception as error:  # see above
            raise refuse("is damaged inside the zip; make the zip again") from error
        return bytes(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _refusal_of(name: str) -> Callable[[str], ImageError]:
    return lambda problem: ImageError(f"{name} {problem}.")


def _litter(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") and part.strip(".") for part in path.parts)
    return hidden or "__MACOSX" in path.parts or path.name.lower() in LITTER


class _TooLong(Exception):
    pass


class _Listing(io.RawIOBase):
    """A file that gives no more than `most` bytes at once: zipfile reads a zip's list in one go, however long."""

    def __init__(self, file: io.BufferedReader):
        self._file, self.most = file, LISTED
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        whole = size is None or size < 0
        data = self._file.read(self.most + 1 if whole else min(size, self.most + 1))
        if len(data) > self.most:
            raise _TooLong
        return data
