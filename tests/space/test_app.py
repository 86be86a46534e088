"""app.py: what it reads, and what it says where it cannot go on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import app

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
@pytest.mark.parametrize("wrong", ["model", "samples", "port"])
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
        }[wrong]
        with pytest.raises(SystemExit) as stop:
            app.main(arguments)
    assert stop.value.code.startswith(sentence) and stop.value.code.endswith(".")
    assert "\n" not in stop.value.code
    assert not list(tmp_path.glob("uploads-*"))


def test_the_page_needs_no_tensorflow():
    large = {"tensorflow", "keras", "datasets", "sklearn", "skimage", "matplotlib", "mcp"}
    code = f"import sys, app; print(*{large} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
