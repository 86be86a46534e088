"""What a visitor may send, and what the server may do about it: read uploads, fetch nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder

MAX_FILE_SIZE = "32mb"  # a 64-megapixel JPEG of a phone has about 25
MAX_WAITING = 32  # pictures in the queue; the next visitor is told to come back
SESSIONS = 200  # answers held in memory, about 0.2 MB each
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
    return None if payload is None else str(uploaded(payload.path))


def uploaded(path: str | None) -> Path:
    """Return the real path of an uploaded file.

    Raises:
        gr.Error: the path leads out of Gradio's upload folder or to no file.
    """
    try:
        real = Path(path or "").resolve()
        allowed = real.is_relative_to(Path(get_upload_folder()).resolve()) and real.is_file()
    except (OSError, ValueError):  # too long, or a null byte
        allowed = False
    if not allowed:
        raise gr.Error("This picture is no longer here; upload it again.", print_exception=False)
    return real


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Keep uploads in a folder of this process alone, and delete it at the end.

    Gradio's default is one folder in /tmp for every app of the machine, whose files each app would serve.
    """
    with tempfile.TemporaryDirectory(prefix="uploads-", ignore_cleanup_errors=True) as folder:
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def stay_home() -> None:
    """Take from Gradio the two doors through which a request can make it fetch a web address.

    A file whose path is an address is downloaded, and /file=ADDRESS passed on: both through safehttpx.
    """
    processing_utils.sh.get = processing_utils.sh.async_validate_url = _refuse_errand


async def _refuse_errand(*_arguments, **_options):
    raise gr.Error("Web addresses are not fetched; download the picture and upload it.", print_exception=False)
