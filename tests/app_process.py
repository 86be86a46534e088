"""app.py in a process of its own, spoken to over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

PATIENCE = 60  # seconds until it must answer


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(*command: object, port: int, folder: Path, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a command that serves on `port`; gives its address at once, and stops it with SIGTERM at the end."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=environment, stdout=lines, stderr=subprocess.STDOUT
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            ended = process.poll()
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(20)
            finally:
                process.kill()
            assert (ended, status) == (None, 0), log.read_text()[-3000:]


def get(address: str, *, wait: bool = False, **headers: str) -> bytes:
    """Return what an address answers; with `wait`, as soon as anybody listens there."""
    last = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as reply:
                return reply.read()
        except OSError as error:
            if not wait or time.monotonic() > last or isinstance(error, HTTPError):
                raise
            time.sleep(0.1)


def predict(address: str, picture: bytes, kind: str = "image/jpeg") -> dict:
    """Return the answer of POST /api/predict to one picture."""
    request = urllib.request.Request(f"{address}/api/predict", picture, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)
