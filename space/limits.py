"""What every request is held to before anything reads it: bytes, seconds, files, how many at once.

One ASGI middleware in front of everything, Gradio's own routes included. A body is counted as it arrives, so that one
without a Content-Length, or with a false one, ends at the same place. What is refused is answered in one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from gradio.route_utils import FnIndexInferError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from space import visits

MB = 2**20


@dataclass(frozen=True)
class Body:
    """How much of a request's body is taken, and how long it may take to come."""

    size: int  # bytes
    seconds: float
    files: int | None = None  # parts of a multipart body; None is not counted here


PREDICT, UPLOAD, MCP = "/api/predict", "/gradio_api/upload", "/mcp"
BODIES = {
    PREDICT: Body(64 * MB, 120),  # two of the largest files, or 32 that a phone makes
    UPLOAD: Body(
        600 * MB, 600, files=1000
    ),  # Gradio takes no more; Many answers the first 500 and says so. A home's uplink needs minutes
    MCP: Body(44 * MB, 120),  # the largest file in base64, and the little that is said around it
}
OTHER = Body(1 * MB, 30)  # the page sends its events in a few kB; a data: address of a photo does not fit
MAX_IDLE = 15  # seconds without a byte; a phone that changes its cell needs a few
MAX_BODIES = 100  # that arrive at once; 32 clients may have three connections each
LINGER, MAX_LINGER = 5, 64 * MB  # seconds and bytes that are taken in after a refusal, for it to be read
MAX_QUERY = 4096  # bytes; the longest that the page sends has about 100
RETRY_AFTER = 5  # seconds, told to those who come too many at once

# Doors of Gradio that the page does not use: some fetch addresses, run a component's functions or write files, and
# most answer what they do not understand with a 500.
CLOSED = (
    "/gradio_api/component_server",
    "/gradio_api/custom_component",
    "/gradio_api/deep_link",
    "/gradio_api/dev/",
    "/gradio_api/process_recording",
    "/gradio_api/proxy=",
    "/gradio_api/run-history",
    "/gradio_api/runs",
    "/gradio_api/stream",
    "/gradio_api/undo-vibe",
    "/gradio_api/vibe-",
    "/docs",
    "/monitoring",
    "/openapi.json",
    "/redoc",
    "/svelte",
)

# Of frames nothing is said: the Hub shows a Space in one.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


# What Gradio stumbles over where a request names no event, or no file where it expects one.
JUNK = (FnIndexInferError, LookupError, TypeError, ValueError, AttributeError, AssertionError)


class RefusedError(Exception):
    """A request that is not taken: what reads its body stops here."""


class Limits:
    """The middleware; `visiting` is told of the heartbeat by which a browser says that the page is open."""

    def __init__(self, app: ASGIApp, visiting: visits.Visits):
        self.app, self.visiting = app, visiting
        self.bodies = 0  # that are arriving
        self.uploading = 0  # bytes that uploads on their way may have

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            await self._pass(request)
        except RefusedError as refused:
            await request.refuse(*refused.args)
        except JUNK:
            if request.path.startswith("/gradio_api/") and not request.started:
                logging.getLogger(__name__).debug("Gradio stumbled over a request", exc_info=True)
                await request.refuse(400, "The page does not understand this request; see /api/docs.")
            elif not request.gone:
                raise
        except Exception:
            if not request.gone:  # else nobody is there to be answered: no error either
                raise
        else:
            await request.send_held()

    async def _pass(self, request: Request) -> None:
        """Check what the headers say, hold a place for the body, and let the application read it."""
        path = request.path
        if path.startswith(CLOSED):
            raise RefusedError(404, "There is nothing here.")
        if len(request.scope["query_string"]) > MAX_QUERY:
            raise RefusedError(414, f"The address is longer than {MAX_QUERY} bytes; shorten it.")
        if request.length is not None and request.length > request.limit.size:
            raise request.too_long()
        if not request.has_body:
            async with self.visiting.heartbeat(path):
                await self._answer(request)
            return
        if self.bodies >= MAX_BODIES:
            raise too_many()
        self.bodies += 1
        request.when_read(self._body_is_read)
        try:
            if path == UPLOAD:
                await self._upload(request)
            else:
                await self._answer(request)
        finally:
            request.is_read()

    async def _upload(self, request: Request) -> None:
        """Take an upload if the folder has room for it, or can be given some."""
        size = request.limit.size if request.length is None else request.length
        if self.uploading + size > visits.QUOTA:
            raise too_many()
        self.uploading += size
        try:
            if not await asyncio.to_thread(visits.make_room, self.uploading):
                raise too_many()
            await self._answer(request)
        finally:
            self.uploading -= size

    async def _answer(self, request: Request) -> None:
        try:
            await self.app(request.scope, request.receive, request.send)
        finally:
            if request.refused:  # however the application took it
                raise request.refused

    def _body_is_read(self) -> None:
        self.bodies -= 1


def _route(scope: Scope) -> str:
    """Return a request's path as the routes know it: without the one that the whole server is put below."""
    root = scope.get("root_path", "").rstrip("/")
    return scope["path"].removeprefix(root) if scope["path"].startswith(f"{root}/") else scope["path"]


class Request:
    """One request: its body counted and timed on the way in, its answer given the headers on the way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self.scope, self._receive, self._send = scope, receive, send
        self.path = _route(scope)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() else None
        self.has_body = bool(self.length) or b"transfer-encoding" in headers
        self.limit = BODIES.get(self.path, OTHER)
        self.refused: RefusedError | None = None
        self.gone = False  # the client
        self._done = self.started = self._holds = False
        self._held: list[Message] = []
        self._size, self._ends = 0, time.monotonic() + self.limit.seconds
        boundary = headers.get(b"content-type", b"").partition(b"boundary=")[2].partition(b";")[0].strip(b' "')
        self._parts = _Parts(boundary) if self.limit.files and boundary else None
        self._when_read: Callable[[], None] | None = None

    def when_read(self, call: Callable[[], None]) -> None:
        """Call once when the whole body is there, or when no more of it is wanted."""
        self._when_read = call

    def is_read(self) -> None:
        """Say that no more of the body is wanted."""
        call, self._when_read = self._when_read, None
        if call:
            call()

    async def receive(self) -> Message:
        """Return the next part of the body; once it is whole, wait for the client to leave."""
        if self.refused:
            raise self.refused
        message = await (self._receive() if self._done else self._in_time())
        if message["type"] == "http.disconnect":
            self.gone = True
            return message
        body = message.get("body", b"")
        self._size += len(body)
        if self._size > self.limit.size:
            self._stop(self.too_long())
        if self._parts and self._parts.count(body) > self.limit.files:
            self._stop(RefusedError(413, f"There are more than {self.limit.files} files; send fewer at once."))
        if not message.get("more_body", False):
            self._done = True
            self.is_read()
        return message

    async def _in_time(self) -> Message:
        wait = min(MAX_IDLE, self._ends - time.monotonic())
        try:
            async with asyncio.timeout(max(wait, 0)):
                return await self._receive()
        except TimeoutError:
            self._stop(RefusedError(408, "The request took too long to arrive; send it again."))

    def _stop(self, refused: RefusedError) -> None:
        self.refused = refused
        raise refused

    def too_long(self) -> RefusedError:
        """Return the refusal of a body that is longer than its place takes."""
        return RefusedError(413, f"The request is larger than {self.limit.size // MB} MB; send less at once.")

    async def send(self, message: Message) -> None:
        """Send a part of the answer, unless the request has been refused."""
        if self.refused:
            return
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
            self._holds = message["status"] == 500
        if self._holds:  # until it is known whose fault it is
            self._held.append(message)
            return
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._finish(message)
        else:
            await self._send(message)

    async def _finish(self, message: Message) -> None:
        """Send the end of an answer; if the body is not all there, take in what is still on its way first.

        A client that sends before it reads, as most do, would find the connection broken instead of the answer.
        """
        if self.has_body and not self._done and not self.gone:
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self._take_in()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _take_in(self) -> None:
        taken, more = 0, True
        while more and taken < MAX_LINGER:
            part = await self._receive()
            taken += len(part.get("body", b""))
            more = part.get("more_body", False)

    async def send_held(self) -> None:
        """Send the 500 that the application itself has made."""
        for message in self._held:
            await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer with one sentence, as JSON, which a script reads, and a visitor too."""
        if self.started or self.gone:
            return
        body = orjson.dumps({"error": sentence})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"access-control-allow-origin", b"*"),
            *HEADERS,
        ]
        if status == 408:  # what is still to come is not waited for
            headers.append((b"connection", b"close"))
        if status == 429:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        finish = self._send if status == 408 else self._finish
        await finish({"type": "http.response.body", "body": body})


def too_many() -> RefusedError:
    """Return the refusal of one request too many."""
    return RefusedError(429, f"Too many requests at once; try again in {RETRY_AFTER} seconds.")


class _Parts:
    """Counts the parts of a multipart body by the lines between them, also where one is cut by two chunks."""

    def __init__(self, boundary: bytes):
        self._line = b"--" + boundary
        self._found, self._tail = -1, b""  # the last line ends the body

    def count(self, chunk: bytes) -> int:
        """Return how many parts have begun, this chunk's included."""
        data = self._tail + chunk
        self._found += data.count(self._line)
        self._tail = data[-(len(self._line) - 1) :]
        return self._found
