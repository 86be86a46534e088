"""app.py: what it reads, and what it says where it cannot go on."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import app
from hub import StorageError
from space import guards, server

ROOT = Path(__file__).parents[2]


def test_the_embedded_model_is_the_default(monkeypatch):
    monkeypatch.delenv("MODEL_ID", raising=False)
    assert app.options([]).model is None
    monkeypatch.setenv("MODEL_ID", "")  # as a Space's unset variable
    assert app.options([]).model is None


def test_model_id_names_another_and_the_option_wins(monkeypatch):
    monkeypatch.setenv("MODEL_ID", "owner/model")
    assert app.options([]).model == "owner/model"
    assert app.options(["--model", "folder"]).model == "folder"


@pytest.fixture
def sigterm():
    """app.main sets a handler for SIGTERM; put the old one back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("wrong", ["model", "samples", "port", "number"])
def test_what_cannot_work_is_one_sentence(bundle_2, wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments, sentence = {
            "model": (["--model", "./missing"], "There is no folder ./missing; "),
            "samples": (["--model", str(bundle_2), "--samples", "missing"], "There is no folder missing; "),
            "port": (
                ["--model", str(bundle_2), "--port", str(port)],
                f"Port {port} cannot be listened on at 127.0.0.1 (address already in use); ",
            ),
            "number": (
                ["--model", str(bundle_2), "--port", "70000"],
                "Port 70000 cannot be listened on at 127.0.0.1 (",
            ),
        }[wrong]
        with pytest.raises(SystemExit) as stop:
            app.main(arguments)
    assert stop.value.code.startswith(sentence) and stop.value.code.endswith(".")
    assert "\n" not in stop.value.code
    assert not list(tmp_path.glob("uploads-*"))


def test_no_place_for_uploads_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="No folder can be made for uploads .* TMPDIR"), guards.upload_folder():
        pass


@pytest.mark.usefixtures("sigterm")
def test_a_bug_is_not_told_as_a_refusal(monkeypatch):
    """Nobody could find it by its one sentence."""
    monkeypatch.setattr(app, "opened", lambda name: int(name))
    with pytest.raises(ValueError, match="invalid literal"):
        app.main(["--model", "x"])


def test_home_is_found_where_the_shell_leaves_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    chosen = app.options(["--samples=~/pictures", "--photos=~/photos"])
    assert (chosen.samples, chosen.photos) == (tmp_path / "pictures", tmp_path / "photos")


def test_an_open_page_is_no_error_when_the_server_stops(monkeypatch):
    """A page keeps a stream open for as long as it is shown."""
    monkeypatch.setattr(server, "LINGER", 0.2)
    logged: list[logging.LogRecord] = []
    listening = logging.Handler()
    monkeypatch.setattr(listening, "emit", logged.append)
    told = FastAPI()

    @told.get("/stream")
    async def stream():
        async def parts():
            yield "first"
            await asyncio.sleep(60)

        return StreamingResponse(parts())

    log = logging.getLogger("uvicorn.error")  # of every server in this process: told apart by their threads
    before = {thread.ident for thread in threading.enumerate()}
    try:
        with server.serving(told) as address:
            mine = {thread.ident for thread in threading.enumerate()} - before
            log.addHandler(listening)  # the server sets up its log when it starts
            reply = urllib.request.urlopen(f"{address}stream", timeout=10)
            assert reply.read1() == b"first"
        reply.close()
    finally:
        log.removeHandler(listening)
    assert [record.getMessage() for record in logged if record.thread in mine] == []


@pytest.mark.usefixtures("sigterm")
def test_a_second_signal_changes_nothing(monkeypatch):
    """`make` sends SIGTERM on to app.py, which had it already."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(app.time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    try:
        app.wait_until_stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_starts_in_any_thread():
    """Only the main one may say what a signal does."""
    with ThreadPoolExecutor(1) as thread, pytest.raises(SystemExit, match="There is no folder ./missing; "):
        thread.submit(app.main, ["--model", "./missing"]).result()


def test_the_page_needs_no_tensorflow():
    large = {"tensorflow", "keras", "datasets", "sklearn", "skimage", "matplotlib", "mcp"}
    code = f"import sys, app; print(*{large} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
