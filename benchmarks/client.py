"""A client that costs little beside the server it measures: HTTP/1.1 and a Gradio page's queue, on asyncio alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

LINE_LIMIT = 2**22  # bytes of a head or of one line of events
PATIENCE = 180.0  # seconds until a request that nobody answers is given up


class Unanswered(Exception):
    """No answer, or not the one that was asked for: the server hung up, or said a status (0: none)."""

    def __init__(self, what: object, status: int = 0):
        super().__init__(str(what))
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self):
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Connection:
    """One connection that is kept open between requests and opened anew when the server has closed it."""

    host: str
    port: int
    reader: asyncio.StreamReader | None = field(default=None, repr=False)
    writer: asyncio.StreamWriter | None = field(default=None, repr=False)

    @classmethod
    def to(cls, address: str) -> Connection:
        """To a server's address, such as http://127.0.0.1:7860/."""
        parts = urlsplit(address)
        return cls(parts.hostname, parts.port)

    async def open(self) -> None:
        """Connect, if need be."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=LINE_LIMIT)

    async def close(self) -> None:
        """Hang up."""
        if self.writer is not None:
            writer, self.reader, self.writer = self.writer, None, None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def head(self, method: str, path: str, headers: dict[str, object]) -> bytes:
        """The first lines of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, object] | None = None
    ) -> Reply:
        """Send a request and return the answer; an idle connection that was closed meanwhile is opened once more.

        Raises:
            Unanswered: the server hung up.
            TimeoutError: it said nothing for PATIENCE seconds.
        """
        whole = self.head(method, path, {"Content-Length": len(body), **(headers or {})}) + body
        async with asyncio.timeout(PATIENCE):
            used = self.writer is not None
            try:
                return await self._once(whole)
            except Unanswered:
                if not used:
                    raise
                return await self._once(whole)

    async def _once(self, whole: bytes) -> Reply:
        await self.open()
        # What the server says before it hangs up, such as 413, is still there to be read.
        with contextlib.suppress(OSError):
            await self.send(whole)
        return await self.reply()

    async def reply(self) -> Reply:
        """Read one answer.

        Raises:
            Unanswered: there is none, or not all of it.
        """
        try:
            status, headers = await self._read_head()
            body = b"".join([piece async for piece in self._body(headers)])
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, LookupError, OSError) as error:
            await self.close()
            raise Unanswered(error) from error
        except BaseException:  # given up: what comes late must not answer the next request
            await self.close()
            raise
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Reply(status, headers, body)

    async def events(self, path: str) -> AsyncIterator[dict]:
        """Ask for a stream of server-sent events; gives each one's data, read as JSON, until it ends.

        Raises:
            Unanswered: it is refused, or breaks off.
        """
        await self.open()
        await self.send(self.head("GET", path, {"Accept": "text/event-stream"}))
        try:
            status, headers = await self._read_head()
            if status != 200:
                raise Unanswered(f"the stream was refused with {status}", status)
            rest = b""
            async for piece in self._body(headers):
                *whole, rest = (rest + piece).split(b"\n\n")
                for event in whole:
                    if event.startswith(b"data:"):
                        yield json.loads(event.removeprefix(b"data:"))
        except (asyncio.IncompleteReadError, OSError) as error:
            await self.close()
            raise Unanswered(error) from error
        except BaseException:
            await self.close()
            raise

    async def _read_head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split(" ")[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        else:
            yield await self.reader.readexactly(int(headers.get("content-length", 0)))


def multipart(files: Iterable[tuple[str, bytes]], field: str = "files") -> tuple[bytes, str]:
    """Return files, as (name, content), in a form's body and the body's content type."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join([*parts, f"--{edge}--\r\n".encode()]), f"multipart/form-data; boundary={edge}"


class Page:
    """What a Gradio page's own JavaScript knows: which event a part triggers, and what it sends along."""

    def __init__(self, config: dict):
        self.config = config
        self.parts = {part["id"]: part for part in config["components"]}

    @classmethod
    async def at(cls, address: str) -> Page:
        """Fetch what the page at an address is made of."""
        connection = Connection.to(address)
        try:
            return cls((await connection.request("GET", "/config")).json())
        finally:
            await connection.close()

    def event_of(self, elem_id: str) -> dict:
        """Return the first event that the part with this `elem_id` triggers."""
        ids = {part["props"].get("elem_id"): part["id"] for part in self.config["components"]}
        return next(
            event for event in self.config["dependencies"] if any(to == ids[elem_id] for to, _ in event["targets"])
        )

    def event_named(self, api_name: str) -> dict:
        """Return the event with a name, such as the "predict" of a gr.Interface."""
        return next(event for event in self.config["dependencies"] if event["api_name"] == api_name)

    def data(self, event: dict, file: object) -> list:
        """Return what an event wants: the file in the place of the picture, elsewhere what the page began with."""
        values = []
        for part in (self.parts[number] for number in event["inputs"]):
            values.append(file if part["type"] == "image" else part["props"].get("value"))
        return values


class Visitor:
    """One visit to a Gradio page: upload, join the queue, follow its events, fetch the picture."""

    def __init__(self, address: str, page: Page, event: dict):
        self.address, self.page, self.event = address, page, event
        self.connection = Connection.to(address)
        self.session = uuid.uuid4().hex
        self._heartbeat: Connection | None = None

    async def arrive(self) -> None:
        """Keep the session alive, as an open tab does."""
        self._heartbeat = Connection.to(self.address)
        await self._heartbeat.open()
        await self._heartbeat.send(self._heartbeat.head("GET", f"/gradio_api/heartbeat/{self.session}", {}))
        await self._heartbeat.reader.readuntil(b"ALIVE")

    async def leave(self) -> None:
        """Close the tab."""
        await self.connection.close()
        if self._heartbeat:
            await self._heartbeat.close()

    async def upload(self, name: str, content: bytes) -> Reply:
        """Send a file to the page; the answer's body holds its path there."""
        body, kind = multipart([(name, content)])
        return await self.connection.request("POST", "/gradio_api/upload", body, {"Content-Type": kind})

    async def ask(self, path: str, name: str = "photo.jpg") -> dict:
        """Trigger the event on an uploaded file; return the message that ends it.

        Raises:
            Unanswered: the queue refused it or broke off.
        """
        return await self.ask_with({"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}})

    async def ask_with(self, file: object) -> dict:
        """The same with whatever stands in the picture's place."""
        body = {
            "data": self.page.data(self.event, file),
            "fn_index": self.event["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": self.event["targets"][0][0],
        }
        kind = {"Content-Type": "application/json"}
        joined = await self.connection.request("POST", "/gradio_api/queue/join", json.dumps(body).encode(), kind)
        if joined.status != 200:
            raise Unanswered(f"the queue refused it with {joined.status}: {joined.body[:150]!r}", joined.status)
        last = None
        async with asyncio.timeout(PATIENCE):
            async for message in self.connection.events(f"/gradio_api/queue/data?session_hash={self.session}"):
                last = message if message["msg"] == "process_completed" else last
        if last is None:
            raise Unanswered("the stream ended before the answer")
        return last

    async def fetch(self, path: str) -> Reply:
        """Fetch a file of the page."""
        return await self.connection.request("GET", f"/gradio_api/file={quote(path)}")
