"""What a visitor may send, and what the server may do about it: read uploads, fetch nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder

from hub import StorageError
from space import visits

MAX_FILE_SIZE = 32 * 2**20  # bytes of a picture; a 64-megapixel JPEG of a phone has about 25 MB
MAX_WAITING = 32  # pictures in the queue; the next visitor is told to come back
SESSIONS = 200  # answers held in memory, about 0.4 MB each
DELETE_EVERY, DELETE_AFTER = 600, 1800  # seconds; so no picture is kept for an hour


def photo(**options) -> gr.Image:
    """Return an image component that hands over the path of an uploaded file, exactly as it was uploaded.

    gr.Image would decode the file itself, re-encode it, follow `data:` addresses in the request, and let a request
    without `meta` name any file of this machine. The component's own `preprocess` is replaced, because Gradio
    writes a stub file beside the source of every subclass; so no event may answer with a gr.update of it, for
    which Gradio would make an ordinary gr.Image in its place.
    """
    component = gr.Image(type="filepath", **options)
    component.preprocess = _path
    return component


def _path(payload) -> str | None:
    """Return the path of the uploaded file; it is all that is used of a request."""
    if payload is None:
        return None
    path = uploaded(payload.path)
    if path.stat().st_size > MAX_FILE_SIZE:
        sentence = f"The picture is larger than {MAX_FILE_SIZE // 2**20} MB; make it smaller and try again."
        raise gr.Error(sentence, print_exception=False)
    return str(path)


def files(**options) -> gr.File:
    """Return a component for many files that hands over [(path, name)], or None where there are none.

    Each path is that of an uploaded file, as for `photo`; each name what the visitor's browser called the file.
    """
    component = gr.File(file_count="multiple", **options)
    component.preprocess = _paths
    return component


def _paths(payload) -> list[tuple[Path, str]] | None:
    """Return the paths of the uploaded files and their names, from which a browser's folders are taken off."""
    if payload is None:
        return None
    return [(uploaded(file.path), _last_part(file.orig_name) or Path(file.path).name) for file in payload.root]


def _last_part(name: str | None) -> str:
    return (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]


def uploaded(path: str | None) -> Path:
    """Return the real path of an uploaded file.

    Raises:
        gr.Error: the path leads out of Gradio's upload folder, to no file, or to one that the page itself offers.
    """
    folder = Path(get_upload_folder()).resolve()
    try:
        real = Path(path or "").resolve()
        allowed = real.is_relative_to(folder) and real.is_file()
    except (OSError, ValueError):  # too long, or a null byte
        allowed = False
    if not allowed or visits.is_offered(real):
        raise gr.Error("This picture is no longer here; upload it again.", print_exception=False)
    visits.remember(real)
    return real


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Keep uploads in a folder of this process alone, and delete it at the end.

    Gradio's default is one folder in /tmp for every app of the machine, whose files each app would serve.

    Raises:
        StorageError: there is no place for it.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="uploads-", ignore_cleanup_errors=True)
    except OSError as error:
        remedy = "free space, or name a folder that can be written to in TMPDIR"
        raise StorageError(f"No folder can be made for uploads ({error.strerror or error}); {remedy}.") from error
    with made as folder:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = folder
        stop = threading.Event()
        threading.Thread(target=visits.sweep_until, args=(stop, DELETE_EVERY, DELETE_AFTER), daemon=True).start()
        try:
            yield Path(folder)
        finally:
            stop.set()
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # as in malloc.h


def return_memory() -> None:
    """Have the C library give the memory of a decoded picture back to the system at once (Linux with glibc).

    By default it keeps an arena for each of Gradio's forty threads, and after the first large block that is freed it
    keeps the next ones too.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 2**20), (M_TRIM_THRESHOLD, 2**20)):
            mallopt(parameter, value)


def stay_home() -> None:
    """Take from Gradio the two doors through which a request can make it fetch a web address.

    A file whose path is an address is downloaded, and /file=ADDRESS passed on: both through safehttpx.
    """
    processing_utils.sh.get = processing_utils.sh.async_validate_url = _refuse_errand


async def _refuse_errand(*_arguments, **_options):
    raise gr.Error("Web addresses are not fetched; download the picture and upload it.", print_exception=False)
