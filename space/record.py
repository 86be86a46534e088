"""The record of the model that is served: fetched for a model of the Hub, and the photos behind it."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path

from hub import ImageClassifier, ImageError
from hub.batch import SUFFIXES
from hub.errors import DataError, Refusal
from hub.images import open_image, pixel_hash
from space.work import WORK, is_large


@functools.lru_cache(maxsize=4)
def fetch(classifier: ImageClassifier) -> str | None:
    """Bring what is known of a Hub model into its folder, once; return the sentence that says why it failed."""
    try:
        classifier.fetch_record()
    except Refusal as error:
        return str(error)
    return None


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
            name = WORK.run("photos", _hash, path, alone=is_large(path))
        except ImageError:
            return  # no photo of the record
        if name in self._wanted:
            self._found.setdefault(name, path)


def _hash(path: Path) -> str:
    return pixel_hash(open_image(path))
