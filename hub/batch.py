"""Many pictures: finding them, answering them a batch at a time, and writing the answers into one file.

The file has a row for each picture, in the order they were named, and then one for each file that was skipped although
it looks meant (`unanswered`), with the same columns in all three kinds:

file             the path as it was found; bytes of a name that are no UTF-8 are written \\xff
label            the most probable label; empty for a picture that cannot be read, as all that follows
probability      of that label
probability_X    of label X, for each of the K labels in the order of the logits
logits           K numbers
evidence         h × w × K numbers, nested so that evidence[row][column][label]; their mean over h and w is the logits
error            why the picture cannot be read or was skipped, in one sentence; empty for all others

CSV writes the two lists as JSON text, JSON Lines and Parquet as nested lists. All numbers are float32 and come back
exactly. While it is written the file is called NAME.part.csv; it gets its name when every row is in it and on the disk.
Interrupted, or stopped by an error, the rows so far stay in NAME.part.csv (whole rows, readable as they are), and a
file that had the name before is untouched; the next run of the same command starts NAME.part.csv anew.
"""

from __future__ import annotations

import csv
import functools
import glob
import io
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from hub.errors import BundleError, DataError, ImageError, StorageError
from hub.images import name_of, recognise, to_tensor

if TYPE_CHECKING:
    import pyarrow as pa

    from hub.classifier import ImageClassifier, Prediction

BATCH = 32
DECODERS = min(4, os.cpu_count() or 1)  # threads; the largest pictures take half a gigabyte each while decoded
ROW_GROUP = 1024  # rows of a Parquet file that are compressed together
# What a folder's pictures are told by; a file that is named itself is tried whatever it is called.
SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".avif", ".heic", ".heif",
    ".hif", ".tif", ".tiff", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc",
}  # fmt: skip


def _each(kind: str, endings: str) -> dict[str, str]:
    return {f".{ending}": f"{kind}, which is not read" for ending in endings.split()}


# Pictures that are not read, and what they are.
OTHER_PICTURES = {
    **_each("a JPEG XL picture", "jxl"),
    **_each("a picture of an old or rare format", "jxr wdp hdp ico cur tga pcx pbm pgm ppm pnm pfm xbm xpm sgi dds"),
    **_each("a picture of high dynamic range", "exr hdr"),
    **_each("a medical picture", "dcm dicom nii"),
    **_each("a drawing", "svg svgz eps ps ai wmf emf cdr"),
    **_each("a file of a picture editor", "psd psb xcf kra afphoto"),
    **_each(
        "a camera's raw picture",
        "raw dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw rwl iiq 3fr fff erf kdc dcr mrw mef mos x3f gpr",
    ),
}
# Phones and cameras put them beside the pictures.
VIDEOS = _each("a video", "mov mp4 m4v avi mkv webm 3gp 3g2 mts m2ts mpg mpeg wmv flv")
# Endings of what lies beside pictures and is not meant as one.
_NO_PICTURES = {
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".conf", ".log", ".lock", ".html", ".htm", ".css", ".js", ".ts", ".py", ".ipynb", ".sh", ".bat", ".ps1",
    ".pdf", ".doc", ".docx", ".odt", ".rtf", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".odp", ".zip", ".tar", ".gz",
    ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".parquet", ".arrow", ".feather", ".npy", ".npz", ".mat", ".pkl",
    ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".keras", ".onnx", ".tflite", ".safetensors", ".tfrecord", ".db",
    ".sqlite", ".sqlite3", ".lmdb", ".mdb", ".aae", ".xmp", ".thm", ".lrv", ".mp3", ".m4a", ".wav", ".aac", ".url",
    ".lnk", ".webloc", ".exe", ".dll", ".md5", ".sha1", ".sha256", ".sha512", ".torrent",
}  # fmt: skip
_NO_PICTURES_NAMED = {
    "license", "licence", "copying", "notice", "readme", "authors", "contributors", "citation", "changelog", "version",
    "makefile", "dockerfile", "md5sum", "md5sums", "sha256sum", "sha256sums", "checksums", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "icon\r",
}  # fmt: skip
# Folders that systems make, full of thumbnails and of what was thrown away; hidden ones are passed over anyway.
_LITTER = {
    "@eadir",
    "__macosx",
    "#recycle",
    "@recycle",
    "@recently-snapshot",
    "$recycle.bin",
    "system volume information",
}
HEAD = 4096  # bytes that tell what a file is


# ---------------------------------------------------------------- finding


@dataclass(frozen=True)
class Found:
    """What folders, patterns and files hold.

    pictures    in the order named
    skipped     every other file that looks meant as a picture, and what it is, in words that can follow "is"
    """

    pictures: list[Path]
    skipped: dict[Path, str]


def find_pictures(items: Iterable[str]) -> list[Path]:
    """Return the pictures that files, folders and patterns name, each once: those of `look_for_pictures`.

    Raises:
        ImageError: there is none.
        StorageError: a folder cannot be listed.
    """
    found = look_for_pictures(items)
    if not found.pictures:
        path, reason = next(iter(found.skipped.items()))
        raise ImageError(
            f"{name_of(path)} is {reason}, and there is no other picture; save the pictures as JPEG or PNG."
        )
    return found.pictures


def look_for_pictures(items: Iterable[str]) -> Found:
    """Return the pictures that files, folders and patterns name, each once, and what is skipped on the way.

    A picture is told by its ending. A file without an ending, or with one that says nothing, is told by its first
    bytes; it is skipped where it is no picture but lies among some. Hidden files, notes, tables and what systems leave
    behind (Thumbs.db, a network disk's thumbnails) are neither.

    Args:
        items: a file (tried whatever its name); a folder (the pictures in it and below, sorted, nothing hidden); a
            pattern with *, ? or ** (its matches, sorted: pictures only, unless it names the ending itself as *.dat
            does); or "-", for one such item on each line of standard input.

    Returns:
        Paths in the order named. One that does not exist is among the pictures, as nobody can answer for it but the
        caller.

    Raises:
        ImageError: none of them exists, or there are neither pictures nor skipped files.
        StorageError: a folder cannot be listed.
    """
    items = [os.fspath(item) for item in items]
    if "-" in items:
        items = [*(item for item in items if item != "-"), *filter(None, sys.stdin.read().splitlines())]
    pictures: dict[str, Path] = {}
    skipped: dict[str, tuple[Path, str]] = {}
    for item in items:
        found = _matches(item)
        for path in found.pictures:
            pictures.setdefault(_identity(path), path)
        for path, reason in found.skipped.items():
            skipped.setdefault(_identity(path), (path, reason))
    if not skipped and not any(os.path.lexists(path) for path in pictures.values()):
        raise ImageError(_nothing(items))
    rest = dict(value for identity, value in skipped.items() if identity not in pictures)
    return Found(list(pictures.values()), rest)


def _matches(item: str) -> Found:
    if not item:
        raise ImageError("One of the paths is empty; name a picture, a folder or a pattern.")
    item = os.path.expanduser(item)
    if os.path.isdir(item):
        return _sorted_out(_inside(item))
    if os.path.lexists(item) or not _is_pattern(item):
        return Found([Path(item)], {})
    ending = os.path.splitext(item)[1]
    by_name = ending and not _is_pattern(ending)
    meant = set(Path(item).parts)
    named: list[Path] = []
    looked_at: list[Path] = []
    for match in sorted(glob.glob(item, recursive=True)):
        if any(_is_litter(part) for part in set(Path(match).parts) - meant):
            continue
        if os.path.isdir(match):
            looked_at += _inside(match)
        else:
            (named if by_name else looked_at).append(Path(match))
    found = _sorted_out(looked_at)
    if not (named or found.pictures or found.skipped):
        return Found([Path(item)], {})  # as a shell does with a pattern that nothing matches
    return Found(sorted(named + found.pictures), found.skipped)


def _inside(folder: str) -> list[Path]:
    """The files in a folder and below that are not hidden; linked folders are entered, but none twice."""

    def refuse(error: OSError) -> None:
        raise StorageError(f"{error.filename} cannot be listed ({error.strerror}); change its permissions.") from error

    found, seen, waiting = [], set(), [folder]
    while waiting:  # links after all real folders, so that a folder keeps its own name where a link leads to it too
        for place, folders, files in os.walk(waiting.pop(0), onerror=refuse):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_litter(name))
            waiting += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
            found += [Path(place, name) for name in files if not name.startswith(".")]
    return found


def _sorted_out(files: list[Path]) -> Found:
    """Tell pictures from what is skipped, each sorted, and leave out the rest."""
    pictures, skipped, doubtful = [], {}, {}
    for path in files:
        sort, reason = _looks_like(path)
        if sort == "read":
            pictures.append(path)
        elif sort == "picture":
            skipped[path] = reason
        elif sort == "other":
            doubtful[path] = reason
    among = {path.parent for path in (*pictures, *skipped)}
    skipped |= {path: reason for path, reason in doubtful.items() if path.parent in among}
    return Found(sorted(pictures), {path: skipped[path] for path in sorted(skipped)})


def _looks_like(path: Path) -> tuple[str, str]:
    """Return "read", "picture" or "other" with what a file is (see `hub.images.recognise`), or "no" and nothing."""
    name, ending = path.name.lower(), os.path.splitext(path.name)[1].lower()
    if ending in SUFFIXES:
        return "read", ""
    if reason := OTHER_PICTURES.get(ending) or VIDEOS.get(ending):
        return "picture", reason
    if ending in _NO_PICTURES or name in _NO_PICTURES_NAMED or name.endswith("~"):
        return "no", ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for its other end
            return "no", ""
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return "other", f"a file that cannot be read ({_reason(error)})"
    return recognise(head) if head else ("other", "an empty file")


def _is_litter(folder: str) -> bool:
    return folder.lower() in _LITTER


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _identity(path: Path) -> str:
    """Tell whether two paths are the same: ./a.jpg and a.jpg are, a file and a link to it are not."""
    return os.path.normcase(os.path.join(_real_folder(os.path.abspath(path.parent)), path.name))


def _nothing(items: list[str]) -> str:
    if not items:
        return "No picture was named; name pictures, folders or patterns."
    first = text_of(items[0])
    if os.path.isdir(os.path.expanduser(items[0])):
        return (
            f"{first} holds no picture ({', '.join(sorted(SUFFIXES))}); name another folder, or the files themselves."
        )
    if _is_pattern(first):
        return f"Nothing matches {first}; check the pattern."
    return f"There is no file or folder {first}; check the path."


def text_of(path: str | os.PathLike) -> str:
    r"""Return a path as text that can be written anywhere; bytes that are no UTF-8 become \xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# ---------------------------------------------------------------- answering


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of one picture: a prediction, or why there is none."""

    file: Path  # as it was given
    prediction: Prediction | None
    error: str | None  # one sentence


def answers(
    classifier: ImageClassifier,
    paths: Iterable[Path],
    *,
    progress: bool = False,
    decode: Callable[[Path, int], np.ndarray] = to_tensor,
    predict: Callable[[list[np.ndarray]], list[Prediction]] | None = None,
) -> Iterator[list[Answer]]:
    """Answer for pictures, 32 at a time, while the next 32 are decoded by threads; never more are in memory.

    Args:
        classifier: what answers.
        paths: as `find_pictures` returns them, or whatever else `decode` takes.
        progress: show a bar on standard error if that is a terminal.
        decode: makes the uint8 tensor (size, size, 3) of a path and the size, or raises an ImageError; runs in threads.
        predict: answers a list of such tensors; None is the classifier's own.
    """
    paths = list(paths)
    ask: Callable[[list[np.ndarray]], list[Prediction]] = predict or classifier.predict
    pool = ThreadPoolExecutor(DECODERS)

    def start(begin: int) -> list[Future]:
        return [pool.submit(_tensor, decode, path, classifier.image_size) for path in paths[begin : begin + BATCH]]

    try:
        with tqdm(total=len(paths), unit="picture", disable=None if progress else True) as bar:
            ahead = start(0)
            for begin in range(0, len(paths), BATCH):
                tensors, ahead = ahead, start(begin + BATCH)
                batch = _answer(ask, paths[begin : begin + BATCH], [one.result() for one in tensors])
                yield batch
                bar.update(len(batch))
    finally:
        pool.shutdown(cancel_futures=True)


def _tensor(decode: Callable[[Path, int], np.ndarray], path: Path, size: int) -> np.ndarray | ImageError:
    try:
        return decode(path, size)
    except ImageError as error:
        return error.with_traceback(None)  # a traceback keeps the picture's bytes


def _answer(
    predict: Callable[[list[np.ndarray]], list[Prediction]], paths: list[Path], tensors: list[np.ndarray | ImageError]
) -> list[Answer]:
    # A tensor of the model's own size is a picture that predict takes as it is.
    readable = [tensor for tensor in tensors if isinstance(tensor, np.ndarray)]
    predictions = iter(predict(readable) if readable else ())
    return [
        Answer(path, None, str(tensor)) if isinstance(tensor, ImageError) else Answer(path, next(predictions), None)
        for path, tensor in zip(paths, tensors, strict=True)
    ]


def unanswered(found: Found) -> list[Answer]:
    """Return an answer without a prediction for each skipped file, so that no file vanishes without a word."""
    return [
        Answer(path, None, f"{name_of(path)} is {reason}; {_remedy(reason)}.") for path, reason in found.skipped.items()
    ]


def _remedy(reason: str) -> str:
    if reason.startswith("a video"):
        return "save a frame of it as JPEG or PNG"
    return "save it as JPEG or PNG and try again" if reason.endswith("which is not read") else "it was skipped"


# ---------------------------------------------------------------- writing


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says what is kept and where."""


def columns(classifier: ImageClassifier, *, evidence: bool = True) -> list[str]:
    """Return the names of the columns that are described at the top, for this model."""
    has_evidence = ["evidence"] if evidence and classifier.config.evidence else []
    named = [f"probability_{label}" for label in classifier.labels]
    return ["file", "label", "probability", *named, "logits", *has_evidence, "error"]


def row(answer: Answer, names: list[str], labels: list[str]) -> dict:
    """Return one picture's values by column: text, floats, nested lists, and None for what there is not."""
    values: dict[str, Any] = {"file": text_of(answer.file), "error": answer.error}
    if answer.prediction is not None:
        found = answer.prediction
        values |= {"label": found.label, "probability": float(found.probabilities.max())}
        values |= {f"probability_{label}": float(p) for label, p in zip(labels, found.probabilities, strict=True)}
        values["logits"] = found.logits.tolist()
        values["evidence"] = None if found.evidence is None else found.evidence.tolist()
    return {name: values.get(name) for name in names}


def check_out(out: Path) -> None:
    """Raise now what would stop `write` after the work: an unknown ending, no such folder, no package."""
    if out.suffix.lower() not in KINDS:
        raise DataError(f"{out.name} does not say what to write; end it in {', '.join(KINDS)}.")
    if not out.parent.is_dir():
        raise StorageError(f"There is no folder {out.parent} to write {out.name} into; make it, or check the path.")
    if out.is_dir():
        raise StorageError(f"{out} is a folder; name a file.")
    if out.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise DataError(
                "Parquet needs the package pyarrow; pip install pyarrow, or write .csv or .jsonl."
            ) from None


def write(classifier: ImageClassifier, batches: Iterable[list[Answer]], out: Path, *, evidence: bool = True) -> None:
    """Write answers, a batch at a time, into a .csv, .jsonl or .parquet file (see the top).

    Args:
        classifier: what answered.
        batches: what `answers` yields.
        out: the file; replaced when all is written.
        evidence: whether to write the column evidence.

    Raises:
        DataError, StorageError: see `check_out`; the disk is full.
        Interrupted: Ctrl-C. Its sentence, and that of whatever error ended the answers, says what is kept.
    """
    check_out(out)
    part, names = out.with_name(f"{out.stem}.part{out.suffix}"), columns(classifier, evidence=evidence)
    count, finished = 0, False
    try:
        table = KINDS[out.suffix.lower()](part, names)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({_reason(error)}); choose another folder.") from error
    try:
        for batch in batches:
            rows = [row(answer, names, classifier.labels) for answer in batch]
            with _undisturbed():
                table.write(rows)
                count += len(rows)
        with _undisturbed():
            table.close()
            os.replace(part, out)
            finished = True
    except BaseException as error:
        if finished:  # Ctrl-C, a moment too late
            raise
        with _undisturbed():
            kept = _keep(table, part, count)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"Interrupted{kept or ': nothing was answered yet'}.") from error
        if isinstance(error, BundleError):
            raise BundleError(f"{str(error).rstrip('.')}{kept}.") from error
        if isinstance(error, OSError):
            message = f"{out} cannot be written ({_reason(error)}){kept}; free space or choose another folder."
            raise StorageError(message) from error
        raise


def _keep(table: _Table, part: Path, count: int) -> str:
    """Close a file that will not be finished; return what to say of it. Without a row it is removed."""
    readable = table.leave()
    if count and readable:
        return f": what was answered (pictures: {count:,}) is kept in {part}"
    with suppress(OSError):
        part.unlink()
    return ""


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).rstrip(".").lower()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that no row is cut in two."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    previous, asked = signal.getsignal(signal.SIGINT), []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if previous is None else previous)
    if asked and callable(previous):
        previous(signal.SIGINT, None)


class _Table:
    """A file of rows; a subclass says how rows are written as bytes. Every batch is whole in the file."""

    def __init__(self, path: Path, names: list[str]):
        self.path, self.names = path, names
        self._file = open(path, "wb")  # noqa: SIM115
        self._whole = 0
        self._put(self.head())

    def head(self) -> bytes:
        return b""

    def lines(self, rows: list[dict]) -> bytes:
        raise NotImplementedError

    def write(self, rows: list[dict]) -> None:
        self._put(self.lines(rows))

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()
        self._whole = self._file.tell()

    def close(self) -> None:
        """Have all rows on the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def leave(self) -> bool:
        """Close the file with the rows that are whole, as far as the disk takes them; return whether it can be read."""
        with suppress(OSError):
            self._file.close()  # tries again to write what is left of a row
        with suppress(OSError):
            os.truncate(self.path, self._whole)
        return True


class _Lines(_Table):
    def lines(self, rows: list[dict]) -> bytes:
        return "".join(json_line(values) for values in rows).encode()


class _Csv(_Table):
    def head(self) -> bytes:
        return csv_line(self.names).encode()

    def lines(self, rows: list[dict]) -> bytes:
        return "".join(csv_line([values[name] for name in self.names]) for values in rows).encode()


class _Parquet(_Table):
    """Rows are collected, since a row group of 32 would be mostly its own description."""

    def __init__(self, path: Path, names: list[str]):
        import pyarrow.parquet

        self.path, self.names = path, names
        self._schema = _schema(names)
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._waiting: list[pa.Table] = []
        self._sound = True  # no write has failed

    def write(self, rows: list[dict]) -> None:
        import pyarrow as pa

        self._waiting.append(pa.Table.from_pylist(rows, schema=self._schema))
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._put_waiting()

    def _put_waiting(self) -> None:
        import pyarrow as pa

        waiting, self._waiting = self._waiting, []
        if waiting:
            self._sound = False
            self._writer.write_table(pa.concat_tables(waiting).combine_chunks())
            self._sound = True

    def close(self) -> None:
        self._put_waiting()
        if self._writer.is_open:
            self._writer.close()
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def leave(self) -> bool:
        with suppress(OSError):
            self.close()
            return self._sound
        return False  # Parquet is read from its end, which is missing


def _schema(names: list[str]) -> pa.Schema:
    import pyarrow as pa

    numbers = pa.list_(pa.float32())
    kinds = {name: pa.string() for name in ("file", "label", "error")}
    kinds |= {"logits": numbers, "evidence": pa.list_(pa.list_(numbers))}
    return pa.schema([(name, kinds.get(name, pa.float32())) for name in names])


def csv_line(cells: list) -> str:
    """Return cells as a line of CSV, with its end; lists as JSON text."""
    text = io.StringIO()
    csv.writer(text).writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
    return text.getvalue()  # floats by repr, which is exact


def json_line(values: dict) -> str:
    """Return one row as a line of JSON, with its newline."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"


KINDS: dict[str, type[_Table]] = {".csv": _Csv, ".jsonl": _Lines, ".parquet": _Parquet}
