"""What the served page costs: ready, POST /api/predict beside the model alone and a stock gr.Interface, memory.

    python -m benchmarks.server [--requests 1000] [--clients 32] [--only ready latency throughput memory] [--json]

*ready*: from the start of app.py to its first answered POST /api/predict, and `python -c "import gradio"`; in turns.

*latency*: POST /api/predict?heatmap=true by one client, less an empty request on the same connection; and what the
model cannot do without, decoding and its own run, on the same bytes in a process of its own. In turns, each after a
pause, so that no thread of the one still spins while the other is measured.

*throughput*: answers with a heatmap per second, for many clients at once, from the endpoint and from the same model
behind a stock `gr.Interface` (benchmarks/stock.py), asked as its own JavaScript asks: upload, join the queue, follow
the events, fetch the picture. The stock app is also measured with the `concurrency_limit` that serves it best, and
with that and heatmaps in JPEG. All run at once, each in its process, and take turns in being asked; a turn counts
the answers that fall into a window which opens when all clients are busy. The clients share the machine's
processors with the server, so the table says how many of them each keeps busy.

*memory*: of a fresh app.py at rest, after N requests and after another N of photos of 0.3 and 12 megapixels; then its
peak when many clients send pictures as large as are read.

Linux only (/proc). Nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import pictures
from benchmarks.client import Connection, Page, Unanswered, Visitor
from benchmarks.processes import APP, ROOT, STOCK, Server, address_of, launch, running, stop
from benchmarks.speed import quartiles
from hub import ImageClassifier
from hub.bundle import DEFAULT

PARTS = ("ready", "latency", "throughput", "memory")
PREDICT = "/api/predict?heatmap=true"
EMPTY = "/healthz"  # a request that asks for nothing
WANTED = {"ready": 3.0, "latency": 2.0, "throughput": (3.0, 5.0), "rest": 400e6, "growth": 20e6, "peak": 1e9}

STARTS = 5
ROUNDS, WARM_UP, PAUSE = 30, 5, 0.05  # turns of the latency; seconds between two measurements
TURNS, RAMP, WINDOW = 4, 3.0, 10.0  # of the throughput; seconds until all clients are busy, seconds counted
LIMITS = (2, 4, 8, 16)  # tried for the stock app's concurrency_limit, beside its own
TRIAL = 6.0  # seconds for each of them
SETTLE = 3.0  # seconds after the last answer until memory is read
LARGE = 64  # pictures as large as are read
TOLERANCE = 1e-3  # between the two sides' answers, in probability

ALONE = """
import json, sys, time
from pathlib import Path
from hub import ImageClassifier
from hub.images import to_tensor
classifier = ImageClassifier.from_pretrained(sys.argv[1])
photos = [Path(path).read_bytes() for path in sys.argv[2:]]
print("ready", flush=True)
for line in sys.stdin:
    photo = photos[int(line)]
    start = time.perf_counter()
    tensor = to_tensor(photo, classifier.image_size)
    decoded = time.perf_counter()
    classifier.predict_tensors(tensor[None])
    print(json.dumps([decoded - start, time.perf_counter() - decoded]), flush=True)
"""


# ---------------------------------------------------------------- ready


def ready(model: Path, photo: bytes, times: int = STARTS) -> dict:
    """Return the seconds to the first answer of a new app.py, and those of Gradio's import alone."""
    seconds: dict[str, list[float]] = {"answer": [], "import": []}
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import gradio"], cwd=ROOT, check=True)
        seconds["import"].append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            process = launch(APP, "--model", model, folder=Path(folder))
            try:
                asyncio.run(first_answer(address_of(process, Path(folder)), photo))
                seconds["answer"].append(time.perf_counter() - start)
            finally:
                stop(process)
    beside = np.subtract(seconds["answer"], seconds["import"])
    return {name: quartiles(np.array(values)) for name, values in {**seconds, "beside": beside}.items()}


async def first_answer(address: str, photo: bytes) -> dict:
    """Ask once; returns the result.

    Raises:
        Unanswered: the answer is another one than 200.
    """
    connection = Connection.to(address)
    try:
        return await predicted(connection, photo)
    finally:
        await connection.close()


async def predicted(connection: Connection, photo: bytes) -> dict:
    """Return what POST /api/predict says of one photo."""
    reply = await connection.request("POST", PREDICT, photo, {"Content-Type": "application/octet-stream"})
    if reply.status != 200:
        raise Unanswered(f"POST {PREDICT} answered {reply.status}: {reply.body[:200]!r}")
    return reply.json()["results"][0]


# ---------------------------------------------------------------- latency


def latency(server: Server, model: Path, photos: dict[str, bytes], rounds: int = ROUNDS) -> dict[str, dict]:
    """Return, for each photo, the seconds of the server and of the model alone, and how many times as many they are."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(photos))]
        for path, photo in zip(paths, photos.values(), strict=True):
            path.write_bytes(photo)
        command = [sys.executable, "-c", ALONE, str(model.resolve()), *map(str, paths)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=ROOT, **pipes) as alone:
            alone.stdout.readline()

            def by_itself(number: int) -> list[float]:
                print(number, file=alone.stdin, flush=True)
                return json.loads(alone.stdout.readline())

            found = {
                name: asyncio.run(_latency(server.address, photo, lambda number=number: by_itself(number), rounds))
                for number, (name, photo) in enumerate(photos.items())
            }
            alone.stdin.close()
    return found


async def _latency(address: str, photo: bytes, by_itself: Callable[[], list[float]], rounds: int) -> dict:
    connection = Connection.to(address)
    rows = []
    for turn in range(-WARM_UP, rounds):
        time.sleep(PAUSE)
        empty = await timed(connection.request("GET", EMPTY))
        time.sleep(PAUSE)
        whole = await timed(predicted(connection, photo))
        time.sleep(PAUSE)
        decoding, run = by_itself()
        if turn >= 0:
            rows.append((whole - empty, decoding, run, (whole - empty) / (decoding + run)))
    await connection.close()
    return dict(zip(("server", "decoding", "model", "times"), map(quartiles, np.array(rows).T), strict=True))


async def timed(request: Awaitable) -> float:
    """Return the seconds that an awaitable takes."""
    start = time.perf_counter()
    await request
    return time.perf_counter() - start


# ---------------------------------------------------------------- throughput


@dataclass(frozen=True)
class Side:
    """A server under comparison, and what makes a client of it: a coroutine that asks once, and one that leaves."""

    server: Server
    client: Callable[[], tuple[Callable[[], Awaitable[dict]], Callable[[], Awaitable[None]]]]


def endpoint(server: Server, photos: list[bytes]) -> Side:
    """The page's own endpoint: one request with the photo, one answer with the heatmap in it."""
    in_turn = itertools.cycle(photos)

    def client():
        connection, photo = Connection.to(server.address), next(in_turn)

        async def ask() -> dict:
            kind = {"Content-Type": "application/octet-stream"}
            reply = await connection.request("POST", PREDICT, photo, kind)
            if reply.status != 200 or b'"data:image/jpeg;base64,' not in reply.body:
                raise Unanswered(f"{reply.status}: {reply.body[:200]!r}")
            return reply.json()["results"][0]["probabilities"]

        return ask, connection.close

    return Side(server, client)


def stock(server: Server, photos: list[bytes]) -> Side:
    """The stock app, as its own JavaScript asks it: upload, join, follow, fetch the picture."""
    page = asyncio.run(Page.at(server.address))
    in_turn = itertools.cycle(photos)

    def client():
        visitor, photo = Visitor(server.address, page, page.event_named("predict")), next(in_turn)

        async def ask() -> dict:
            uploaded = await visitor.upload("photo.jpg", photo)
            message = await visitor.ask(uploaded.json()[0])
            if not message["success"]:
                raise Unanswered(str(message)[:200])
            label, picture = message["output"]["data"]
            heatmap = await visitor.fetch(picture["path"])
            if heatmap.status != 200 or not heatmap.headers["content-type"].startswith("image/"):
                raise Unanswered(f"the heatmap: {heatmap.status}")
            return {row["label"]: row["confidence"] for row in label["confidences"]}

        return ask, visitor.leave

    return Side(server, client)


@dataclass(frozen=True)
class Turn:
    """What one side did in a turn."""

    rate: float  # answers a second within the window
    refused: int  # requests without the answer
    cost: float  # processor seconds of the server an answer; what else runs on the machine changes it least
    load: float  # processors that the clients kept busy
    served: float  # processors that the server kept busy


async def turn(side: Side, clients: int, ramp: float = RAMP, window: float = WINDOW) -> Turn:
    """Keep `clients` busy with a side; counts the answers of `window` seconds, the first `ramp` seconds left out."""
    done: list[float] = []
    refused = 0
    start = time.perf_counter()
    end = start + ramp + window

    async def keep_asking() -> None:
        nonlocal refused
        ask, leave = side.client()
        try:
            while time.perf_counter() < end:
                try:
                    await ask()
                except (Unanswered, OSError, TimeoutError):
                    refused += 1
                    await asyncio.sleep(0.1)  # a server that refuses at once must not be all that is measured
                else:
                    done.append(time.perf_counter())
        finally:
            await leave()

    spent, worked = time.process_time(), side.server.processor_seconds()
    await asyncio.gather(*(keep_asking() for _ in range(clients)))
    wall = time.perf_counter() - start
    worked = side.server.processor_seconds() - worked
    return Turn(
        rate=sum(start + ramp <= moment < end for moment in done) / window,
        refused=refused,
        cost=worked / max(len(done), 1),
        load=(time.process_time() - spent) / wall,
        served=worked / wall,
    )


def check_agreement(answers: dict[str, dict[str, float]]) -> float:
    """Return how far the sides' probabilities are apart; a comparison of different answers would mean nothing."""
    first, *others = answers.values()
    apart = max((abs(first[label] - other[label]) for other in others for label in first), default=0.0)
    if not apart <= TOLERANCE:
        sys.exit(f"The sides do not give the same answer (largest difference: {apart:.3g}); nothing was timed.")
    return apart


def best_limit(model: Path, photos: list[bytes], clients: int, limits: Iterable[int] = LIMITS) -> dict[int, float]:
    """Return the stock app's answers a second for each concurrency_limit tried."""
    rates = {}
    for limit in limits:
        with (
            tempfile.TemporaryDirectory() as folder,
            running(STOCK, "--model", model, "--limit", limit, folder=Path(folder)) as server,
        ):
            rates[limit] = asyncio.run(turn(stock(server, photos), clients, window=TRIAL)).rate
    return rates


def throughput(model: Path, clients: int, turns: int = TURNS, window: float = WINDOW) -> dict:
    """Return each side's answers a second, and how many times as many the endpoint gives."""
    # A photo of its own for each client: Gradio names files by their content, and writes one while it sends it.
    photos = [pictures.small(seed) for seed in range(clients)]
    tried = best_limit(model, photos, clients)
    limit = max(tried, key=tried.get)
    with ExitStack() as stack:

        def served(what: tuple[str, ...], *arguments: object) -> Server:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(running(what, "--model", model, *arguments, folder=folder))

        best = ("--limit", limit)
        sides = {
            "endpoint": endpoint(served(APP), photos),
            "stock": stock(served(STOCK), photos),
            "stock, best limit": stock(served(STOCK, *best), photos),
            "stock, best limit, JPEG": stock(served(STOCK, *best, "--form", "jpeg"), photos),
        }
        apart = check_agreement({name: asyncio.run(_ask_once(side)) for name, side in sides.items()})
        measured: dict[str, list[Turn]] = {name: [] for name in sides}
        for number in range(turns):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                measured[name].append(asyncio.run(turn(sides[name], clients, window=window)))
    rates = {name: np.array([one.rate for one in those]) for name, those in measured.items()}
    return {
        "clients": clients,
        "difference": apart,
        "tried_limits": tried,
        "limit": limit,
        "rates": {name: quartiles(values) for name, values in rates.items()},
        "times": {name: quartiles(rates["endpoint"] / values) for name, values in rates.items() if name != "endpoint"},
        "refused": {name: sum(one.refused for one in those) for name, those in measured.items()},
        **{
            what: {name: quartiles(np.array([getattr(one, what) for one in those])) for name, those in measured.items()}
            for what in ("cost", "load", "served")
        },
    }


async def _ask_once(side: Side) -> dict:
    ask, leave = side.client()
    try:
        return await ask()
    finally:
        await leave()


# ---------------------------------------------------------------- memory


async def burst(address: str, photos: Iterable[bytes], clients: int) -> Counter:
    """Send photos by many clients at once; returns how often each status came (0: no answer)."""
    waiting = iter(photos)
    statuses: Counter = Counter()

    async def send() -> None:
        connection = Connection.to(address)
        for photo in waiting:
            try:
                reply = await connection.request("POST", PREDICT, photo, {"Content-Type": "application/octet-stream"})
            except (Unanswered, OSError, TimeoutError):
                statuses[0] += 1
            else:
                statuses[reply.status] += 1
        await connection.close()

    await asyncio.gather(*(send() for _ in range(clients)))
    return statuses


def memory(model: Path, requests: int, clients: int, large: int = LARGE, settle: float = SETTLE) -> dict:
    """Return bytes in memory at rest, before and after, and at the peak."""
    small, phone = pictures.small(), pictures.phone()
    with tempfile.TemporaryDirectory() as folder, running(APP, "--model", model, folder=Path(folder)) as server:

        def sent(photos: Iterable[bytes], count: int) -> Counter:
            statuses = asyncio.run(burst(server.address, itertools.islice(photos, count), clients))
            time.sleep(settle)
            return statuses

        sent([small], 1)
        rest, statuses = [server.memory()], Counter()
        for _ in range(2):
            statuses += sent(itertools.cycle([*[small] * 9, phone]), requests)
            rest.append(server.memory())
        peak = server.peak()
        kinds = pictures.largest() if large else {}
        large_statuses = sent(itertools.cycle(kinds.values()), large)
        return {
            "requests": requests,
            "rest": rest,
            "statuses": _by_name(statuses),
            "peak_before_large": peak,
            "large": large,
            "large_kinds": list(kinds),
            "large_statuses": _by_name(large_statuses),
            "peak": server.peak(),
            "rest_after_large": server.memory(),
            "alive": server.alive,
        }


def _by_name(statuses: Counter) -> dict[str, int]:
    return {str(status) if status else "none": count for status, count in sorted(statuses.items())}


# ---------------------------------------------------------------- all of it


def measure(model: Path, parts: Iterable[str], requests: int, clients: int) -> dict:
    """Return what was asked for; seconds and bytes."""
    small = pictures.small()
    result: dict = {}
    if "ready" in parts:
        result["ready"] = ready(model, small)
    if "latency" in parts:
        with tempfile.TemporaryDirectory() as folder, running(APP, "--model", model, folder=Path(folder)) as server:
            result["latency"] = latency(server, model, {"0.3 MP": small, "12 MP": pictures.phone()})
    if "throughput" in parts:
        result["throughput"] = throughput(model, clients)
    if "memory" in parts:
        result["memory"] = memory(model, requests, clients)
    return {
        "model": ImageClassifier.from_pretrained(model).name,
        **result,
        "own_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "versions": {name: version(name) for name in ("gradio", "numpy", "onnxruntime", "pillow")},
    }


def table(result: dict) -> str:
    """Return the measurements as a Markdown table, what is wanted beside them."""
    rows = [f"| {result['model']} | median | quartiles | wanted |", "|---|---|---|---|"]
    for part, write in {"ready": _ready, "latency": _latency_rows, "throughput": _rates, "memory": _memory}.items():
        if part in result:
            rows += write(result[part])
    return "\n".join(rows)


def _row(name: str, values: dict[str, float], unit: str, factor: float = 1, wanted: str = "") -> str:
    low, median, high = (f"{values[key] * factor:.3g}" for key in ("low", "median", "high"))
    return f"| {name} | {median} {unit} | {low} - {high} {unit} | {wanted} |"


def _ready(found: dict) -> list[str]:
    return [
        _row("start to the first answer", found["answer"], "s"),
        _row("`import gradio` alone", found["import"], "s"),
        _row("ready besides it", found["beside"], "s", wanted=f"≤ {WANTED['ready']:g} s"),
    ]


def _latency_rows(found: dict) -> list[str]:
    rows = []
    for name, values in found.items():
        rows += [
            _row(f"{name}: POST /api/predict with heatmap, server", values["server"], "ms", 1000),
            _row(f"{name}: decoding alone", values["decoding"], "ms", 1000),
            _row(f"{name}: the model's own run alone", values["model"], "ms", 1000),
            _row(f"{name}: times as long", values["times"], "×", wanted=f"≤ {WANTED['latency']:g} ×"),
        ]
    return rows


def _rates(found: dict) -> list[str]:
    least, beyond = WANTED["throughput"]
    rows = []
    for name, values in found["rates"].items():
        title = name.replace("best limit", f"concurrency_limit={found['limit']}")
        rows.append(_row(f"{title}: answers a second, {found['clients']} clients", values, "/s"))
        rows.append(_row(f"{title}: processor time an answer", found["cost"][name], "ms", 1000))
        if name in found["times"]:
            wanted = f"≥ {least:g} ×, beyond: {beyond:g} ×" if name == "stock" else ""
            rows.append(_row(f"the endpoint, times the {title}", found["times"][name], "×", wanted=wanted))
    for who, what in {"clients": "load", "server": "served"}.items():
        shares = " - ".join(f"{side['median']:.2f}" for side in sorted(found[what].values(), key=lambda s: s["median"]))
        rows.append(f"| processors kept busy by the {who}, of {os.cpu_count()}, by side | {shares} | | |")
    return [*rows, f"| requests refused | {sum(found['refused'].values())} | | 0 |"]


def _memory(found: dict) -> list[str]:
    first, middle, last = (f"{value / 1e6:.0f} MB" for value in found["rest"])
    count, growth = found["requests"], (found["rest"][2] - found["rest"][1]) / 1e6
    statuses = ", ".join(f"{status}: {times}" for status, times in found["large_statuses"].items())
    return [
        f"| memory at rest, after 1 request | {first} | | |",
        f"| after {count:,} requests | {middle} | | ≤ {WANTED['rest'] / 1e6:.0f} MB |",
        f"| after {2 * count:,} requests | {last} ({growth:+.0f}) | | flat |",
        f"| peak, with {found['large']} pictures as large as are read ({statuses}) | {found['peak'] / 1e6:.0f} MB | "
        f"| ≤ {WANTED['peak'] / 1e6:.0f} MB |",
        f"| at rest after them | {found['rest_after_large'] / 1e6:.0f} MB | | |",
    ]


def main() -> None:
    """Read the command line, measure, print the table or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--requests", type=int, default=1000, help="for the memory, twice (default: 1000)")
    parser.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", action="store_true", help="print the numbers too, as JSON")
    options = parser.parse_args()
    result = measure(options.model, options.only, max(options.requests, 1), max(options.clients, 1))
    print(table(result))
    if options.json:
        print("", json.dumps(result, indent=2), sep="\n")


if __name__ == "__main__":
    main()
