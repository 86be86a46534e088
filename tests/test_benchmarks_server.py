"""What the server's benchmarks are made of computes what it says: the client, the counting, the files, the clock."""

from __future__ import annotations

import asyncio
import contextlib
import email
import http.server
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import browser, hostile, hostile_files, pictures, server
from benchmarks.client import Connection, Page, Unanswered, Visitor, multipart
from benchmarks.processes import Server
from hub import ImageClassifier
from hub.images import open_image
from tests.space.conftest import served


def run(coroutine):
    """Run a coroutine in a thread of its own, since Playwright may have an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(coroutine)).result()


class Replies:
    """A server that says the same bytes to each request and then, perhaps, hangs up; it notes what it was asked."""

    def __init__(self, *replies: bytes, hang_up: bool = False):
        self.replies, self.hang_up = list(replies), hang_up
        self.heads: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/"

    async def __aexit__(self, *_) -> None:
        self.server.close()

    async def answer(self, reader, writer) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while self.replies:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.replies.pop(0))
                await writer.drain()
                if self.hang_up:
                    break
        writer.close()


# ---------------------------------------------------------------- the client

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain"
CHUNKED = b"HTTP/1.1 413 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nin \r\n6\r\nchunks\r\n0\r\n\r\n"


def test_answers_of_both_kinds_come_over_one_connection():
    async def ask():
        replies = Replies(PLAIN, CHUNKED)
        async with replies as address:
            connection = Connection.to(address)
            found = [await connection.request("GET", "/a"), await connection.request("POST", "/b", b"x", {"A": 1})]
            await connection.close()
        return found, replies

    (first, second), replies = run(ask())
    assert (first.status, first.body) == (200, b"plain")
    assert (second.status, second.body) == (413, b"in chunks")
    assert replies.connections == 1
    assert replies.heads[1].startswith(b"POST /b HTTP/1.1\r\n") and b"A: 1\r\n" in replies.heads[1]


def test_an_idle_connection_that_was_closed_is_opened_again():
    async def ask():
        replies = Replies(PLAIN, PLAIN, hang_up=True)
        async with replies as address:
            connection = Connection.to(address)
            found = [(await connection.request("GET", "/")).body for _ in range(2)]
            await connection.close()
        return found, replies.connections

    assert run(ask()) == ([b"plain", b"plain"], 2)


@pytest.mark.parametrize("reply", [b"", PLAIN[:-1], CHUNKED[:-8], b"nonsense\r\n\r\n"])
def test_half_an_answer_is_none(reply):
    async def ask():
        async with Replies(reply, hang_up=True) as address:
            await Connection.to(address).request("GET", "/")

    with pytest.raises(Unanswered):
        run(ask())


def test_events_are_read_wherever_they_are_cut():
    events = b'data: {"n": 1}\n\ndata: {"n": 2}\n\n: a comment\n\ndata: {"n": 3}\n\n'
    pieces = [events[:9], events[9:30], events[30:]]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async def ask():
        async with Replies(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body) as address:
            connection = Connection.to(address)
            found = [event["n"] async for event in connection.events("/")]
            await connection.close()
        return found

    assert run(ask()) == [1, 2, 3]


def test_a_form_holds_its_files():
    body, kind = multipart([("a.jpg", b"\r\n\0--"), ("b.png", b"second")], "picture")
    parts = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
    assert [part.get_filename() for part in parts] == ["a.jpg", "b.png"]
    assert body.count(b"\r\n\r\n\r\n\0--\r\n") == 1 and body.count(b'name="picture"') == 2


# ---------------------------------------------------------------- the measurements

ALLOCATES = "import subprocess, sys; kept = b'x' * 10**8; print(flush=True); "
CHILD = "subprocess.run([sys.executable, '-c', 'kept = b\"x\" * 10**8; print(flush=True); input()']); "


def test_memory_and_time_are_those_of_a_process_and_its_children(tmp_path):
    command = [sys.executable, "-c", ALLOCATES + CHILD]
    (tmp_path / "left.jpg").touch()
    (tmp_path / "log").touch()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.readline()
        found = Server("", process, tmp_path)
        assert 200e6 < found.memory() <= found.peak() < 300e6
        assert 0 < found.processor_seconds() < 10
        assert found.alive
        process.communicate(b"\n")
    assert not found.alive
    assert found.files_left() == [tmp_path / "left.jpg"]


def test_a_turn_counts_the_answers_of_its_window():
    """Two clients, each with an answer every 50 ms; every fifth is refused."""
    asked = Counter()

    def client():
        async def ask():
            asked["all"] += 1
            number = asked["all"]
            await asyncio.sleep(0.05)
            if number % 5 == 0:
                raise Unanswered("busy", 429)

        async def leave():
            asked["left"] += 1

        return ask, leave

    class Itself:
        pid = os.getpid()

    side = server.Side(Server("", Itself, Path()), client)
    found = run(server.turn(side, clients=2, ramp=0.1, window=0.4))
    assert 10 < found.rate < 35  # 40 a second, less a fifth and the pause after it
    assert found.refused == asked["all"] // 5 > 0
    assert asked["left"] == 2
    assert found.load >= 0 and found.cost > 0


def test_different_answers_are_not_timed():
    same = {"cat": 0.9, "dog": 0.1}
    assert server.check_agreement({"a": same, "b": {"cat": 0.9001, "dog": 0.0999}}) == pytest.approx(1e-4)
    with pytest.raises(SystemExit, match="nothing was timed"):
        server.check_agreement({"a": same, "b": same, "c": {"cat": 0.8, "dog": 0.2}})


def test_photos_are_what_they_are_called():
    photos = [pictures.small(seed) for seed in range(2)]
    assert photos[0] != photos[1] and pictures.small(0) == photos[0]
    assert [open_image(photo).size for photo in photos] == [pictures.SMALL] * 2
    assert pictures.SMALL[0] * pictures.SMALL[1] == pytest.approx(0.3e6, rel=0.01)
    assert pictures.PHONE[0] * pictures.PHONE[1] == pytest.approx(12e6, rel=0.02)


def test_table_shows_what_was_measured():
    spread, times = {"low": 1.0, "median": 2.0, "high": 3.0}, {"low": 1.0, "median": 4.5, "high": 3.0}
    names = ("endpoint", "stock", "stock, best limit")
    rates = {
        "clients": 32,
        "limit": 4,
        "rates": dict.fromkeys(names, spread),
        "times": dict.fromkeys(names[1:], times),
        **{what: dict.fromkeys(names, spread) for what in ("cost", "load", "served")},
        "refused": {"endpoint": 1, "stock": 2},
    }
    rest = {"requests": 1000, "rest": [300e6, 350e6, 351e6], "rest_after_large": 360e6, "peak": 900e6, "large": 64}
    result = {
        "model": "cats",
        "ready": {"answer": spread, "import": spread, "beside": spread},
        "latency": {"0.3 MP": dict.fromkeys(("server", "decoding", "model", "times"), spread)},
        "throughput": rates,
        "memory": {**rest, "large_statuses": {"200": 60, "429": 4}},
    }
    rows = server.table(result).splitlines()
    assert all(row.count("|") == 5 for row in rows)
    assert "| 0.3 MP: decoding alone | 2e+03 ms | 1e+03 - 3e+03 ms |  |" in rows
    assert "| the endpoint, times the stock | 4.5 × | 1 - 3 × | ≥ 3 ×, beyond: 5 × |" in rows
    assert "| the endpoint, times the stock, concurrency_limit=4 | 4.5 × | 1 - 3 × |  |" in rows
    assert "| after 2,000 requests | 351 MB (+1) | | flat |" in rows
    assert any("200: 60, 429: 4" in row and "900 MB" in row for row in rows)


# ---------------------------------------------------------------- the hostile files

SLOW = {"decompression bomb", "more data than pixels", "many chunks", "archive", "polyglot"}  # to draw, the first time


def test_the_same_seed_draws_the_same_files(monkeypatch):
    quick = {kind: draw for kind, draw in hostile_files.KINDS.items() if kind not in SLOW}
    monkeypatch.setattr(hostile_files, "KINDS", quick)
    first, again, other = ([case.file for case in hostile.cases(12, seed)] for seed in (3, 3, 4))
    assert first == again != other


def test_every_kind_and_every_way_is_drawn(monkeypatch):
    """A thousand hold them all; every 50th is a sound photo, by turns to the page and to the endpoint."""
    chance = random.Random(0)
    for kind in hostile_files.KINDS.keys() - SLOW:
        content, name = hostile_files.KINDS[kind](chance)
        assert isinstance(content, bytes) and isinstance(name, str)
    monkeypatch.setattr(
        hostile_files, "draw", lambda chance: hostile_files.File(chance.choice(list(hostile_files.KINDS)), "a", b"")
    )
    cases = list(hostile.cases(1000, 0))
    ways = Counter(case.way for case in cases)
    assert ways.keys() == {*hostile.API_WAYS, *hostile.PAGE_WAYS, "good, page", "good, endpoint"}
    assert {case.file.kind for case in cases} == hostile_files.KINDS.keys()
    assert ways["good, page"] == ways["good, endpoint"] == 10
    assert all(case.way.startswith("good") == (case.number % 50 == 0) for case in cases)


def test_what_must_not_be_is_noted():
    findings = hostile.Findings()
    case = hostile.Case(1, hostile_files.File("text", "a", b""), "raw", random.Random())
    findings.note(case, 400, b'{"error": "a is text, not a picture."}', 400)
    assert findings.bad == []
    findings.note(case, 500, b"Internal Server Error", 500)
    findings.note(case, 400, b"Traceback (most recent call last)", 400)
    findings.note(case, 404, b"/tmp/uploads-1/photo.jpg is not there", 404)
    assert len(findings.bad) == 3
    assert findings.outcomes == {("endpoint", "400"): 2, ("endpoint", "500"): 1, ("endpoint", "404"): 1}


@pytest.mark.long
def test_the_served_page_survives_a_few_of_each(bundle_2):
    """The quick ways with the quick files, on the real page: no 5xx, nothing told, and sound photos in between."""
    slow = {"slow", "stalled", "cut off", "too large", "too many files", "page: too large", "page: left early"}
    classifier, photo = ImageClassifier.from_pretrained(bundle_2), pictures.small()

    with served(classifier) as address:

        async def everything():
            right = await hostile.at_first(address, hostile.truth(bundle_2, photo))
            chance = random.Random(1)
            kinds = ["truncated", "bits flipped", "broken EXIF", "text", "SVG", "other picture"]
            todo = []
            for number, way in enumerate(sorted({*hostile.API_WAYS, *hostile.PAGE_WAYS} - slow)):
                content, name = hostile_files.KINDS[chance.choice(kinds)](chance)
                todo.append(hostile.Case(number, hostile_files.File("drawn", name, content), way, chance))
            none = hostile_files.File("none", "", b"")
            todo += [hostile.Case(98, none, "good, page", chance), hostile.Case(99, none, "good, endpoint", chance)]
            findings = await hostile.attack(address, todo, 4, right)
            visitor = Visitor(address, await Page.at(address), {})
            back = await visitor.fetch((await visitor.upload("photo.jpg", photo)).json()[0])
            await visitor.leave()
            return findings, back

        findings, back = run(everything())
    assert findings.bad == []
    assert findings.good == 2
    assert (back.status, back.body) == (200, photo)


# ---------------------------------------------------------------- the browser

PAGE = b"""<!doctype html><title>t</title><div id="photo"><input type="file"></div><div id="figure"></div><script>
document.querySelector("input").addEventListener("change", () => setTimeout(() => {
    document.querySelector("#figure").innerHTML =
        '<img class="map" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=">';
}, 200));
</script>"""


class Waits(http.server.BaseHTTPRequestHandler):
    """A page that shows its map 200 ms after a photo was chosen."""

    def do_GET(self):
        """Send the page."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.long
@pytest.mark.skipif(not shutil.which(browser.CHROMIUM), reason=f"{browser.CHROMIUM} is not installed")
def test_the_wait_is_that_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "PAUSE", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Waits) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{page.server_port}/"
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as thread:
            (found,) = thread.submit(browser.waits, address, tmp_path, 1, warm_up=0).result()
        page.shutdown()
    assert 0.2 <= found < time.perf_counter() - start
