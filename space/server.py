"""One process, one port: the HTTP endpoint and, under everything else, the page."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI

from hub import UsageError
from space import guards, languages, limits, tools
from space.api import api, reply
from space.offer import Offer
from space.page import STYLES, theme
from space.visits import Visits

# A picture that is dropped beside a field would take the page's place in the browser, and all that is on it.
STAY = """() => ["dragover", "drop"].forEach((name) =>
    document.addEventListener(name, (event) => event.preventDefault()))"""
LINGER = 2  # seconds that answers in work get to finish when the server stops
PORT, TRIED = 7860, 100  # the first port that is free of these


def application(page: gr.Blocks, offer: Offer) -> FastAPI:
    """Return the server: the endpoint at /api, and the page, both behind what guards them.

    Everything Gradio could send elsewhere or keep is off: its share link, run history, monitoring, its own MCP server.
    """
    guards.stay_home()
    guards.return_memory()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.api_route("/healthz", methods=["GET", "HEAD"])(healthz)
    app.mount("/api", api(offer))
    app.add_route(limits.MCP, tools.application(offer))
    visiting = Visits(page, guards.uploaded)
    app.add_middleware(limits.Limits, visiting=visiting)
    page.state_session_capacity = guards.SESSIONS
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme(),
        css_paths=STYLES,
        js=STAY,
        i18n=languages.i18n(),
        footer_links=[],
        max_file_size=limits.BODIES[limits.UPLOAD].size,  # a zip; of pictures, guards has the limit
        show_error=False,  # what a visitor can cause is answered in the page; the rest would reveal paths
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    visiting.sessions = app.routes[-1].app.state_holder
    # A mounted page counts as not launched: Gradio would copy any file that a request names into the upload folder.
    page.has_launched = True
    return app


async def healthz():
    """Say that the server answers."""
    return reply({"status": "ok"}, headers={"Access-Control-Allow-Origin": "*"})


@contextmanager
def serving(app: FastAPI, *, host: str | None = None, port: int | None = None) -> Iterator[str]:
    """Serve while the block runs; gives the address.

    Raises:
        UsageError: nobody can listen there.
    """
    host = host or "127.0.0.1"
    with _bound(host, port) as listener:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=LINGER + 2)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The server did not start; see the lines above.")
            time.sleep(0.005)
        try:
            shown = f"[{host}]" if ":" in host else "localhost" if host == "0.0.0.0" else host
            yield f"http://{shown}:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(timeout=LINGER)
            # An open page keeps a stream that has no end. Hanging up ends it as a closed tab does; what is still open
            # when uvicorn's own time is over would be cancelled, with a traceback for each.
            for connection in list(server.server_state.connections):
                connection.loop.call_soon_threadsafe(connection.transport.close)
            thread.join(timeout=10)


def _bound(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port, without one named on the first free one from PORT on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(PORT, PORT + TRIED) if port is None else [port]:
        # The protocol is named because only then asyncio sends at once what is written: else an answer's body waits
        # for the client to acknowledge its head, 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except (OSError, OverflowError) as error:  # the second is Python's for a port above 65535
            listener.close()
            problem = error
        else:
            return listener
    taken = f"Port {port}" if port is not None else f"Every port from {PORT} to {PORT + TRIED - 1}"
    reason = (getattr(problem, "strerror", None) or str(problem)).lower()
    raise UsageError(f"{taken} cannot be listened on at {host} ({reason}); name another with --port.") from problem
