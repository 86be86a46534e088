"""What every request is held to, attacked over sockets and HTTP on the served page."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from space import limits, visits
from tests.space.conftest import Visitor, file_data

PNG = "data:image/png;base64," + "A" * (16 * limits.MB)  # more than lies between two sockets
LIMITED = [("/api/predict", 64), ("/gradio_api/upload", 600), ("/gradio_api/queue/join", 1), ("/", 1), ("/nothing", 1)]


def ask(address: str, method: str, path: str, body: bytes | None = None, kind: str = "application/json"):
    """Send a request; return its status, headers and body, of an endless stream only that it is one."""
    headers = {} if body is None else {"Content-Type": kind}
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        streams = reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return reply.status, reply.headers, b"(a stream)" if streams else reply.read()
    finally:
        connection.close()


@contextmanager
def connected(address: str, head: str):
    """Send the head of a request over a socket; gives the socket."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        client.sendall(f"{head}\r\nHost: {place.netloc}\r\n\r\n".encode())
        yield client


def answered(client: socket.socket) -> tuple[int, str]:
    """Return the status and the sentence of a refusal."""
    reply = http.client.HTTPResponse(client)
    reply.begin()
    return reply.status, json.loads(reply.read())["error"]


@pytest.mark.parametrize(("path", "megabytes"), LIMITED)
def test_a_body_announced_too_long_is_refused_before_it_comes(address_2, path, megabytes):
    with connected(address_2, f"POST {path} HTTP/1.1\r\nContent-Length: {megabytes * 2**20 + 1}") as client:
        status, sentence = answered(client)
    assert (status, f"larger than {megabytes} MB" in sentence) == (413, True)


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/call/predict"])
def test_a_body_without_a_length_is_counted(address_2, path):
    with connected(address_2, f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked") as client:
        part = b"10000\r\n" + bytes(2**16) + b"\r\n"
        for _ in range(17):
            client.sendall(part)
        assert answered(client) == (413, "The request is larger than 1 MB; send less at once.")


def test_a_data_address_does_not_fit_into_an_event(visitor):
    with pytest.raises(urllib.error.HTTPError) as caught:
        visitor.send("photo", file_data("photo.png", url=PNG), None)
    assert caught.value.code == 413


@pytest.mark.parametrize("path", ["/api/predict", "/gradio_api/upload", "/gradio_api/queue/join"])
def test_a_body_that_does_not_come_is_not_waited_for(address_2, path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_IDLE", 0.1)
    head = f"POST {path} HTTP/1.1\r\nContent-Length: 1000\r\nContent-Type: multipart/form-data; boundary=x"
    with connected(address_2, head) as client:
        client.sendall(b"--x\r\n")
        assert answered(client) == (408, "The request took too long to arrive; send it again.")


def test_a_body_that_comes_byte_by_byte_ends_too(address_2, monkeypatch):
    monkeypatch.setitem(limits.BODIES, limits.PREDICT, replace(limits.BODIES[limits.PREDICT], seconds=0.3))
    with connected(address_2, "POST /api/predict HTTP/1.1\r\nContent-Length: 1000") as client:
        for _ in range(2):
            client.sendall(b"x")
            time.sleep(0.1)
        assert answered(client)[0] == 408


def test_one_upload_has_so_many_files(address_2):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nx\r\n'
    kind = "multipart/form-data; boundary=x"
    assert ask(address_2, "POST", limits.UPLOAD, part * 1000 + b"--x--\r\n", kind)[0] == 200
    status, _, said = ask(address_2, "POST", limits.UPLOAD, part * 1001 + b"--x--\r\n", kind)
    assert (status, b"more than 1000 files" in said) == (413, True)


def test_so_many_bodies_arrive_at_once_and_who_leaves_makes_room(address_2, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BODIES", 1)
    with connected(address_2, "POST /api/predict HTTP/1.1\r\nContent-Length: 1000") as client:
        client.sendall(b"x")
        time.sleep(0.2)
        status, headers, _ = ask(address_2, "POST", "/api/predict", b"x")
        assert (status, headers["Retry-After"]) == (429, "5")
        assert ask(address_2, "GET", "/healthz")[0] == 200
    for _ in range(50):  # the client has left in the middle
        status = ask(address_2, "POST", "/api/predict", b"x")[0]
        if status != 429:
            break
        time.sleep(0.1)
    assert status == 415


def test_the_disk_has_a_quota_and_the_oldest_uploads_go(address_2, monkeypatch):
    first, second = Visitor(address_2), Visitor(address_2)
    oldest = first.upload("old.bin", os.urandom(300_000))
    os.utime(oldest, (1, 1))
    monkeypatch.setattr(visits, "QUOTA", visits_size() + 100_000)
    kept = second.upload("new.bin", os.urandom(200_000))
    assert not Path(oldest).exists() and Path(kept).exists()
    monkeypatch.setattr(visits, "QUOTA", 100_000)
    with pytest.raises(urllib.error.HTTPError) as caught:
        first.upload("larger.bin", bytes(200_000))
    assert caught.value.code == 429


def visits_size() -> int:
    """How many bytes of uploads there are."""
    return sum(path.stat().st_size for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file())


def test_an_endless_address_is_refused(address_2):
    assert ask(address_2, "GET", "/?" + "a" * 5000)[0] == 414


JUNK = [
    b"",
    b"{",
    b"[]",
    b'{"data": 1}',
    b'{"data": [], "fn_index": 99999, "session_hash": "x"}',
    b'{"data": [], "fn_index": -1, "session_hash": "x"}',
    b'{"data": [], "fn_index": "a", "session_hash": [1]}',
    b'{"data": [], "component_id": 1, "fn_name": "__class__", "session_hash": "x"}',
]
POSTED = [
    "queue/join", "call/x", "call/v2/predict", "run/predict", "api/predict", "component_server", "cancel", "reset",
    "stream/x", "process_recording", "vibe-edit",
]  # fmt: skip
READ = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=/proc/self/environ",
    "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file=..%2f..%2fetc%2fpasswd",
    "/gradio_api/file=%00",
    "/gradio_api/file=",
    "/gradio_api/file//etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/gradio_api/custom_component/1/a/b/c",
    "/gradio_api/stream/a/b/c/playlist.m3u8",
    "/gradio_api/upload_progress",
    "/gradio_api/queue/data",
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/dev/reload",
    "/gradio_api/runs",
    "/static/",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/assets/..%2f..%2f",
    "/monitoring",
    "/svelte/x",
    "/nothing",
]
UPLOADED = [
    ("text/plain", b"x"),
    ("multipart/form-data", b"x"),
    ("multipart/form-data; boundary=", b"x"),
    ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n--a--"),
    ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--a--'),
    (
        "multipart/form-data; boundary=a",
        b'--a\r\nContent-Disposition: form-data; name="files"; filename=".."\r\n\r\nx\r\n--a--',
    ),
]


def test_junk_is_refused_by_every_route_without_a_5xx_or_a_path(address_2):
    posted = [("POST", f"/gradio_api/{path}", body, "application/json") for path in POSTED for body in JUNK]
    read = [("GET", path, None, "") for path in READ]
    uploaded = [("POST", limits.UPLOAD, body, kind) for kind, body in UPLOADED]
    for request in [*posted, *read, *uploaded]:
        status, _, said = ask(address_2, *request)
        assert 400 <= status < 500, request
        assert not re.search(rb"Traceback|site-packages|/work|/tmp|root:|\.py\b", said), request


def test_what_the_page_tells_of_itself_names_no_folder(address_2):
    folders = (str(Path(limits.__file__).parents[1]), os.environ["GRADIO_TEMP_DIR"], "site-packages")
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/theme.css", "/manifest.json"):
        status, _, said = ask(address_2, "GET", path)
        assert status == 200
        assert not any(folder.encode() in said for folder in folders), path


@pytest.mark.parametrize("path", ["/", "/config", "/api/info", "/nothing", "/monitoring", "/?" + "a" * 5000])
def test_every_answer_has_the_headers_and_may_be_framed(address_2, path):
    _, headers, _ = ask(address_2, "GET", path)
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "same-origin")
    assert headers["X-Frame-Options"] is None and headers["Content-Security-Policy"] is None


def test_a_server_below_a_path_has_the_same_limits():
    """As `uvicorn --root-path` puts it there."""
    answered = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        answered.append(message.get("status"))

    for path, status in (("/pets/monitoring", 404), ("/pets/x", 200), ("/petshop/monitoring", 200)):
        scope = {"type": "http", "path": path, "root_path": "/pets", "headers": [], "query_string": b""}
        call = limits.Limits(app, visiting=visits.Visits.__new__(visits.Visits))(scope, None, send)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, call).result()
        assert [one for one in answered if one] == [status], path
        answered.clear()
