"""What a visit leaves on the disk and in memory: it goes when the visit is over, old, or too much."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder
from pydantic import ValidationError

LEAVE_AFTER = 30  # seconds without a heartbeat, then a visit is over; a phone that changes its cell is back by then
QUOTA = 2 * 10**9  # bytes of uploads on the disk; three times what one visitor can send at once
SPARE = 200 * 10**6  # bytes of the disk that uploads leave to everybody else
UNFINISHED = 660  # seconds; a file younger than that may still be arriving

_visit: ContextVar[str | None] = ContextVar("visit", default=None)  # the session whose event is handled
_owners: dict[Path, set[str]] = defaultdict(set)  # the sessions that use a file; the same bytes lie there once
_owners_lock = threading.Lock()
_pages: weakref.WeakSet[gr.Blocks] = weakref.WeakSet()  # whose own files, for everybody to download, lie there as well


def remember(path: Path) -> None:
    """Note that the visit whose event is handled uses a file, so that it goes with that visit."""
    if session := _visit.get():
        with _owners_lock:
            _owners[path].add(session)


class Visits:
    """Forgets a visit when it is over: its uploads, what was made of them, and its state in memory.

    The page in a browser keeps a request open, its heartbeat. Gradio itself keeps a closed visit's state for an hour
    and its files until they are old.
    """

    def __init__(self, page: gr.Blocks, check: Callable[[str], object]):
        """Note from now on which visit uses which file; `check` refuses those that an event may not name."""
        self.page = page
        _pages.add(page)
        self.sessions = None  # Gradio's own, once it is mounted
        self._open: Counter[str] = Counter()
        self._over: dict[str, asyncio.TimerHandle] = {}
        handle = page.process_api

        async def process_api(block_fn, inputs, *arguments, session_hash: str | None = None, **options):
            _visit.set(session_hash)
            for path in _paths_in(inputs):
                check(path)
            try:
                output = await handle(block_fn, inputs, *arguments, session_hash=session_hash, **options)
            except ValidationError:  # of what stands where a file should
                raise gr.Error("The page does not understand this request.", print_exception=False) from None
            for path in _paths_in(output.get("data")):
                if Path(path).is_relative_to(get_upload_folder()):
                    remember(Path(path).resolve())
            return output

        page.process_api = process_api

    @asynccontextmanager
    async def heartbeat(self, path: str) -> AsyncIterator[None]:
        """Take a visit as open while the block runs, if `path` is that of a heartbeat."""
        session = path.removeprefix("/gradio_api/heartbeat/")
        if session == path:
            yield
            return
        if handle := self._over.pop(session, None):
            handle.cancel()
        self._open[session] += 1
        try:
            yield
        finally:
            self._open[session] -= 1
            if not self._open[session]:
                del self._open[session]
                loop = asyncio.get_running_loop()
                self._over[session] = loop.call_later(LEAVE_AFTER, self._end, session)

    def _end(self, session: str) -> None:
        self._over.pop(session, None)
        asyncio.get_running_loop().run_in_executor(None, self.forget, session)

    def forget(self, session: str) -> None:
        """Delete what belongs to a visit alone."""
        own = _own()
        with _owners_lock:
            for path in [path for path, owners in _owners.items() if session in owners]:
                _owners[path].discard(session)
                if not _owners[path]:
                    del _owners[path]
                    if path in own:  # named by a request, all the same
                        continue
                    _delete(path)
                    for known in self.page.temp_file_sets:
                        known.discard(str(path))
        if self.sessions:
            self.sessions.delete_state(session)
            self.sessions.session_data.pop(session, None)
            self.sessions.time_last_used.pop(session, None)


def _paths_in(data) -> Iterator[str]:
    """Yield the paths of all files that an event's inputs or outputs name, wherever they stand."""
    waiting = [data]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(path := part.get("path"), str):
                yield path
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def _delete(path: Path) -> None:
    """Delete a file of the upload folder; its folder, named after its bytes, may be another visitor's just now."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the next ones shall be deleted all the same
        logging.getLogger(__name__).exception("An upload could not be deleted")


def make_room(expected: int) -> bool:
    """Delete the oldest uploads until `expected` bytes more fit into the quota and on the disk; tell if they do."""
    folder = Path(get_upload_folder())
    found = _uploads(folder)
    used = sum(size for _, size, _ in found)
    with contextlib.suppress(FileNotFoundError):
        quota = min(QUOTA, used + shutil.disk_usage(folder).free - SPARE)
        for _, size, path in sorted(found):
            if used + expected <= quota:
                break
            _delete(path)
            used -= size
        return used + expected <= quota
    return True  # Gradio makes the folder with the first upload


def _uploads(folder: Path) -> list[tuple[float, int, Path]]:
    """Return time, bytes and path of each file in the upload folder, but for the page's own and what is arriving."""
    folder, own, found = folder.resolve(), _own(), []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            status = path.lstat()
            arrived = path.parent != folder or status.st_mtime < time.time() - UNFINISHED
            if path.is_file() and arrived and path not in own:
                found.append((status.st_mtime, status.st_size, path))
    return found


def is_offered(path: Path) -> bool:
    """Tell whether a file (its real path) is one of the page's own, for everybody to download, and no upload."""
    return path in _own()


def _own() -> set[Path]:
    return {Path(path).resolve() for page in _pages for block in page.blocks.values() for path in block.keep_in_cache}


def sweep(age: float) -> None:
    """Delete whatever lies in the upload folder for longer than `age` seconds, known to Gradio or not.

    Gradio's own `delete_cache` does not know what a client left behind that went away in the middle of an upload.
    """
    for modified, _, path in _uploads(Path(get_upload_folder())):
        if modified < time.time() - age:
            _delete(path)
    for path in Path(get_upload_folder()).glob("*/"):
        with contextlib.suppress(OSError):  # not empty
            if path.stat().st_mtime < time.time() - age:
                path.rmdir()
    with _owners_lock:
        for path in [path for path in _owners if not path.exists()]:
            del _owners[path]


def sweep_until(stop: threading.Event, every: float, age: float) -> None:
    """Sweep every so many seconds, until told to stop."""
    while not stop.wait(every):
        sweep(age)
