"""The tab that answers many pictures: a table that grows while they are answered, to sort, filter, look into and keep.

The browser holds what is done: it asks for the next 32 pictures, gets their rows, thumbnails and lines of CSV, shows
them and asks again. So nothing that was answered can be lost, visitors take turns, to cancel is not to ask again, and
the server keeps nothing of a picture that is answered: its upload is deleted then. What the table does is
static/many.js's.
"""

from __future__ import annotations

import io
import json
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import ImageOps

from hub import BundleError, ImageClassifier, ImageError
from hub.batch import BATCH, Answer, answers, columns, csv_line, row
from hub.errors import printable
from hub.heatmaps import layer, shown_map
from hub.images import to_tensor_and_picture
from hub.scores import NEARLY_0, NEARLY_1
from space import guards
from space.archives import ENTRY, NAME, Allowance, Archive
from space.html import data_url
from space.languages import Say, fixed, texts, voice_for
from space.offer import Offer
from space.viewer import jpeg, scale_of
from space.work import WORK, is_large

MOST = 500  # pictures of one drop
ZIPS = 20  # of one drop; each may take a tenth of a second to open, whatever is in it
THUMBNAIL, PICTURE, MAP = 64, 384, 64  # pixels: a side in the table, the longer side when opened, a side of the map
QUALITY = 75  # of their JPEG
NAMED = 5  # labels whose probability is listed when a row is opened; files that a note names
# The verdict is read off the margin, the difference of the two highest probabilities. With two labels the bounds are
# 95 % and 75 % for the answer: if the probabilities hold, at most one sure answer in twenty is wrong.
SURE, LIKELY = 0.9, 0.5
SCRIPT = (Path(__file__).parent / "static" / "many.js").read_text(encoding="utf-8")
LOST = "() => { document.dispatchEvent(new Event('many-lost')); return []; }"


def margin_of(probabilities: np.ndarray) -> float:
    """Return the difference of the two highest probabilities (K,)."""
    second, first = np.sort(probabilities.astype(np.float64))[-2:]
    return float(first - second)


def verdict(margin: float) -> str:
    """Return what a margin means: "sure", "likely" or "doubt"."""
    return "sure" if margin >= SURE else "likely" if margin >= LIKELY else "doubt"


# ---------------------------------------------------------------- one drop


@dataclass(eq=False)
class Item:
    """One picture of a drop; thumbnail and picture (JPEG) are there from when it is decoded until it is sent."""

    name: str
    read: Callable[[], bytes]
    upload: Path
    thumbnail: bytes = b""
    picture: bytes = b""


class Run:
    """What a visitor dropped and how far it is answered; safe in several threads."""

    def __init__(self, files: list[tuple[Path, str]]):
        """Take uploads, each with its own name, into a folder of the run: twins of other visitors share theirs."""
        self.id = secrets.token_urlsafe(8)
        self.done = self.found = 0
        self.items: list[Item] = []
        self.skipped: dict[str, tuple[list[str], int]] = {}  # by zip: files that are no pictures, and how many are
        self._folder = Path(tempfile.mkdtemp(prefix="many-", dir=get_upload_folder()))
        self._archives: list[Archive] = []
        self._allowance = Allowance()
        self._sent: tuple[int, str] | None = None  # the last message and what was done before it
        self._lock, self._closed = threading.Lock(), False
        several = sum(_is_zip(name) for _, name in files) > 1
        self.found += len(files[MOST:])
        for (_, name), upload in zip(files[:MOST], self._taken([path for path, _ in files]), strict=False):
            if _is_zip(name):
                self._open(upload, name, inside=f"{name}/" if several else "")
            else:
                self._add(Item(name, partial(_content, upload, name), upload))
        self._uses = Counter(item.upload for item in self.items)

    def _taken(self, paths: list[Path]) -> list[Path]:
        """Move files into the run's folder; one that was dropped twice lies in one place."""
        moved: dict[Path, Path] = {}
        for path in paths:
            if path not in moved:
                moved[path] = self._folder / str(len(moved))
                with suppress(FileNotFoundError):  # gone since: its row will say so
                    path.rename(moved[path])
        return [moved[path] for path in paths]

    def _open(self, upload: Path, name: str, inside: str) -> None:
        try:
            if len(self._archives) == ZIPS:
                raise ImageError(f"{name} is one zip too many; send at most {ZIPS} at once.")
            archive = Archive(upload, name)
        except ImageError as error:
            return self._add(Item(name, partial(_refuse, str(error)), upload))
        self._archives.append(archive)
        for shown, entry in archive.pictures:
            self._add(Item(inside + shown, partial(archive.read, entry, self._allowance), upload))
        if archive.skipped:
            self.skipped[name] = archive.skipped[:NAMED], len(archive.skipped)
        archive.pictures, archive.skipped = [], []  # tens of thousands, for as long as the visit lasts

    def _add(self, item: Item) -> None:
        self.found += 1
        if len(self.items) < MOST:
            self.items.append(item)

    def start(self, classifier: ImageClassifier, say: Say) -> str:
        """Return the message that opens the table."""
        return _message(
            kind="start",
            run=self.id,
            total=len(self.items),
            notes=_notes(self, say),
            csv=csv_line(columns(classifier)),
            texts=_texts(say),
            language=say.language,
            maps=classifier.config.evidence is not None,
        )

    def step(self, classifier: ImageClassifier, say: Say, done: int) -> str | None:
        """Return the message with the next rows for a browser that has the first `done` of them; the last is empty.

        None if the run is over, or the browser asks for anything else than what follows, or what it was sent last.

        Raises:
            BundleError: the model gives no answers.
        """
        with self._lock:
            if self._sent and done == self._sent[0]:  # it was lost on its way
                return self._sent[1]
            if self._closed or done != self.done:
                return None
            items = self.items[done : done + BATCH]
            predict = partial(WORK.run, "many", classifier.predict)
            batches = answers(classifier, items, decode=_decode, predict=predict)
            answered = [one for batch in batches for one in batch]
            self.done += len(items)
            message = _rows(self, classifier, say, answered)
            self._sent = (done, message)
            for item in items:
                self._forget(item)
            if not items:
                self._close()
            return message

    def _forget(self, item: Item) -> None:
        item.thumbnail = item.picture = b""
        self._uses[item.upload] -= 1
        if not self._uses[item.upload] and not _is_zip(item.name):
            item.upload.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete what is left of the uploads, once the pictures that are being answered are."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._closed, self._sent = True, None
        for archive in self._archives:
            archive.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _refuse(sentence: str) -> bytes:
    raise ImageError(sentence)


def _content(path: Path, name: str) -> bytes:
    """Return the bytes of an upload that its owner calls `name`."""
    try:
        if path.stat().st_size > ENTRY:
            raise ImageError(f"{name} is larger than {ENTRY // 2**20} MB; make it smaller and try again.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name} is no longer here; send it again.") from error


class _Named(io.BytesIO):
    """A file's content that hub calls by the visitor's name for it."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def _decode(item: Item, size: int) -> np.ndarray:
    """Return the model's tensor, and leave the pictures to show in `item`."""
    content = WORK.run("many", item.read)
    return WORK.run("many", _decoded, item, content, size, alone=is_large(content))


def _decoded(item: Item, content: bytes, size: int) -> np.ndarray:
    tensor, picture = to_tensor_and_picture(_Named(content, item.name), size, PICTURE)
    item.picture = jpeg(picture, QUALITY)
    item.thumbnail = jpeg(ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)), QUALITY)
    return tensor


# ---------------------------------------------------------------- what is sent


def _message(**content: object) -> str:
    """Return JSON in which nothing looks like HTML."""
    return json.dumps(content).replace("<", "\\u003c")


def _texts(say: Say) -> dict[str, str]:
    """Return this tab's texts; static/many.js fills in what changes."""
    found = {name.removeprefix("many."): text[say.language] for name, text in texts().items() if name[:5] == "many."}
    bounds = {"sure": say.number(f"{SURE:.2f}"), "likely": say.number(f"{LIKELY:.2f}")}
    return {**found, "meaning": say.plain("many.meaning", **bounds)}


def _notes(run: Run, say: Say) -> list[str]:
    notes = []
    if not run.items:
        notes.append(say.plain("many.nothing"))
    if run.found > MOST:
        notes.append(say.plain("many.too_many", found=run.found, most=MOST))
    for name, (left_out, count) in run.skipped.items():
        files = ", ".join(left_out) + (", …" if count > len(left_out) else "")
        notes.append(say.plain("many.skipped", zip=name, count=count, files=files))
    return notes


def _rows(run: Run, classifier: ImageClassifier, say: Say, answered: list[Answer]) -> str:
    names = columns(classifier)
    as_written = [row(replace(one, file=one.file.name), names, classifier.labels) for one in answered]
    return _message(
        kind="rows",
        run=run.id,
        done=run.done,
        rows=[_row(classifier, say, one) for one in answered],
        csv="".join(csv_line(list(values.values())) for values in as_written),
    )


def _row(classifier: ImageClassifier, say: Say, answer: Answer) -> dict:
    """Return what the table shows of one picture."""
    item, found, labels = answer.file, answer.prediction, classifier.labels
    if found is None:
        return {"file": item.name, "error": answer.error}
    margin = margin_of(found.probabilities)
    order = np.argsort(-found.probabilities, kind="stable")
    k = labels.index(found.label)
    other = labels[int(order[1])]
    return {
        "file": item.name,
        "label": found.label,
        "probability": float(found.probabilities[k]),
        "share": _share(say, float(found.probabilities[k])),
        "margin": margin,
        "difference": say.number(f"{margin:.3f}"),
        "verdict": verdict(margin),
        "shares": [[labels[index], _share(say, float(found.probabilities[index]))] for index in order[:NAMED]],
        "thumbnail": data_url(item.thumbnail, "image/jpeg"),
        "picture": data_url(item.picture, "image/jpeg"),
        "map": None if found.evidence is None else _map(classifier, found.evidence, k),
        "colours": say.plain(f"many.colours_{'two' if len(labels) == 2 else 'more'}", label=found.label, other=other),
    }


def _map(classifier: ImageClassifier, evidence: np.ndarray, k: int) -> str:
    """Return what speaks for label `k` as a small transparent picture; it is smooth, and enlarged as smoothly."""
    data = io.BytesIO()
    layer(shown_map(evidence, k), (MAP, MAP), scale_of(classifier)).save(data, "PNG")
    return data_url(data.getvalue(), "image/png")


def _share(say: Say, share: float) -> str:
    """Write a probability with one decimal; never as a certainty that it is not."""
    sign, shown = (">", 0.999) if share >= NEARLY_1 else ("<", 0.001) if share < NEARLY_0 else ("", share)
    return f"{sign}{say.number(f'{100 * shown:.1f}')}\N{NO-BREAK SPACE}%"


# ---------------------------------------------------------------- the tab


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    classifier = offer.classifier
    state = gr.State(time_to_live=guards.DELETE_AFTER, delete_callback=_end)  # called, too, when a visitor leaves
    gr.HTML(fixed("many.about"), elem_id="many-about")
    files = guards.files(label=fixed("many.files"), height=180, elem_id="many-files")
    table = gr.HTML(
        html_template="<div class='many'></div>", js_on_load=SCRIPT, apply_default_css=False, elem_id="many-table"
    )

    def on_files(dropped: list[tuple[Path, str]] | None, before: Run | None, request: gr.Request) -> dict:
        """Open a drop; whatever was still to do of an earlier one is not done any more."""
        if not dropped:
            return {state: before, table: gr.skip(), files: None}
        _end(before)
        run = Run([(path, printable(name, NAME)) for path, name in dropped])
        return {state: run, table: run.start(classifier, voice_for(request)), files: None}

    def on_next(run: Run | None, event: gr.EventData, request: gr.Request):
        """Answer the next pictures."""
        asked = event._data if isinstance(event._data, dict) else {}  # from the browser: it can be anything
        if run is None or asked.get("run") != run.id:  # kept for a while only
            return _message(kind="failed", run=str(asked.get("run"))[:20], error=voice_for(request).plain("many.gone"))
        try:
            message = run.step(classifier, voice_for(request), asked.get("done"))
        except BundleError as error:
            run.close()
            return _message(kind="failed", run=run.id, error=str(error))
        return gr.skip() if message is None else message

    private = {"show_progress": "hidden", "api_visibility": "private"}
    files.upload(on_files, [files, state], [state, table, files], concurrency_limit=2, **private)
    # One at a time: a batch keeps every core busy. "multiple", as the next is asked for before the last has ended.
    step = table.next(on_next, state, table, concurrency_limit=1, trigger_mode="multiple", **private)
    step.failure(None, js=LOST, api_visibility="private")
    table.stop(_end, state, None, **private)


def _end(run: Run | None) -> None:
    if run is not None:
        run.close()
