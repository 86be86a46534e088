"""When a visit is over, nothing of it is left: what a browser's heartbeat says, and what happens when it ends."""

from __future__ import annotations

import http.client
import os
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import pytest

from space import guards, visits
from tests.space.conftest import Visitor, file_data


@contextmanager
def open_page(visitor: Visitor, address: str):
    """Keep a visit's heartbeat open while the block runs, as its page in a browser does."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", f"/gradio_api/heartbeat/{visitor.session}")
    assert connection.getresponse().fp.readline()  # the first beat has come
    yield
    connection.sock.close() if connection.sock else connection.close()


def gone(path: str) -> bool:
    """Whether a file goes within a few seconds."""
    for _ in range(50):
        if not Path(path).exists():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def soon(monkeypatch):
    """A visit is over at once when its heartbeat ends."""
    monkeypatch.setattr(visits, "LEAVE_AFTER", 0.05)


@pytest.mark.usefixtures("soon")
def test_a_visit_leaves_nothing(visitor, address_2, cat):
    assert visitor.config["connect_heartbeat"]
    content = cat.read_bytes() + os.urandom(8)
    with open_page(visitor, address_2):
        path = visitor.upload("cat.jpg", content)
        assert visitor.send("photo", file_data(path), None)["success"]
        drawn = visitor.send("label", None, "dog", "none")
        assert "data:image/jpeg" in str(drawn)
        time.sleep(0.2)
        assert Path(path).exists()
    assert gone(path)
    assert not Path(path).exists()
    assert "data:image/jpeg" not in str(visitor.send("label", None, "dog", "none"))  # its state has gone too


@pytest.mark.usefixtures("soon")
def test_what_two_visits_use_stays_until_both_are_over(address_2, cat):
    first, second = Visitor(address_2), Visitor(address_2)
    content = cat.read_bytes() + os.urandom(8)
    with open_page(first, address_2):
        with open_page(second, address_2):
            paths = [visitor.upload("cat.jpg", content) for visitor in (first, second)]
            assert paths[0] == paths[1]
            assert all(visitor.send("photo", file_data(paths[0]), None)["success"] for visitor in (first, second))
        time.sleep(0.5)
        assert Path(paths[0]).exists()
    assert gone(paths[0])


def test_a_visit_whose_connection_breaks_for_a_moment_is_not_over(visitor, address_2, cat, monkeypatch):
    monkeypatch.setattr(visits, "LEAVE_AFTER", 0.5)
    with open_page(visitor, address_2):
        path = visitor.upload("cat.jpg", cat.read_bytes() + os.urandom(8))
        visitor.send("photo", file_data(path), None)
    with open_page(visitor, address_2):
        time.sleep(0.8)
        assert Path(path).exists()
        assert "data:image/jpeg" in str(visitor.send("label", None, "dog", "none"))


def test_what_the_page_itself_offers_stays(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with guards.upload_folder():
        with gr.Blocks() as page:
            offered = Path(gr.File(str(tmp_path / "metrics.json")).value["path"])
        visiting = visits.Visits(page, guards.uploaded)
        with pytest.raises(gr.Error, match="upload it again"):  # else Many would take it away
            guards.uploaded(str(offered))
        visits._owners[offered.resolve()].add("somebody who has named it")
        visiting.forget("somebody who has named it")
        visits.sweep(-1)
        assert visits.make_room(10**4)
        assert offered.exists()


def test_what_nobody_has_asked_about_goes_when_it_is_old():
    """An upload that broke off, and one that no event has named."""
    with guards.upload_folder() as folder:
        (folder / "hash").mkdir()
        old, broken, fresh = folder / "hash" / "old.jpg", folder / "tmpabc", folder / "hash" / "new.jpg"
        for path in (old, broken, fresh):
            path.write_bytes(b"x")
        (folder / "emptied").mkdir()
        for path in (old, broken, folder / "emptied"):
            os.utime(path, (time.time() - 3600,) * 2)
        visits.sweep(1800)
        assert [path.exists() for path in (old, broken, fresh)] == [False, False, True]
        assert not (folder / "emptied").exists()
