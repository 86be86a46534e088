"""Pictures with labels, from a Hub name or a folder, in splits that no duplicate can straddle.

Each picture's split is decided by its own pixels: the SHA-256 of the decoded picture, read as a number in
[0, 1), falls under a threshold or it does not. The same picture lands in the same split on every machine and
in every version of a data set; adding pictures moves none.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hub.errors import DataError, ImageError, StorageError
from hub.files import folder_aside, storage
from hub.images import open_image, pixel_hash, to_tensor
from training.files import alone, write_rows
from training.photos.folders import label_folders
from training.settings import DEFAULTS, shares_of

TEST, VALIDATION = DEFAULTS["test_share"], DEFAULTS["validation_share"]  # of the pictures
PROBLEM_COLUMNS = ["split", "row", "problem", "detail"]


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
        problems: one row for each picture that was left out: split, row, problem, detail.
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
            kept.append(rows[by_lot(self.hashes[rows], most.get(split) or None)])
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


def by_lot(hashes: np.ndarray, most: int | None) -> np.ndarray:
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
    cache: Path | None = None,
    progress: bool = True,
) -> Photos:
    """Load a labelled picture data set as `datasets.load_dataset` does, decode it, and split it.

    A split named "test" (or "validation") that the data set brings is kept; what it lacks is taken out of the
    rest by pixel hash. Exact duplicates are kept once, held-out splits first. A picture that occurs under two
    labels is left out each time. Unreadable pictures are left out. All three are counted and listed.

    Args:
        name_or_folder: a data set's name on the Hub, or a folder that `load_dataset` understands.
        size: side of the square that pictures are squashed to, in pixels.
        validation_share, test_share: of the pictures, for the splits that the data set does not bring.
        cache: folder for the decoded pictures; default `default_cache()`.

    Raises:
        DataError: no such data set, no picture or label column, or nothing readable in it.
        StorageError: the cache cannot be written.
    """
    return _load(name_or_folder, size, (validation_share, test_share), cache, progress)[0]


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
    rows: list["_Row"]

    def picture(self, row: int, size: int | None = None) -> Image.Image:
        """The picture of a row, upright; `size` as for `hub.images.open_image`."""
        return open_image(self.rows[row].bytes(), size=size)

    def file(self, row: int) -> str:
        """The name of its file with the folder it lies in, "" where the data set keeps none."""
        return "/".join(Path(self.rows[row].path or "").parts[-2:])


def load_stored(
    name_or_folder: str | Path, size: int, *, cache: Path | None = None, progress: bool = True
) -> tuple[Photos, Stored]:
    """The pictures as `load_photos` gives them, and beside them every row as the data set stores it."""
    rows, label_names, index, pixels = _decoded(name_or_folder, size, cache, progress)
    photos, _ = _assemble(rows, index, pixels, (VALIDATION, TEST), label_names, str(name_or_folder))
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
    cache: Path | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write the pictures of a split as files, byte for byte as the data set stores them: LABEL/PIXELHASH.SUFFIX.

    They are the pictures that `load_photos` puts into that split, so duplicates and unreadable ones are not among
    them, and their names are the hashes that predictions.parquet tells them by.

    Args:
        name_or_folder, size, validation_share, test_share, cache: as for `load_photos`; a size that was decoded
            before is not decoded again.
        split: "train", "validation" or "test".
        folder: made, all or nothing; refused if it holds something.
        limit: only the first so many by their hashes, which is a draw by lot that is the same each time.

    Returns:
        The files, sorted by hash.

    Raises:
        DataError: no such data set, nothing in that split, or a folder that is not empty.
        StorageError: the folder cannot be written.
    """
    photos, rows = _load(name_or_folder, size, (validation_share, test_share), cache, progress)
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
    names = [re.sub(r"[^\w -]", "_", label).strip() for label in labels]
    alike = len({name.lower() for name in names}) < len(names)
    return [f"{k}_{name}" if alike or not name else name for k, name in enumerate(names)]


def _suffix(encoded: bytes) -> str:
    """The usual ending of a picture's format; a phone's MPO is a JPEG with more behind it."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return {"JPEG": "jpg", "MPO": "jpg"}.get(picture.format, picture.format.lower())


def _load(
    name_or_folder: str | Path, size: int, shares: tuple[float, float], cache: Path | None, progress: bool
) -> tuple[Photos, list["_Row"]]:
    """The pictures, and in the same order what the data set stores of each."""
    rows, label_names, index, pixels = _decoded(name_or_folder, size, cache, progress)
    return _assemble(rows, index, pixels, shares, label_names, str(name_or_folder))


def _decoded(
    name_or_folder: str | Path, size: int, cache: Path | None, progress: bool
) -> tuple[list["_Row"], list[str], np.lib.npyio.NpzFile, np.ndarray]:
    """Every row of the data set, the names of its labels, and from the cache what became of each row."""
    cache = Path(cache) if cache else default_cache()
    rows, label_names = _rows(name_or_folder)
    folder = cache / "pixels" / f"{_key(rows, size)}-{size}"
    if not (folder / "index.npz").exists():
        with alone(folder):
            if not (folder / "index.npz").exists():
                _decode(rows, size, folder, progress)
    return rows, label_names, np.load(folder / "index.npz"), np.load(folder / "pixels.npy", mmap_mode="r")


@dataclass(frozen=True)
class _Row:
    split: str
    number: int
    label: int
    path: str | None
    encoded: bytes | None

    def bytes(self) -> bytes:
        if self.encoded is not None:
            return self.encoded
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{Path(self.path).name} cannot be read from disk.") from error


def _rows(name_or_folder: str | Path) -> tuple[list[_Row], list[str]]:
    import datasets

    try:
        splits = label_folders(name_or_folder) or datasets.load_dataset(str(name_or_folder))
    except (DataError, StorageError):
        raise
    except Exception as error:  # load_dataset raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"No data set could be loaded from {name_or_folder} ({reason}); "
            "give a folder of pictures or a name on the Hub."
        ) from error
    features = next(iter(splits.values())).features
    image, label = _columns(features, name_or_folder)
    names = _label_names(splits, features, label)
    place = {name: k for k, name in enumerate(names)}
    rows = []
    for split, table in splits.items():
        table = table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        for number, row in enumerate(table):
            value = row[label]
            index = value if value is None or hasattr(features[label], "names") else place[str(value)]
            picture = row[image] or {}
            rows.append(_Row(split, number, -1 if index is None else index, picture.get("path"), picture.get("bytes")))
    return rows, names


def _columns(features, name: str | Path) -> tuple[str, str]:
    """The picture and the label column: those of the usual names, else the first of the fitting kind."""
    import datasets

    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    image = next((column for column in ("image", "img") if column in images), images[0] if images else None)
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    scalars = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel | datasets.Value)]
    label = next((column for column in ("label", "labels") if column in scalars), classes[0] if classes else None)
    if image is None or label is None:
        missing = "picture" if image is None else "label"
        raise DataError(f"{name} has no {missing} column (its columns: {', '.join(features)}).")
    return image, label


def _label_names(splits, features, label: str) -> list[str]:
    if hasattr(features[label], "names"):
        return list(features[label].names)
    values = sorted({value for table in splits.values() for value in table.unique(label) if value is not None})
    return [str(value) for value in values]


def _key(rows: list[_Row], size: int) -> str:
    """A name for the decoded pictures that changes whenever a picture does (labels are read afresh each time)."""
    digest = hashlib.sha256(f"2 {size}".encode())  # 2: the layout of the cache
    for row in rows:
        if row.encoded is not None:
            digest.update(hashlib.sha256(row.encoded).digest())
        else:
            digest.update(str(row.path).encode())
            if row.path and os.path.exists(row.path):
                status = os.stat(row.path)
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _decode(rows: list[_Row], size: int, folder: Path, progress: bool) -> None:
    """Write pixels.npy and index.npz (hash, error and size of each row) into `folder`, aside and then renamed."""

    def decode(row: _Row) -> tuple[str, str, tuple[int, int], np.ndarray | None]:
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
    rows: list[_Row], index, pixels: np.ndarray, shares: tuple[float, float], label_names: list[str], name: str
) -> tuple[Photos, list[_Row]]:
    """Decide which rows are kept and in which split each is."""
    hashes, errors = index["hashes"], index["errors"]
    labels = np.array([row.label for row in rows], np.int64)
    given = {row.split for row in rows}
    splits = np.array([_split(row.split, digest, given, shares) for row, digest in zip(rows, hashes, strict=True)])
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
        problems.append({"split": rows[i].split, "row": rows[i].number, "problem": problem, "detail": detail})
    if not keep:
        raise DataError(f"{name} holds no readable picture with a label.")
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
    report = {
        "pictures": len(rows),
        "kept": len(keep),
        "stored_size": _stored_size(index["sizes"][keep]),
        **counts,
        "duplicates_across_splits": across,
    }
    pictures = Rows(pixels, keep)
    photos = Photos(pictures, labels[keep], hashes[keep], splits[keep], label_names, name, report, problems)
    return photos, [rows[i] for i in keep]


def _stored_size(sizes: np.ndarray) -> str:
    """How large the pictures are as stored, in pixels: one size, or the range of each side."""
    low, high = sizes.min(0), sizes.max(0)
    parts = [str(a) if a == b else f"{a}–{b}" for a, b in zip(low, high, strict=True)]
    return " × ".join(parts)


def _split(given: str, digest: str, all_given: set[str], shares: tuple[float, float]) -> str:
    """The split of a picture: its own where the data set has test or validation, else by its hash."""
    if given in ("test", "validation"):
        return given
    if not digest:
        return "train"
    validation, test = shares
    place = int(digest[:16], 16) / 2**64
    if "test" not in all_given:
        if place < test:
            return "test"
        place -= test
    return "validation" if "validation" not in all_given and place < validation else "train"


def write_problems(photos: Photos, path: Path) -> None:
    """List every picture that was left out, with the reason, as CSV."""
    write_rows(path, photos.problems, PROBLEM_COLUMNS)


def summary(photos: Photos) -> str:
    """What was loaded, in two sentences for the terminal."""
    parts = [
        f"{split} {found['photos']} ({', '.join(f'{name} {share:.1%}' for name, share in found['share'].items())})"
        for split, found in photos.shares().items()
    ]
    kinds = ("unreadable", "unlabelled", "duplicate", "conflict")
    left_out = ", ".join(f"{photos.report[kind]} {kind}" for kind in kinds)
    across = photos.report["duplicates_across_splits"]
    return (
        f"{photos.name}: {len(photos)} pictures: {'; '.join(parts)}. Left out: {left_out} "
        f"({across} of the duplicates stood in two of the data set's own splits)."
    )
