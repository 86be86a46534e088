"""The one budget of work: its places, its turns, and that every door of the server keeps to it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from PIL import Image

from hub import ImageClassifier, images
from space import work
from space.work import Work, is_large
from tests.pictures import encode, scene
from tests.space import test_many
from tests.space.conftest import Visitor, file_data, served
from tests.space.test_api import ask
from tests.space.test_tools import classify


class Watch:
    """Counts how many calls are under way at once, and the most that ever were."""

    def __init__(self):
        self.now = self.most = self.calls = 0
        self._lock = threading.Lock()

    def on(self, function: Callable) -> Callable:
        """Return the function, watched and a little slower."""

        def call(*arguments, **options):
            with self._lock:
                self.now, self.calls = self.now + 1, self.calls + 1
                self.most = max(self.most, self.now)
            try:
                time.sleep(0.002)
                return function(*arguments, **options)
            finally:
                with self._lock:
                    self.now -= 1

        return call


def waiting(budget: Work) -> dict[tuple[str, bool], int]:
    """How many wait, by door and kind."""
    with budget._changed:
        return {tuple(line): len(jobs) for line, jobs in budget._lines.items()}


def test_every_door_shares_the_places(classifier_2, cat, tmp_path, monkeypatch):
    """HTTP, MCP, one picture, another method, two models, many pictures and gradio_client: nothing runs beside it."""
    watch, photo = Watch(), cat.read_bytes()
    monkeypatch.setattr(images, "_from_bytes", watch.on(images._from_bytes))  # whatever decodes
    monkeypatch.setattr(ImageClassifier, "predict_tensors", watch.on(ImageClassifier.predict_tensors))
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(encode(scene(90 + n, 60), "PNG"))
    with served(classifier_2, other=classifier_2) as address, ThreadPoolExecutor(8) as clients:
        events = Visitor(address).config["dependencies"]
        for_programs = next(event["id"] for event in events if event["api_name"] == "predict")
        answered, dropped = Visitor(address), Visitor(address)
        assert answered.ask(photo)["success"]
        run = test_many.drop(dropped, sorted(tmp_path.iterdir()))["run"]

        def page(target: str | int, *more: None) -> bool:
            visitor = Visitor(address)
            return visitor.send(target, file_data(visitor.upload("cat.jpg", photo)), *more)["success"]

        doors = [
            lambda: ask(address, "api/predict?heatmap=true", photo)[0] == 200,
            lambda: not classify(address, photo).is_error,
            partial(page, "photo", None),
            partial(page, "compare-photo"),
            partial(page, for_programs),
            lambda: answered.send("label", None, "cat", "occlusion")["success"],
            lambda: len(test_many.ask(dropped, run=run, done=0)["rows"]) == 6,
        ]
        with busy(work.WORK), busy(work.WORK):
            watch.calls = watch.most = 0
            asked = [clients.submit(door) for door in doors]
            everybody = {("http", False): 1, ("mcp", False): 1, ("page", False): 3, ("page", True): 1}
            ends = time.monotonic() + 20
            while not everybody.items() <= (found := waiting(work.WORK)).items() or ("many", False) not in found:
                assert time.monotonic() < ends, f"some do not wait: {found}"
                time.sleep(0.02)
            assert watch.calls == 0
        assert all(done.result() for done in asked)
    assert watch.calls > 20
    assert watch.most == work.PLACES


@contextmanager
def busy(budget: Work, **options) -> Iterator[None]:
    """Keep a place busy while the block runs."""
    begun, done = threading.Event(), threading.Event()
    budget.submit("test", lambda: begun.set() or done.wait(60), **options)
    assert begun.wait(5)
    try:
        yield
    finally:
        done.set()


def test_a_crowd_at_one_door_holds_up_nobody_at_another():
    budget, order = Work(1), []
    with busy(budget):
        asked = [("http", n) for n in range(50)] + [("page", 0), ("page", 1), ("mcp", 0)]
        futures = [budget.submit(door, order.append, (door, n)) for door, n in asked]
    for future in futures:
        future.result(5)
    assert order[:6] == [("http", 0), ("page", 0), ("mcp", 0), ("http", 1), ("page", 1), ("http", 2)]
    assert sorted(order) == sorted(asked)


def test_long_work_leaves_a_place_to_short_work():
    budget, order = Work(2), []
    with busy(budget, alone=True):
        long = [budget.submit("page", order.append, f"long {n}", alone=True) for n in range(3)]
        assert budget.submit("page", order.append, "short").result(5) is None
        assert order == ["short"]
    for future in long:
        future.result(5)
    assert order[1:] == ["long 0", "long 1", "long 2"]


def test_who_gives_up_takes_no_place():
    """A request whose time is over: it is not begun any more, or counts until it has ended."""
    budget, order = Work(1), []

    async def impatient(alone: bool) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await budget.wait("http", order.append, "late", alone=alone)

    with busy(budget):
        with ThreadPoolExecutor(1) as thread:  # Playwright may have an event loop running in this one
            for alone in (False, True):
                thread.submit(lambda alone=alone: asyncio.run(impatient(alone))).result()
        next_one = budget.submit("page", order.append, "next", alone=True)
        assert not order
    next_one.result(5)
    assert order == ["next"]


def test_an_error_is_its_callers_and_leaves_nothing_behind():
    """Neither the place, nor what the error has seen: a picture, for example."""

    class Picture:
        pass

    seen = []

    def fail() -> None:
        picture = Picture()
        seen.append(weakref.ref(picture))
        raise ValueError("no")

    budget = Work(1)
    with pytest.raises(ValueError, match="no"):
        budget.run("page", fail, alone=True)
    gc.disable()
    try:
        assert budget.run("page", int, "1", alone=True) == 1
        assert seen[0]() is None
    finally:
        gc.enable()


def test_large_pictures_are_told_by_their_first_bytes(tmp_path):
    large = encode(Image.new("1", (5000, 4000)), "PNG")
    (tmp_path / "large.png").write_bytes(large)
    assert is_large(tmp_path / "large.png") and is_large(large[:100])
    assert not is_large(encode(scene(), "PNG")) and not is_large(b"") and not is_large(tmp_path / "gone.png")
