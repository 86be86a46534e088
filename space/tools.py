"""The same model for assistants that speak the Model Context Protocol (MCP), at /mcp.

Each POST is answered by a server of its own that is forgotten with the reply, so there are no sessions. The picture
comes inside the request: nothing is fetched, and no file is read or written.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hub import ImageError, Refusal, UsageError
from hub.heatmaps import shown_map
from space import api, limits, words
from space.api_schema import Query
from space.languages import Say
from space.offer import Offer
from space.work import HEAD, WORK, is_large

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp_types import CallToolResult, Tool

CLASSIFY, INFO = "classify_image", "model_info"
LARGE = 2 * limits.MB  # a body is in memory until it is answered, several times over: larger ones one at a time


def application(offer: Offer) -> ASGIApp:
    """Return what answers at /mcp, a program's requests and any web page's too, as the HTTP endpoint does."""
    return CORSMiddleware(Tools(offer), allow_origins=["*"], allow_methods=["POST"], allow_headers=["*"])


class Tools:
    """The ASGI application at /mcp, behind `space.limits`."""

    def __init__(self, offer: Offer):
        self.offer = offer
        self.waiting = 0
        self._large = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            return await _refuse(405, "An MCP client sends POST to this address.", Allow="POST")(scope, receive, send)
        if self.waiting >= api.MAX_WAITING:
            again = str(limits.RETRY_AFTER)
            sentence = f"Too many requests are waiting; try again in {again} seconds."
            return await _refuse(429, sentence, **{"Retry-After": again})(scope, receive, send)
        self.waiting += 1
        try:
            async with self._large if _is_large(scope) else nullcontext():
                # The package is loaded with the first request: a page that nobody asks over MCP does without it.
                manager = await asyncio.to_thread(self._manager)
                async with manager.run():
                    await manager.handle_request(scope, receive, send)
        finally:
            self.waiting -= 1

    def _manager(self) -> StreamableHTTPSessionManager:
        """Return what answers one request, in JSON, in whichever version of the protocol it asks."""
        from mcp.server import Server
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from mcp_types import ListToolsResult

        async def listed(_context, _parameters) -> ListToolsResult:
            return ListToolsResult(tools=tools(self.offer))

        async def called(_context, asked) -> CallToolResult:
            return await self._call(asked.name, asked.arguments or {})

        labels = words.one_of(Say(), self.offer.classifier.labels)
        server = Server(
            self.offer.classifier.name,
            instructions=f"Says which of its labels a picture shows: {labels}. It knows no others.",
            on_list_tools=listed,
            on_call_tool=called,
        )
        most = limits.BODIES[limits.MCP].size
        return StreamableHTTPSessionManager(server, stateless=True, json_response=True, max_request_body_size=most)

    async def _call(self, name: str, arguments: dict) -> CallToolResult:
        """Run a tool; what it refuses is a result that says so in one sentence."""
        if name == INFO:
            return _said(api.info(self.offer))
        if name != CLASSIFY:
            return _problem(f"There is no such tool; there are {CLASSIFY} and {INFO}.")
        try:
            async with asyncio.timeout(api.SECONDS):
                sent, query = await asyncio.to_thread(_asked, arguments)
                large = is_large(sent.getbuffer()[:HEAD].tobytes())
                return await WORK.wait("mcp", _classify, self.offer, sent, query, alone=large)
        except Refusal as error:
            return _problem(str(error))
        except TimeoutError:
            return _problem(f"The server did not get to it in {api.SECONDS} seconds; try again later.")
        except Exception:  # whose text the package would send
            logging.getLogger(__name__).exception("%s failed", name)
            return _problem("The server could not answer; try again later.")


def _refuse(status: int, sentence: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)


def _is_large(scope: Scope) -> bool:
    """Tell whether a body is large, or may be because its length is not said."""
    length = Headers(scope=scope).get("content-length", "")
    return not length.isdigit() or int(length) > LARGE


def tools(offer: Offer) -> list[Tool]:
    """Return what an assistant is told of the tools."""
    from mcp_types import Tool, ToolAnnotations

    asks_only = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    labels = words.one_of(Say(), offer.classifier.labels)
    picture = {
        "type": "string",
        "description": "The bytes of the picture's file in base64. No path and no address: nothing is fetched.",
    }
    drawn = {"type": "boolean", "default": False, "description": "Also return the picture with its evidence drawn in."}
    return [
        Tool(
            name=CLASSIFY,
            title="Classify a picture",
            description=f"Say which of its labels a picture shows ({labels}), how probable each is, and in which "
            "part of the picture the strongest evidence lies. Other things in it are not recognised.",
            input_schema={
                "type": "object",
                "properties": {"image_base64": picture, "with_heatmap": drawn},
                "required": ["image_base64"],
                "additionalProperties": False,
            },
            output_schema=_answer_schema(),
            annotations=asks_only,
        ),
        Tool(
            name=INFO,
            title="About the model",
            description="Say which model answers, its labels, and what a picture may measure.",
            input_schema={"type": "object", "properties": {}, "additionalProperties": False},
            annotations=asks_only,
        ),
    ]


def _answer_schema() -> dict:
    numbers = {"type": "object", "additionalProperties": {"type": "number"}}
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "label": {**text, "description": "the most probable label"},
            "probabilities": {**numbers, "description": "of each label; they add up to 1"},
            "log_odds": {**numbers, "description": "ln p/(1-p) of each label"},
            "strongest_evidence": {"type": ["string", "null"], "description": "where in the picture it lies"},
            "model": text,
            "revision": {"type": ["string", "null"]},
        },
        "required": ["label", "probabilities", "log_odds", "strongest_evidence", "model", "revision"],
    }


def _problem(sentence: str) -> CallToolResult:
    from mcp_types import CallToolResult, TextContent

    return CallToolResult(content=[TextContent(text=sentence)], is_error=True)


def _said(values: dict, drawn: str | None = None) -> CallToolResult:
    """Return an answer as data, the same as text for older clients, and a drawn picture (a data: address) beside it."""
    from mcp_types import CallToolResult, ImageContent, TextContent

    content = [TextContent(text=json.dumps(values, ensure_ascii=False))]
    if drawn is not None:
        content.append(ImageContent(data=drawn.partition(",")[2], mime_type="image/jpeg"))
    return CallToolResult(content=content, structured_content=values)


def _asked(arguments: dict) -> tuple[io.BytesIO, Query]:
    """Return the picture in `image_base64`, and whether `with_heatmap` wants its evidence drawn in.

    Raises:
        UsageError, ImageError: it makes no sense.
    """
    wanted = arguments.get("with_heatmap", False)
    if not isinstance(wanted, bool):
        raise UsageError("with_heatmap is neither true nor false; leave it out or send one of them.")
    return api.Sent(None, _picture(arguments)).read(), Query(heatmap=wanted)


def _classify(offer: Offer, sent: io.BytesIO, query: Query) -> CallToolResult:
    """Answer a picture."""
    whole = api.answer(offer.classifier, sent, query)
    row = whole["results"][0]
    values = {
        **{name: row[name] for name in ("label", "probabilities", "log_odds")},
        "strongest_evidence": _where(row),
        **{name: whole[name] for name in ("model", "revision")},
    }
    return _said(values, row.get("heatmap"))


def _where(row: dict) -> str | None:
    """Say where the strongest evidence for the answer lies, such as 'in the upper left'."""
    if row["evidence"] is None:
        return None
    maps = row["evidence"]["maps"]
    evidence = np.stack([maps[label] for label in maps], axis=-1)
    where = words.place(shown_map(evidence, list(maps).index(row["label"])))
    return where and Say().plain(f"words.{where}")


def _picture(arguments: dict) -> io.BytesIO:
    """Return the bytes that came in base64.

    Raises:
        ImageError: there are none.
    """
    text = arguments.get("image_base64")
    if not isinstance(text, str) or not text:
        raise ImageError("There is no picture; send its bytes in base64 as image_base64.")
    text = text.partition(";base64,")[2] or text  # a data: address, as a browser writes it
    try:
        return io.BytesIO(base64.b64decode("".join(text.split()), validate=True))
    except ValueError as error:
        problem = "image_base64 is not base64; send the bytes of the picture's file, not a path, an address or text."
        raise ImageError(problem) from error
