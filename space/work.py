"""One budget of work for everybody who asks: the tabs of the page, HTTP and MCP.

Whatever decodes a picture or runs a model does it here, in one of PLACES threads: so never more of it is under way at
once, whoever asks. The doors through which requests come take turns, so a crowd at one of them holds up nobody at
another for longer than the work that is under way.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hub.images import LARGE_PIXELS, declared_pixels

PLACES = 2  # more than a small machine's cores only take turns
HEAD = 2**20  # bytes of a file in which its size in pixels stands

Result = TypeVar("Result")


class Line(NamedTuple):
    """Those who wait for the same: they came through one door, and want a short or a long time."""

    door: str
    alone: bool


class Work:
    """Threads that call functions for others, in turn.

    What takes long or much memory is called `alone`: one of that kind at a time, so that short work has a place left.
    Work that waits for other work in here would wait for ever.
    """

    def __init__(self, places: int = PLACES):
        self._places, self._threads = places, 0
        self._lines: dict[Line, deque[tuple[Future, Callable[[], Any]]]] = {}  # the next turn is the first one's
        self._alone = False  # whether work of that kind is under way
        self._changed = threading.Condition()

    def submit(self, door: str, function: Callable[..., Result], *arguments, alone: bool = False) -> Future[Result]:
        """Ask for a call; to cancel the future takes it back as long as it waits."""
        future: Future[Result] = Future()
        with self._changed:
            self._lines.setdefault(Line(door, alone), deque()).append((future, partial(function, *arguments)))
            if self._threads < self._places:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"work-{self._threads}", daemon=True).start()
            self._changed.notify()
        return future

    def run(self, door: str, function: Callable[..., Result], *arguments, alone: bool = False) -> Result:
        """Call a function in its turn, and wait for what it returns or raises."""
        return self.submit(door, function, *arguments, alone=alone).result()

    async def wait(self, door: str, function: Callable[..., Result], *arguments, alone: bool = False) -> Result:
        """As `run`, for who must not block; who is cancelled gives the turn back."""
        return await asyncio.wrap_future(self.submit(door, function, *arguments, alone=alone))

    def _serve(self) -> None:
        while True:
            self._call_next()

    def _call_next(self) -> None:
        with self._changed:
            line = self._changed.wait_for(self._next_line)
            waiting = self._lines.pop(line)
            future, call = waiting.popleft()
            if waiting:
                self._lines[line] = waiting  # behind the others
            self._alone |= line.alone
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(call())
        except BaseException as error:  # it is the caller's
            future.set_exception(error)
        finally:
            del future  # which the error holds on to
            if line.alone:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()

    def _next_line(self) -> Line | None:
        return next((line for line in self._lines if not (line.alone and self._alone)), None)


WORK = Work()


def is_large(picture: Path | bytes) -> bool:
    """Tell whether a picture, a file or its first bytes, is one of those that are decoded one at a time."""
    if isinstance(picture, Path):
        try:
            with picture.open("rb") as file:
                picture = file.read(HEAD)
        except FileNotFoundError:
            return False  # who decodes it will say so
    return declared_pixels(picture) > LARGE_PIXELS
