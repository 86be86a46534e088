"""A thousand odd, broken and hostile files at 32 clients, and whether the server is still what it was.

    python -m benchmarks.hostile [--files 1000] [--clients 32] [--seed 0] [--json]

Starts app.py and sends it what benchmarks/hostile_files.py draws from the seed, partly in ways that are hostile
themselves (broken forms, wrong lengths, chunks, bodies that come slowly, stop or are cut off): to POST /api/predict,
and to the page's own upload and queue. Every 50th is a sound photo, by either way, and its answer must be the one
that `hub` gives. Counted are the answers by status, and what must not be there: a status of 500 or more, a wrong
answer, a stack trace or a path in an answer, a process that ended, memory that grew, files that stay.

Ends with exit code 1 where something of that happened. Linux only (/proc). Nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import hostile_files, pictures
from benchmarks.client import Connection, Page, Reply, Unanswered, Visitor, multipart
from benchmarks.hostile_files import File
from benchmarks.processes import APP, Server, running
from hub import ImageClassifier
from hub.bundle import DEFAULT

GOOD_EVERY = 50
PAGE_SHARE, TRICK_SHARE = 0.35, 0.3  # of the files: sent to the page; sent in a hostile way
GROWTH = 50e6  # bytes at rest by which the second half of the files may raise the first half's
SETTLE = 5.0  # seconds after the last answer until memory and files are looked at
FORGET = 60.0  # seconds within which a visit's files must be gone once its tab is closed
GIVE_UP, PATIENT = 2.0, 40.0  # seconds until a client that stalls on purpose hangs up; a patient one
ERROR = re.compile(r"[ +|]*[\w.]*(Error|Exception|Group)\b")  # how the last line of a stack trace begins
SHOWN = 30  # of what must not be
SAME = 1e-5  # between hub's probabilities here and the endpoint's
LEAKS = (b"Traceback", b"site-packages", b"root:x:")
PATHS = (b"uploads-", b"/tmp")  # which the page's own answers name, but no refusal
API, UPLOAD = "/api/predict", "/gradio_api/upload"
JPEG = {"Content-Type": "image/jpeg"}

TEXT_FORM = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n'  # without a file

# Payloads for the page's picture that are no upload of this visit.
PAYLOADS = (
    {"path": "/proc/self/environ"},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "../../../../etc/passwd", "meta": {"_type": "gradio.FileData"}, "is_stream": True},
    {"path": "", "url": "http://127.0.0.1:1/cat.jpg", "meta": {"_type": "gradio.FileData"}},
    {"url": "data:image/png;base64,iVBORw0KGgo=", "meta": {"_type": "gradio.FileData"}},
    {"path": "a\0b", "meta": {"_type": "gradio.FileData"}},
    {"path": ["list"], "meta": 3},
    "a sentence",
    7,
    [],
)
# Bodies of POST /gradio_api/queue/join that no page sends.
JOINS = (b"", b"{", b"[]", b"null", b"{}", b'{"data": null}', b'{"data": [1], "fn_index": 99999, "session_hash": "x"}')


@dataclass
class Case:
    """One thing to send: a file, and the way it goes."""

    number: int
    file: File
    way: str
    chance: random.Random = field(repr=False)


@dataclass
class Findings:
    """What came back, and what must not have come."""

    outcomes: Counter = field(default_factory=Counter)  # (way's side, outcome)
    bad: list[str] = field(default_factory=list)
    good: int = 0  # sound photos answered correctly

    def note(self, case: Case, outcome: object, body: bytes = b"", status: int = 0) -> None:
        """Count an outcome, and keep the case if it must not be."""
        side = "page" if case.way in PAGE_WAYS or case.way == "good, page" else "endpoint"
        self.outcomes[side, str(outcome)] += 1
        if status >= 500:
            self._bad(case, f"{status}: {body[:150]!r}")
        if any(leak in body for leak in LEAKS + (PATHS if status != 200 and outcome != "answer" else ())):
            self._bad(case, f"it tells too much: {body[:300]!r}")

    def _bad(self, case: Case, what: str) -> None:
        self.bad.append(f"file {case.number} ({case.file.kind}, {case.file.name!r}, {case.way}): {what}")

    def wrong(self, case: Case, what: str) -> None:
        """Keep a sound photo that was not answered as it should be."""
        self._bad(case, what)


# ---------------------------------------------------------------- ways to the endpoint


async def _raw(connection: Connection, case: Case) -> Reply:
    kind = case.chance.choice(["image/jpeg", "application/octet-stream", "text/html", "application/json", "x", ""])
    return await connection.request("POST", API + _query(case.chance), case.file.content, {"Content-Type": kind})


def _query(chance: random.Random) -> str:
    return chance.choice(["", "?heatmap=true", "?evidence=false", "?heatmap=true&label=dog&opacity=0.3"])


async def _form(connection: Connection, case: Case) -> Reply:
    files = [(_header_safe(case.file.name), case.file.content)]
    if case.chance.random() < 0.4:
        files += [("cat.jpg", hostile_files.good("JPEG")), ("notes.txt", b"hello")] * case.chance.randint(1, 3)
    body, kind = multipart(files, case.chance.choice(["files", "file", "image"]))
    return await connection.request("POST", API + _query(case.chance), body, {"Content-Type": kind})


def _header_safe(name: str) -> str:
    """A name as browsers write it into a form's header."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


async def _broken_form(connection: Connection, case: Case, path: str = API) -> Reply:
    body, kind = multipart([(_header_safe(case.file.name), case.file.content)])
    body, kind = case.chance.choice(
        [
            (body, "multipart/form-data"),
            (body, "multipart/form-data; boundary="),
            (body, "multipart/form-data; boundary=another"),
            (body[: len(body) // 2], kind),
            (body.replace(b"Content-Disposition", b"X"), kind),
            (body.replace(b'filename="', b'filename="' + b"a" * 20_000), kind),
            (body.replace(b"\r\n", b"\n"), kind),
            (b"", kind),
            (b"--x--\r\n", "multipart/form-data; boundary=x"),
            (
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n',
                "multipart/form-data; boundary=x",
            ),
        ]
    )
    return await connection.request("POST", path, body, {"Content-Type": kind})


async def _bad_query(connection: Connection, case: Case) -> Reply:
    query = case.chance.choice(
        [
            "heatmap=perhaps",
            "evidence=2",
            "heatmap=true&opacity=99",
            "heatmap=true&opacity=nan",
            "heatmap=true&opacity=-inf",
            "heatmap=true&label=nobody",
            "heatmap=true&label=%00",
            "heatmap=true&label=" + "a" * 5000,
            "heatmap=true&heatmap=false&" + "a=b&" * 500,
        ]
    )
    return await connection.request("POST", f"{API}?{query}", hostile_files.good("JPEG"), JPEG)


async def _other_request(connection: Connection, case: Case) -> Reply:
    method, path = case.chance.choice(
        [
            ("GET", API),
            ("PUT", API),
            ("DELETE", API),
            ("POST", "/api/nothing"),
            ("POST", "/api/predict/../../etc/passwd"),
            ("GET", "/api/info"),
            ("POST", "/healthz"),
            ("GET", "/gradio_api/file=/etc/passwd"),
            ("GET", "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd"),
        ]
    )
    return await connection.request(method, path, case.file.content, JPEG)


async def _too_many(connection: Connection, case: Case) -> Reply:
    body, kind = multipart([(f"{number}.jpg", hostile_files.good("JPEG")) for number in range(40)])
    return await connection.request("POST", API, body, {"Content-Type": kind})


async def _too_large(connection: Connection, case: Case) -> Reply:
    return await connection.request("POST", API, case.file.content + bytes(40_000_000), JPEG)


async def _chunked(connection: Connection, case: Case) -> Reply | None:
    size = case.chance.choice([1, 1000, 100_000])
    content = case.file.content[: 3000 * size]
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    body += case.chance.choice([b"0\r\n\r\n"] * 3 + [b"zz\r\n", b"-5\r\n\r\n", b"ffffffffffffffff\r\n"])
    return await _by_hand(connection, {**JPEG, "Transfer-Encoding": "chunked"}, [body])


async def _wrong_length(connection: Connection, case: Case) -> Reply | None:
    size = len(case.file.content)
    length = case.chance.choice([size * 2 + 1000, size // 2, -1, "many", 10**18, f"{size}, {size + 1}", "0x10"])
    headers = {**JPEG, "Content-Length": length}
    if case.chance.random() < 0.2:
        headers["Transfer-Encoding"] = "chunked"  # both: how requests are smuggled
    return await _by_hand(connection, headers, [case.file.content])


async def _slow(connection: Connection, case: Case) -> Reply | None:
    """All of a small body, a bit at a time; it is to be answered."""
    content = case.file.content[:20_000] or b"x"
    size = -(-len(content) // 10)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return await _by_hand(connection, {**JPEG, "Content-Length": len(content)}, pieces, pause=0.2, give_up=60)


async def _stalled(connection: Connection, case: Case) -> Reply | None:
    """Part of a body, then nothing; some wait until the server gives up."""
    headers = {**JPEG, "Content-Length": len(case.file.content) + 10}
    part = case.file.content[: case.chance.choice([0, 1, 5000])]
    return await _by_hand(connection, headers, [part], give_up=PATIENT if case.chance.random() < 0.2 else GIVE_UP)


async def _cut_off(connection: Connection, case: Case) -> Reply | None:
    headers = {**JPEG, "Content-Length": len(case.file.content) + 1}
    return await _by_hand(connection, headers, [case.file.content], give_up=case.chance.choice([0, 0.01, 0.3]))


async def _no_http(connection: Connection, case: Case) -> Reply | None:
    await connection.open()
    await connection.send(case.file.content[:100_000] + b"\r\n\r\n")
    return await _answer_within(connection, GIVE_UP)


async def _by_hand(
    connection: Connection, headers: dict[str, object], pieces: list[bytes], pause: float = 0, give_up: float = GIVE_UP
) -> Reply | None:
    """Send a head and a body as they are, on a connection of their own; None if the client hung up first."""
    await connection.close()
    await connection.open()
    with contextlib.suppress(OSError):
        await connection.send(connection.head("POST", API, headers))
        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(pause)
    return await _answer_within(connection, give_up)


async def _answer_within(connection: Connection, seconds: float) -> Reply | None:
    try:
        async with asyncio.timeout(seconds):
            return await connection.reply()
    except TimeoutError:
        return None
    finally:
        await connection.close()  # what was sent may still stand in front of the next request


API_WAYS = {
    "raw": _raw,
    "form": _form,
    "broken form": _broken_form,
    "bad query": _bad_query,
    "other request": _other_request,
    "too many files": _too_many,
    "too large": _too_large,
    "chunked": _chunked,
    "wrong length": _wrong_length,
    "slow": _slow,
    "stalled": _stalled,
    "cut off": _cut_off,
    "no HTTP": _no_http,
}
API_TRICKS = [way for way in API_WAYS if way not in ("raw", "form")]


async def to_endpoint(connection: Connection, case: Case, findings: Findings) -> None:
    """Send a case to the endpoint and count what comes back."""
    reply = await API_WAYS[case.way](connection, case)
    if reply is None:
        findings.note(case, "the client hung up")
    else:
        findings.note(case, reply.status, reply.body, reply.status)
        if reply.status >= 400 and reply.headers.get("content-type", "").startswith("application/json"):
            sentence = reply.json()
            if case.way in ("raw", "form") and set(sentence) != {"error"}:
                findings.wrong(case, f"its refusal is no sentence: {reply.body[:150]!r}")


# ---------------------------------------------------------------- ways to the page


async def _page_upload(visitor: Visitor, case: Case, findings: Findings) -> None:
    uploaded = await visitor.upload(_header_safe(case.file.name), case.file.content)
    if uploaded.status != 200:
        return findings.note(case, uploaded.status, uploaded.body, uploaded.status)
    message = await visitor.ask(uploaded.json()[0], case.file.name)
    body = json.dumps(message["output"]).encode()
    findings.note(case, _page_outcome(message), body)


def _page_outcome(message: dict) -> str:
    """What a visitor sees: an answer, a sentence in the page, or Gradio's own error."""
    if not message["success"]:
        return "error of the queue"
    return "sentence" if "role='alert'" in json.dumps(message["output"]).replace('\\"', "'") else "answer"


async def _page_broken_form(visitor: Visitor, case: Case, findings: Findings) -> None:
    reply = await _broken_form(visitor.connection, case, UPLOAD)
    findings.note(case, reply.status, reply.body if reply.status != 200 else b"", reply.status)


async def _page_too_large(visitor: Visitor, case: Case, findings: Findings) -> None:
    reply = await visitor.upload("large.jpg", case.file.content + bytes(34_000_000))
    findings.note(case, reply.status, reply.body, reply.status)


async def _page_payload(visitor: Visitor, case: Case, findings: Findings) -> None:
    message = await visitor.ask_with(case.chance.choice(PAYLOADS))
    findings.note(case, _page_outcome(message), json.dumps(message["output"]).encode())


async def _page_join(visitor: Visitor, case: Case, findings: Findings) -> None:
    body = case.chance.choice([*JOINS, case.file.content])
    kind = {"Content-Type": "application/json"}
    reply = await visitor.connection.request("POST", "/gradio_api/queue/join", body, kind)
    findings.note(case, reply.status, reply.body, reply.status)


async def _page_left(visitor: Visitor, case: Case, findings: Findings) -> None:
    """Upload, join the queue, and close the tab before the answer."""
    uploaded = await visitor.upload("photo.jpg", case.file.content)
    findings.note(case, "the client hung up", b"", uploaded.status if uploaded.status >= 500 else 0)
    if uploaded.status == 200:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await visitor.ask(uploaded.json()[0])


PAGE_WAYS = {
    "page: upload": _page_upload,
    "page: broken form": _page_broken_form,
    "page: too large": _page_too_large,
    "page: payload": _page_payload,
    "page: join": _page_join,
    "page: left early": _page_left,
}
PAGE_TRICKS = [way for way in PAGE_WAYS if way != "page: upload"]


# ---------------------------------------------------------------- the sound photos in between


@dataclass(frozen=True)
class Truth:
    """A sound photo and its right answers: hub's probabilities, and the page's texts before anybody was hostile."""

    photo: bytes
    probabilities: dict[str, float]
    texts: tuple[str, ...] = ()


def texts_of(message: dict) -> tuple[str, ...]:
    """Return what the page says in an answer: every HTML text in it."""
    found: list[str] = []

    def visit(value: object) -> None:
        if isinstance(value, str) and value.lstrip().startswith("<"):
            found.append(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)

    visit(message["output"].get("data") if message["success"] else None)
    return tuple(found)


def truth(model: Path, photo: bytes) -> Truth:
    """Return what hub says of a photo."""
    classifier = ImageClassifier.from_pretrained(model)
    shares = map(float, classifier.predict(photo).probabilities)
    return Truth(photo, dict(zip(classifier.labels, shares, strict=True)))


async def good_to_endpoint(connection: Connection, case: Case, right: Truth, findings: Findings) -> None:
    """Send the sound photo to the endpoint; its probabilities must be hub's."""
    reply = await connection.request("POST", API, right.photo, JPEG)
    findings.note(case, reply.status, b"", reply.status)
    if reply.status != 200:
        return findings.wrong(case, f"{reply.status}: {reply.body[:150]!r}")
    found = reply.json()["results"][0]["probabilities"]
    apart = max(abs(found.get(label, 2) - share) for label, share in right.probabilities.items())
    if apart > SAME:
        return findings.wrong(case, f"another answer than hub's, by {apart:.3g}")
    findings.good += 1


async def good_to_page(visitor: Visitor, case: Case, right: Truth, findings: Findings) -> None:
    """Send the sound photo to the page; what it says must be what it said at first."""
    uploaded = await visitor.upload("photo.jpg", right.photo)
    if uploaded.status != 200:
        findings.note(case, uploaded.status, uploaded.body, uploaded.status)
        return findings.wrong(case, "a sound photo was not taken")
    message = await visitor.ask(uploaded.json()[0])
    findings.note(case, _page_outcome(message))
    if _page_outcome(message) != "answer" or texts_of(message) != right.texts:
        return findings.wrong(case, f"another answer than at first: {str(texts_of(message))[:200]}")
    findings.good += 1


# ---------------------------------------------------------------- all of it


def cases(files: int, seed: int) -> Iterator[Case]:
    """Yield what is to be sent; the same for the same seed."""
    for number in range(1, files + 1):
        chance = random.Random(f"{seed}/{number}")
        file = hostile_files.draw(chance)
        page, trick = chance.random() < PAGE_SHARE, chance.random() < TRICK_SHARE
        if number % GOOD_EVERY == 0:
            way = "good, page" if number // GOOD_EVERY % 2 else "good, endpoint"
        elif page:
            way = chance.choice(PAGE_TRICKS) if trick else "page: upload"
        else:
            way = chance.choice(API_TRICKS) if trick else chance.choice(["raw", "form"])
        yield Case(number, file, way, chance)


async def attack(address: str, todo: list[Case], clients: int, right: Truth) -> Findings:
    """Send all cases, `clients` at a time; returns what was found."""
    findings, waiting = Findings(), iter(todo)
    page = await Page.at(address)

    async def client() -> None:
        connection = Connection.to(address)
        for case in waiting:
            try:
                if case.way == "good, endpoint":
                    await good_to_endpoint(connection, case, right, findings)
                elif case.way in API_WAYS:
                    await to_endpoint(connection, case, findings)
                else:
                    await _visit(address, page, case, right, findings)
            except TimeoutError:
                findings.note(case, "no answer")
                findings.wrong(case, "no answer")
            except (Unanswered, OSError) as error:
                _hung_up(case, error, findings)
        await connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return findings


def _hung_up(case: Case, error: Exception, findings: Findings) -> None:
    """The server closed the connection: its right towards broken HTTP, but no answer to a sound photo."""
    status = getattr(error, "status", 0)
    findings.note(case, status or "the server hung up", str(error).encode(), status)
    if case.way.startswith("good"):
        findings.wrong(case, f"a sound photo was not answered: {error}")


async def _visit(address: str, page: Page, case: Case, right: Truth, findings: Findings) -> None:
    visitor = Visitor(address, page, page.event_of("photo"))
    await visitor.arrive()
    try:
        if case.way == "good, page":
            await good_to_page(visitor, case, right, findings)
        else:
            await PAGE_WAYS[case.way](visitor, case, findings)
    finally:
        await visitor.leave()


async def at_first(address: str, right: Truth) -> Truth:
    """Learn what the page says of the sound photo while nobody is hostile."""
    page = await Page.at(address)
    visitor = Visitor(address, page, page.event_of("photo"))
    await visitor.arrive()
    try:
        message = await visitor.ask((await visitor.upload("photo.jpg", right.photo)).json()[0])
    finally:
        await visitor.leave()
    label = max(right.probabilities, key=right.probabilities.get)
    texts = texts_of(message)
    if _page_outcome(message) != "answer" or not any(label in text.lower() for text in texts):
        sys.exit(f"The page does not answer the sound photo ({str(texts)[:200]}); nothing was sent.")
    return Truth(right.photo, right.probabilities, texts)


def state(server: Server, files: int | None = None) -> dict[str, int]:
    """What a server holds at rest: bytes in memory, open files, files on disk; these may go down to `files` first."""
    time.sleep(SETTLE)
    late = time.monotonic() + FORGET
    while files is not None and len(server.files_left()) > files and time.monotonic() < late:
        time.sleep(1)
    return {"memory": server.memory(), "open_files": server.open_files(), "files": len(server.files_left())}


def measure(model: Path, files: int, clients: int, seed: int) -> dict:
    """Return what came of it."""
    todo = list(cases(files, seed))
    halves = todo[: files // 2], todo[files // 2 :]
    right = truth(model, pictures.small())
    outcomes, bad, good, states = Counter(), [], 0, []
    with tempfile.TemporaryDirectory() as folder:
        with running(APP, "--model", model, folder=Path(folder)) as server:
            right = asyncio.run(at_first(server.address, right))
            states.append(state(server))
            seconds = 0.0
            for half in halves:
                start = time.perf_counter()
                found = asyncio.run(attack(server.address, half, clients, right))
                seconds += time.perf_counter() - start
                outcomes, bad, good = outcomes + found.outcomes, bad + found.bad, good + found.good
                states.append(state(server, files=states[0]["files"] if half is halves[-1] else None))
            alive, peak = server.alive, server.peak()
        left = sorted(str(path.relative_to(folder)) for path in server.files_left())
        said = server.log().splitlines()
    growth = states[2]["memory"] - states[1]["memory"]
    sound = sum(case.way.startswith("good") for case in todo)
    return {
        "files": files,
        "clients": clients,
        "seed": seed,
        "seconds": seconds,
        "outcomes": {f"{side}: {outcome}": count for (side, outcome), count in sorted(outcomes.items())},
        "bad": bad,
        "sound": sound,
        "sound_right": good,
        "alive": alive,
        "states": states,
        "peak": peak,
        "growth": growth,
        "files_after_stop": left,
        "stack_traces": sum("Traceback" in line for line in said),
        "errors_logged": dict(Counter(line[:150] for line in said if ERROR.match(line))),
        "fine": alive and not bad and good == sound and growth <= GROWTH and not left,
    }


def table(result: dict) -> str:
    """Return the findings as a Markdown table."""
    before, half, after = result["states"]

    def at_rest(what: str, factor: float = 1, unit: str = "") -> str:
        return ", ".join(f"{one[what] * factor:.0f}{unit}" for one in (before, half, after))

    rows = [f"| {outcome} | {count} | |" for outcome, count in result["outcomes"].items()]
    return "\n".join(
        [
            f"| {result['files']:,} files, {result['clients']} clients, {result['seconds']:.0f} s | found | wanted |",
            "|---|---|---|",
            *rows,
            f"| 5xx, wrong or telling answers | {len(result['bad'])} | 0 |",
            f"| sound photos classified correctly | {result['sound_right']} | {result['sound']} |",
            f"| the process | {'alive' if result['alive'] else 'ended'} | alive |",
            f"| memory at rest: before, after half, after all | {at_rest('memory', 1e-6, ' MB')} | flat |",
            f"| its peak | {result['peak'] / 1e6:.0f} MB | |",
            f"| open files: before, after half, after all | {at_rest('open_files')} | flat |",
            f"| files on disk: before, after half, after all | {at_rest('files')} | |",
            f"| files on disk once it is stopped | {len(result['files_after_stop'])} | 0 |",
            f"| stack traces in its log | {result['stack_traces']} | 0 |",
        ]
    )


def main() -> None:
    """Read the command line, attack, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a bundle's folder (default: the embedded one)")
    parser.add_argument("--files", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other files (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the numbers too, as JSON")
    options = parser.parse_args()
    result = measure(options.model, max(options.files, 2), max(options.clients, 1), options.seed)
    print(table(result))
    print(*result["bad"][:SHOWN], *(f"{path} stayed" for path in result["files_after_stop"][:SHOWN]), sep="\n")
    print(*(f"logged {count} times: {line}" for line, count in result["errors_logged"].items()), sep="\n")
    if options.json:
        print("", json.dumps(result, indent=2), sep="\n")
    sys.exit(0 if result["fine"] else 1)


if __name__ == "__main__":
    main()
