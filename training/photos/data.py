"""Pictures with labels, from a Hub name or a folder, in splits that no duplicate can straddle.

Each picture's split is decided by its own pixels: the SHA-256 of the decoded picture, read as a number in
[0, 1), falls under a threshold or it does not. The same picture lands in the same split on every machine and
in every version of a data set; adding pictures moves none.
"""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hub.errors import DataError, ImageError, StorageError
from hub.files import folder_aside, storage
from hub.images import open_image, pixel_hash, recognise, to_tensor
from training.files import DAMAGE, exclusive, write_rows
from training.photos.sources import Row, Source, demand_outside, read_source
from training.settings import DEFAULTS, shares_of

TEST, VALIDATION = DEFAULTS["test_share"], DEFAULTS["validation_share"]  # of the pictures
PROBLEM_COLUMNS = ["split", "row", "file", "problem", "detail"]


@dataclass(frozen=True)
class Photos:
    """Decoded pictures and what is known of them.

    Attributes:
        pixels: uint8 (N, size, size, 3), on disk until touched.
        labels: int64 (N,), indices into `label_names`.
        hashes: str (N,), SHA-256 of each full-size decoded picture.
        splits: str (N,), "train", "validation" or "test".
        label_names: K names.
        name: the name or folder that it was loaded from.
        report: counts of unreadable pictures, duplicates and conflicts.
        problems: one row for each picture that was left out: split, row, file, problem, detail.
    """

    pixels: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    splits: np.ndarray
    label_names: list[str]
    name: str
    report: dict
    problems: list[dict]

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 of which pictures these are and how they are labelled."""
        return hashlib.sha256(f"{self.hashes.tolist()} {self.labels.tolist()}".encode()).hexdigest()

    def subset(self, which: str | np.ndarray) -> "Photos":
        """The pictures of one split, or those at the given indices (in that order)."""
        indices = np.flatnonzero(self.splits == which) if isinstance(which, str) else np.asarray(which)
        return replace(
            self,
            pixels=Rows(self.pixels, indices),
            labels=self.labels[indices],
            hashes=self.hashes[indices],
            splits=self.splits[indices],
        )

    def limited(self, most: dict[str, int]) -> "Photos":
        """At most so many pictures of each split, the first by their hashes: a draw by lot, the same each time.

        Args:
            most: split -> number; a split that is not named, or has 0, stays whole.
        """
        kept = []
        for split in dict.fromkeys(self.splits.tolist()):
            rows = np.flatnonzero(self.splits == split)
            kept.append(rows[first_by_hash(self.hashes[rows], most.get(split) or None)])
        return self.subset(np.sort(np.concatenate(kept)))

    def shares(self) -> dict:
        """How many pictures each split has, and each label's share of them."""
        found = {}
        for split in ("train", "validation", "test"):
            labels = self.labels[self.splits == split]
            counts = np.bincount(labels, minlength=len(self.label_names))
            share = {name: round(n / max(len(labels), 1), 4) for name, n in zip(self.label_names, counts, strict=True)}
            found[split] = {"photos": len(labels), "share": share}
        return found


class Rows:
    """Some rows of a big array in a given order, read only when indexed."""

    def __init__(self, array: np.ndarray, indices: np.ndarray):
        if isinstance(array, Rows):
            array, indices = array.array, array.indices[indices]
        self.array, self.indices = array, indices
        self.shape, self.dtype, self.ndim = (len(indices), *array.shape[1:]), array.dtype, array.ndim

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key) -> np.ndarray:
        return self.array[self.indices[key]]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.array[self.indices], dtype=dtype)


def first_by_hash(hashes: np.ndarray, most: int | None) -> np.ndarray:
    """Indices of at most so many pictures, the first by their hashes: a draw by lot, the same each time."""
    return np.sort(np.argsort(hashes, kind="stable")[:most])


def default_cache() -> Path:
    """Where decoded pictures and features are kept between runs (`XDG_CACHE_HOME`, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cats-vs-dogs-evidence"


def load_photos(
    name_or_folder: str | Path,
    size: int,
    *,
    validation_share: float = VALIDATION,
    test_share: float = TEST,
    own_validation: bool = True,
    cache: Path | None = None,
    progress: bool = True,
) -> Photos:
    """Load a labelled picture data set as `datasets.load_dataset` does, decode it, and split it.

    A test (or validation) split that the data set brings, by whatever name, is kept; what it lacks is taken out of
    the rest by pixel hash. Exact duplicates are kept once, held-out splits first. A picture that occurs under two
    labels is left out each time. Unreadable pictures are left out. All three are counted and listed.

    Args:
        name_or_folder: a data set's name on the Hub, or a folder that `load_dataset` understands.
        size: side of the square that pictures are squashed to, in pixels.
        validation_share, test_share: of the pictures, for the splits that the data set does not bring.
        own_validation: False puts a validation split that the data set brings together with the training pictures.
        cache: folder for the decoded pictures; default `default_cache()`.

    Raises:
        DataError: no such data set, no picture or label column, or nothing readable in it.
        StorageError: the cache cannot be written.
    """
    return _load(name_or_folder, size, _Shares(validation_share, test_share, own_validation), cache, progress)[0]


@dataclass(frozen=True)
class Stored:
    """Every row of a data set, those that `load_photos` leaves out too: its splits one after another.

    Attributes:
        splits: str (M,), the data set's own.
        numbers: int64 (M,), the row's number in its split.
        labels: int64 (M,), -1 without a label.
        hashes: str (M,), SHA-256 of the decoded picture, "" where it cannot be read.
        errors: str (M,), why it cannot be read, else "".
        sizes: int64 (M, 2), width and height as stored, in pixels.
        kept: int64 (N,), where the pictures that `load_photos` keeps stand, in its order.
    """

    splits: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    kept: np.ndarray
    rows: list[Row]

    def picture(self, row: int, size: int | None = None) -> Image.Image:
        """The picture of a row, upright; `size` as for `hub.images.open_image`."""
        return open_image(self.rows[row].bytes(), size=size)

    def file(self, row: int) -> str:
        """The name of its file with the folder it lies in, "" where the data set keeps none."""
        return self.rows[row].file


def load_stored(
    name_or_folder: str | Path, size: int, *, cache: Path | None = None, progress: bool = True
) -> tuple[Photos, Stored]:
    """The pictures as `load_photos` gives them, and beside them every row as the data set stores it."""
    source, index, pixels = _decoded(name_or_folder, size, cache, progress)
    photos, _ = _assemble(source, index, pixels, _Shares(VALIDATION, TEST))
    rows = source.rows
    stored = Stored(
        splits=np.array([row.split for row in rows], str),
        numbers=np.array([row.number for row in rows], np.int64),
        labels=np.array([row.label for row in rows], np.int64),
        hashes=index["hashes"], errors=index["errors"], sizes=index["sizes"], kept=photos.pixels.indices, rows=rows,
    )  # fmt: skip
    return photos, stored


def photos_of(settings: dict, *, cache: Path | None = None, progress: bool = True) -> Photos:
    """The pictures of a recipe: at its size, in splits of its shares, at most as many as it asks for."""
    photos = load_photos(settings["data"], settings["size"], **shares_of(settings), cache=cache, progress=progress)
    return photos.limited({split: settings[f"{split}_photos"] for split in ("train", "validation", "test")})


def write_pictures(
    name_or_folder: str | Path,
    split: str,
    folder: Path,
    *,
    limit: int | None = None,
    size: int = 224,
    validation_share: float = VALIDATION,
    test_share: float = TEST,
    own_validation: bool = True,
    cache: Path | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write the pictures of a split as files, byte for byte as the data set stores them: LABEL/PIXELHASH.SUFFIX.

    They are the pictures that `load_photos` puts into that split, so duplicates and unreadable ones are not among
    them, and their names are the hashes that predictions.parquet tells them by.

    Args:
        name_or_folder, size, validation_share, test_share, own_validation, cache: as for `load_photos`; a size that
            was decoded before is not decoded again.
        split: "train", "validation" or "test".
        folder: made, all or nothing; refused if it holds something.
        limit: only the first so many by their hashes, which is a draw by lot that is the same each time.

    Returns:
        The files, sorted by hash.

    Raises:
        DataError: no such data set, nothing in that split, or a folder that is not empty.
        StorageError: the folder cannot be written.
    """
    demand_outside(name_or_folder, folder, "")
    shares = _Shares(validation_share, test_share, own_validation)
    photos, rows = _load(name_or_folder, size, shares, cache, progress)
    chosen = np.flatnonzero(photos.splits == split)
    if not len(chosen):
        raise DataError(f"{photos.name} has no picture in {split!r}; it has {', '.join(sorted({*photos.splits}))}.")
    folder = Path(folder).resolve()
    chosen = chosen[np.argsort(photos.hashes[chosen])][:limit]
    shelves = _folder_names(photos.label_names)
    written = []
    with storage(folder):
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; name a new folder, so that no two splits are mixed.")
    with folder_aside(folder) as new:
        for i in tqdm(chosen, f"writing {split}", disable=not progress, unit="photo"):
            encoded = rows[i].bytes()
            name = Path(shelves[photos.labels[i]], f"{photos.hashes[i]}.{_suffix(encoded)}")
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(encoded)
            written.append(folder / name)
    return written


def _folder_names(labels: list[str]) -> list[str]:
    """A folder's name for each label, which any system takes and which cannot lead elsewhere."""

    def fits(sign: str) -> bool:
        return sign.isalnum() or sign in "_ -\u200c\u200d" or unicodedata.category(sign).startswith("M")

    names = ["".join(sign if fits(sign) else "_" for sign in label).strip() for label in labels]
    # Some systems take names that differ by case or by how an accent is stored for the same.
    alike = len({unicodedata.normalize("NFKC", name).casefold() for name in names}) < len(names)
    return [f"{k}_{name}" if alike or not name else name for k, name in enumerate(names)]


def _suffix(encoded: bytes) -> str:
    """The usual ending of a picture's format; a phone's MPO is a JPEG with more behind it."""
    _, form = recognise(encoded[:4096])
    return {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "HEIF": "heic"}.get(form, form.lower())


@dataclass(frozen=True)
class _Shares:
    """What is held out of the pictures where the data set brings no such split; whether its own validation counts."""

    validation: float
    test: float
    own_validation: bool = True


def _load(
    name_or_folder: str | Path, size: int, shares: _Shares, cache: Path | None, progress: bool
) -> tuple[Photos, list[Row]]:
    """The pictures, and in the same order what the data set stores of each."""
    source, index, pixels = _decoded(name_or_folder, size, cache, progress)
    return _assemble(source, index, pixels, shares)


def _decoded(
    name_or_folder: str | Path, size: int, cache: Path | None, progress: bool
) -> tuple[Source, dict[str, np.ndarray], np.ndarray]:
    """The data set, and from the cache what became of each row; a cache that is damaged is made anew."""
    cache = Path(cache).expanduser() if cache else default_cache()
    source = read_source(name_or_folder, cache)
    if not source.rows:
        raise DataError(f"{source.name} holds no readable picture with a label.")
    folder = cache / "pixels" / f"{_key(source.rows, size)}-{size}"
    shape = (len(source.rows), size, size, 3)
    found = _cached(folder, shape)
    if found is None:
        with exclusive(folder):
            found = _cached(folder, shape)
            if found is None:
                _decode(source.rows, size, folder, progress)
                found = _cached(folder, shape)
    if found is None:
        raise StorageError(f"What was just written to {folder} cannot be read; look at the disk.")
    return source, *found


def _cached(folder: Path, shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """The index and the pixels that `_decode` wrote; None where they are missing, cut short or of another size."""
    try:
        with np.load(folder / "index.npz") as arrays:
            index = {name: arrays[name] for name in ("hashes", "errors", "sizes")}
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    except (FileNotFoundError, NotADirectoryError, KeyError, *DAMAGE):
        return None
    whole = pixels.shape == shape and pixels.dtype == np.uint8 and all(len(part) == shape[0] for part in index.values())
    return (index, pixels) if whole else None


def _key(rows: list[Row], size: int) -> str:
    """A name for the decoded pictures that changes whenever a picture does (labels are read afresh each time)."""
    digest = hashlib.sha256(f"3 {size}".encode())  # 3: the layout of the cache, and which formats are read
    for row in rows:
        if row.encoded is not None:
            digest.update(hashlib.sha256(row.encoded).digest())
        else:
            digest.update(os.fsencode(str(row.path)))
            if row.path and os.path.exists(row.path):
                status = os.stat(row.path)
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _decode(rows: list[Row], size: int, folder: Path, progress: bool) -> None:
    """Write pixels.npy and index.npz (hash, error and size of each row) into `folder`, aside and then renamed."""

    def decode(row: Row) -> tuple[str, str, tuple[int, int], np.ndarray | None]:
        try:
            encoded = row.bytes()
            image = open_image(encoded)
            return pixel_hash(image), "", image.size, to_tensor(encoded, size)
        except ImageError as error:
            return "", str(error), (0, 0), None

    blank = np.zeros((size, size, 3), np.uint8)
    hashes, errors, sizes = [], [], []
    with folder_aside(folder) as new:
        with (new / "pixels.npy").open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            found = tqdm(map_ahead(pool, decode, rows), "decoding", len(rows), disable=not progress, unit="photo")
            for digest, error, stored, tensor in found:
                hashes.append(digest)
                errors.append(error)
                sizes.append(stored)
                file.write(blank if tensor is None else tensor)
        np.savez(new / "index.npz", hashes=np.array(hashes, str), errors=np.array(errors, str), sizes=sizes)


def map_ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int = 64) -> Iterator:
    """`pool.map` that never runs more than `ahead` items in front of its reader, so memory stays bounded."""
    waiting = []
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _assemble(
    source: Source, index: dict[str, np.ndarray], pixels: np.ndarray, shares: _Shares
) -> tuple[Photos, list[Row]]:
    """Decide which rows are kept and in which split each is."""
    rows, label_names, told = source.rows, source.label_names, list(source.told)
    hashes, errors = index["hashes"], index["errors"]
    labels = np.array([row.label for row in rows], np.int64)
    uses = [row.use if shares.own_validation or row.use != "validation" else "train" for row in rows]
    given = {use for use, label in zip(uses, labels, strict=True) if label >= 0}
    for split in sorted({*uses} - given):
        told.append(f"The data set's own {split} split has no labels and is left out.")
    splits = np.array([_split(use, digest, given, shares) for use, digest in zip(uses, hashes, strict=True)])
    labels_of: dict[str, set] = {}
    for digest, label in zip(hashes, labels, strict=True):
        if label >= 0:
            labels_of.setdefault(digest, set()).add(int(label))

    first: dict[str, int] = {}
    problems, keep = [], []
    order = np.argsort([("test", "validation", "train").index(split) for split in splits], kind="stable")
    for i in order:
        digest = hashes[i]
        if errors[i]:
            problem, detail = "unreadable", errors[i]
        elif labels[i] < 0:
            problem, detail = "unlabelled", "it has no label"
        elif len(labels_of[digest]) > 1:
            names = " and ".join(label_names[k] for k in sorted(labels_of[digest]))
            problem, detail = "conflict", f"the same pixels occur as {names}"
        elif digest in first:
            twin = rows[first[digest]]
            problem, detail = "duplicate", f"same pixels as row {twin.number} of {twin.split}"
        else:
            first[digest] = int(i)
            keep.append(i)
            continue
        row = rows[i]
        problems.append(
            {"split": row.split, "row": row.number, "file": row.file, "problem": problem, "detail": str(detail)}
        )
    if not keep:
        if any(row["problem"] == "conflict" for row in problems):
            raise DataError(
                f"No picture of {source.name} can be used, as the same pictures occur under two labels; keep each "
                "under one."
            )
        raise DataError(f"{source.name} holds no readable picture with a label.")
    keep = np.sort(keep)
    problems.sort(key=lambda row: (row["split"], row["row"]))
    counts = {
        kind: sum(row["problem"] == kind for row in problems)
        for kind in ("unreadable", "unlabelled", "duplicate", "conflict")
    }
    across = sum(
        rows[i].split != rows[first[hashes[i]]].split
        for i in range(len(rows))
        if not errors[i] and hashes[i] in first and first[hashes[i]] != i
    )
    problems += [
        {"split": "", "row": "", "file": file, "problem": "skipped", "detail": f"it is {reason}"}
        for file, reason in source.skipped
    ]
    report = {
        "pictures": len(rows),
        "kept": len(keep),
        "stored_size": _stored_size(index["sizes"][keep]),
        **counts,
        "skipped": len(source.skipped),
        "duplicates_across_splits": across,
        "own_splits": sorted(given & {"validation", "test"}),
        "told": told,
    }
    pictures = Rows(pixels, keep)
    photos = Photos(pictures, labels[keep], hashes[keep], splits[keep], label_names, source.name, report, problems)
    return photos, [rows[i] for i in keep]


def _stored_size(sizes: np.ndarray) -> str:
    """How large the pictures are as stored, in pixels: one size, or the range of each side."""
    low, high = sizes.min(0), sizes.max(0)
    parts = [str(a) if a == b else f"{a}–{b}" for a, b in zip(low, high, strict=True)]
    return " × ".join(parts)


def _split(given: str, digest: str, all_given: set[str], shares: _Shares) -> str:
    """The split of a picture: its own where the data set has test or validation, else by its hash."""
    if given in ("test", "validation"):
        return given
    if not digest:
        return "train"
    place = int(digest[:16], 16) / 2**64
    if "test" not in all_given:
        if place < shares.test:
            return "test"
        place -= shares.test
    return "validation" if "validation" not in all_given and place < shares.validation else "train"


def share_for_all(photos: Photos, test_share: float, least: float) -> float | None:
    """The smallest share, from `least` up in steps of 0.05, with which a drawn validation split has every label.

    None where no share gives every label a picture for validation and one for training.
    """
    kept = {"test"} & {*photos.report["own_splits"]}
    rest = photos.splits != "test" if kept else np.ones(len(photos), bool)
    steps = np.arange(1, 11) / 20
    for share in [least, *(round(float(step), 2) for step in steps if step > least)]:
        shares = _Shares(share, test_share)
        splits = np.array([_split("train", digest, kept, shares) for digest in photos.hashes[rest]])
        found = {(split, int(label)) for split, label in zip(splits, photos.labels[rest], strict=True)}
        if {(split, k) for split in ("train", "validation") for k in range(len(photos.label_names))} <= found:
            return share
    return None


def write_problems(photos: Photos, path: Path) -> None:
    """List every picture that was left out, with the reason, as CSV."""
    write_rows(path, photos.problems, PROBLEM_COLUMNS)


def summary(photos: Photos) -> str:
    """What was loaded, in two sentences for the terminal, and then what is not plain about it, a line each."""
    parts = [
        f"{split} {found['photos']} ({', '.join(f'{name} {share:.1%}' for name, share in found['share'].items())})"
        for split, found in photos.shares().items()
    ]
    kinds = ("unreadable", "unlabelled", "duplicate", "conflict")
    left_out = ", ".join(f"{photos.report[kind]} {kind}" for kind in kinds)
    if photos.report["skipped"]:
        left_out += f", {photos.report['skipped']} skipped"
    if across := photos.report["duplicates_across_splits"]:
        left_out += f" ({across} of the duplicates in two of the data set's own splits)"
    return f"{photos.name}: {len(photos)} pictures: {'; '.join(parts)}. Left out: {left_out}." + "".join(
        f"\n{sentence}" for sentence in photos.report["told"]
    )
