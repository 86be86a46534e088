"""From what somebody calls their data to one row per picture: a name on the Hub, a folder, a zip, or tables."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import datasets

from hub.batch import text_of
from hub.config import label_fault
from hub.errors import DataError, ImageError, Refusal, first_line, printable
from hub.images import recognise
from hub.scores import many
from training.photos.folders import (
    LabelFolder,
    describes_pictures,
    listed,
    one_label_only,
    read_folder,
    skipped_in_words,
    with_pattern,
)
from training.photos.label_tables import LABEL_COLUMNS, label_column
from training.photos.split_words import WORDS, split_of
from training.photos.zips import unpacked

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features


@dataclass(frozen=True)
class Row:
    """A picture as the data set stores it.

    Attributes:
        split: the data set's own name of its split.
        use: what that split is used for: "train", "validation" or "test".
        number: the row's number in its split.
        label: an index into the names of the labels, -1 without one.
        path: of its file, if it has one.
        encoded: the bytes of its file, if they are not on disk.
    """

    split: str
    use: str
    number: int
    label: int
    path: str | None
    encoded: bytes | None

    def bytes(self) -> bytes:
        """The picture's file.

        Raises:
            ImageError: there is none, or it cannot be read.
        """
        if self.encoded is not None:
            return self.encoded
        if self.path is None:
            raise ImageError(f"Row {self.number} of {self.split} holds no picture.")
        if Path(self.path).exists() and not Path(self.path).is_file():  # reading a pipe would wait for its other end
            raise ImageError(f"{Path(self.path).name} is not a file.")
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{Path(self.path).name} cannot be read from disk.") from error

    @property
    def file(self) -> str:
        """The name of its file with the folder it lies in, "" where the data set keeps none."""
        return text_of("/".join(Path(self.path or "").parts[-2:]))


@dataclass(frozen=True)
class Source:
    """All rows of a data set, the names of its labels (K, in NFC), and what was passed over.

    Attributes:
        name: as it was given, with ~ expanded.
        skipped: files that look meant and are no rows: (file, what it is).
        told: sentences on how the data set was read where that is not plain.
    """

    name: str
    rows: list[Row]
    label_names: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def local_path(name_or_folder: str | Path) -> Path | None:
    """The folder or file that a data set's name means, without a pattern behind it; None for a name on the Hub."""
    path = Path(with_pattern(name_or_folder)[0])
    return path if path.exists() else None


def demand_outside(name_or_folder: str | Path, out: Path, option: str) -> None:
    """Refuse a folder or file for results inside the folder of the pictures, as its figures would count as some later.

    Args:
        option: what names another place on the command line.

    Raises:
        DataError: it lies inside.
    """
    place = local_path(name_or_folder)
    if place is not None and Path(place).resolve() in (Path(out).resolve(), *Path(out).resolve().parents):
        raise DataError(
            f"{out} lies inside {place}, so what is written there would count as pictures the next time; name a place "
            f"elsewhere{f' with {option}' if option else ''}."
        )


def title_of(name_or_folder: str | Path) -> str:
    """What a data set may be called: the last part of its folder's or zip's name, or its name on the Hub."""
    place = local_path(name_or_folder)
    if place is None:
        return str(name_or_folder)
    return place.stem if place.is_file() else place.resolve().name


def read_source(name_or_folder: str | Path, cache: Path) -> Source:
    """The rows of a data set.

    Args:
        name_or_folder: a name on the Hub; a folder that has label folders, a table of labels or tables of pictures in
            it, with a pattern behind it or not (`training.folders`); or a zip of such a folder.
        cache: where a zip is unpacked.

    Raises:
        DataError: no such data set, or one that cannot be understood.
        StorageError: a folder cannot be listed, or the cache not be written.
    """
    if not str(name_or_folder).strip():
        raise DataError("The name of the pictures' folder is empty; give a folder, a zip, or a name on the Hub.")
    place, levels = with_pattern(name_or_folder)
    name = str(Path(place, *levels)) if levels else place
    top = Path(place)
    if top.is_file():
        top = unpacked(top, cache / "zips")
    folder = read_folder(top, levels, Path(place)) if top.is_dir() else None
    source = _of_folder(name, folder, top) if folder else _of_tables(name, *_load(place, top))
    for label in source.label_names:
        if fault := label_fault(label):
            raise DataError(f"The label {label!r} of {name} has {fault}; rename it.")
    if len(source.label_names) == 1:
        raise one_label_only(name, source.label_names)
    return source


def _of_folder(name: str, folder: LabelFolder, top: Path) -> Source:
    names = sorted({label for _, _, label in folder.pictures})
    place = {label: k for k, label in enumerate(names)}
    by_split: dict[str, list[tuple[Path, str]]] = {}
    for path, split, label in folder.pictures:
        by_split.setdefault(split, []).append((path, label))
    rows = [
        Row(split, split, number, place[label], str(path), None)
        for split, pictures in by_split.items()
        for number, (path, label) in enumerate(pictures)
    ]
    skipped = [(text_of(path.relative_to(top)), reason) for path, reason in folder.skipped.items()]
    return Source(name, rows, names, skipped, [*folder.told, *skipped_in_words(folder.skipped, top)])


# Tables of pictures, as the Hub has them ------------------------------------------------------------------------


def _load(name: str, top: Path) -> tuple["DatasetDict", list[str]]:
    """What `load_dataset` finds, with the splits of a folder's files by our rule, and what is to be told of these."""
    told: list[str] = []
    try:  # a folder by its whole path, since "csv" and "pandas" alone mean something else to it
        if _saved_to_disk(top):
            found = datasets.load_from_disk(str(top.resolve()))
            return found if isinstance(found, datasets.DatasetDict) else datasets.DatasetDict(train=found), told
        found = datasets.load_dataset(str(top.resolve()) if top.is_dir() else name)
        files, unknown = _parquet_files(top)
        if unknown or (files and {*files} != {split_of(split, any_word=True) for split in found}):
            found = datasets.load_dataset("parquet", data_files=files)
            told += [f"{file} means neither training, validation nor test by its name: left out." for file in unknown]
        return found, told
    except Refusal:
        raise
    except Exception as error:  # load_dataset raises a dozen unrelated types
        if "Config name is missing" in str(error):
            raise DataError(
                f"{name} holds several data sets ({_quoted(str(error))}), and one is needed: give the folder of one."
            ) from error
        raise DataError(
            f"No data set could be loaded from {name} ({first_line(error.__cause__ or error)}); "
            f"{'unpack what is packed in it' if _has_zips(top) else 'give a folder of pictures or a name on the Hub'}."
        ) from error


def _has_zips(top: Path) -> bool:
    return top.is_dir() and next(top.rglob("*.zip"), None) is not None


def _saved_to_disk(top: Path) -> bool:
    """Whether `save_to_disk` has written the folder, which `load_dataset` does not read."""
    return any((top / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _quoted(text: str) -> str:
    """What stands in a text's brackets, of another library's list of names."""
    return listed(re.findall(r"'([^']+)'", text.partition("[")[2].partition("]")[0]))


def _parquet_files(top: Path) -> tuple[dict[str, list[str]], list[str]]:
    """A folder's parquet files by the splits that their names or folders mean, and those that mean none beside them.

    `load_dataset` knows fewer words: it puts trainset.parquet and testset.parquet together, and passes over
    holdout.parquet beside train.parquet.
    """
    if not top.is_dir() or describes_pictures(top):
        return {}, []
    files: dict[str, list[str]] = {}
    unknown = []
    for path in sorted(top.resolve().rglob("*.parquet")):
        parts = path.relative_to(top.resolve()).parts
        if any(part.startswith(".") for part in parts):
            continue
        uses = (split_of(part, any_word=True) for part in (path.stem, *reversed(parts[:-1])))
        if use := next(filter(None, uses), None):
            files.setdefault(use, []).append(str(path))
        else:
            unknown.append(printable(text_of("/".join(parts))))
    return ({use: files[use] for use in WORDS if use in files}, unknown) if files else ({}, [])


def _of_tables(name: str, splits: "DatasetDict", told: list[str]) -> Source:
    uses = _uses(list(splits), told)
    for split, table in splits.items():
        if split not in uses:
            told.append(
                f"The split {split} means neither training, validation nor test: its {many(len(table), 'row')} "
                f"{'is' if len(table) == 1 else 'are'} left out."
            )
    features = next(iter(splits.values())).features
    image = _picture_column(splits, features, name)
    label = _label_column(features, image, name, told)
    names, index_of = _label_names(splits, features, label)
    rows = []
    for split, use in uses.items():
        for number, (value, picture) in enumerate(_cells(splits[split], label, image)):
            index = index_of.get(value, -1)
            if index < 0 and value not in (None, -1, "", b"") and value == value:  # NaN is not itself
                raise DataError(
                    f"Row {number} of {split} in {name} has the label {value!r}, but {label} knows only 0 to "
                    f"{len(names) - 1} ({listed(names)}); correct it, or leave that row out."
                )
            rows.append(Row(split, use, number, index, *picture))
    return Source(name, rows, names, told=told)


def _uses(splits: list[str], told: list[str]) -> dict[str, str]:
    """What each split is used for, without those whose names mean nothing beside others that do."""
    found = {split: split_of(split, any_word=True) for split in splits}
    if not any(found.values()):
        if len(splits) > 1:
            told.append(
                f"The names of its own splits ({listed(splits)}) mean neither training, validation nor test: they are "
                "put together and split anew."
            )
        return dict.fromkeys(splits, "train")
    return {split: use for split, use in found.items() if use}


def _picture_column(splits: "DatasetDict", features: "Features", name: str) -> str:
    """The column of pictures: the one of the usual name, else the first of that kind."""
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    table = next(iter(splits.values()))
    if not images:  # as other libraries write them: no kind, but the bytes of files
        images = [column for column in features if _holds_files(table, column)]
    if not images:
        raise DataError(
            f"{name} has no picture column ({_columns(features)}); give a folder of pictures, or tables "
            "with a column that holds the bytes of each picture's file."
        )
    return next((column for column in ("image", "img") if column in images), images[0])


def _columns(features: "Features") -> str:
    return f"its columns: {printable(', '.join(features), most=300)}"


def _holds_files(table: "Dataset", column: str) -> bool:
    """Whether the first cell that is not empty holds the bytes of a picture."""
    kind = table.features[column]
    binary = isinstance(kind, datasets.Value) and "binary" in kind.dtype
    if not binary and not (isinstance(kind, dict) and "bytes" in kind):
        return False
    for row in table.select_columns([column]):
        content = row[column]["bytes"] if isinstance(row[column], dict) else row[column]
        if content:
            return recognise(content[:4096])[0] != "other"
    return False


def _label_column(features: "Features", image: str, name: str, told: list[str]) -> str:
    """The column of labels: label or labels, else the first that names its classes, else one that is called as such."""
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    scalars = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel | datasets.Value)]
    usual = next((column for column in ("label", "labels") if column in scalars), None)
    lists = label_column(column for column in features if column not in (*scalars, image))
    if lists in ("label", "labels") and not usual:
        raise DataError(
            f"The column {lists} of {name} holds several values in a row, and a picture here has one label; make a "
            f"column of single numbers or names and call it {LABEL_COLUMNS[0]}."
        )
    label = usual or (classes[0] if classes else label_column(c for c in scalars if c != image))
    if label is None:
        raise DataError(
            f"{name} has no label column ({_columns(features)}); rename the one that holds the labels to "
            f"{LABEL_COLUMNS[0]}."
        )
    others = [column for column in classes if column != label]
    if not usual:
        more = f"; its other columns of labels are {listed(others)}" if others else ""
        told.append(f"The labels are read from the column {label}{more}.")
    return label


def _label_names(splits: "DatasetDict", features: "Features", label: str) -> tuple[list[str], dict]:
    """The names of the labels in NFC, each once, and what a cell's value is as an index into them."""
    if hasattr(features[label], "names"):
        values = list(enumerate(features[label].names))
    else:
        found = {value for table in splits.values() for value in table.unique(label)}
        values = [(value, _name(value)) for value in sorted(found - {None}) if value == value]  # NaN is not itself
        values = [(value, label) for value, label in values if label]
    named = {value: unicodedata.normalize("NFC", name) for value, name in values}
    names = list(dict.fromkeys(named.values()))
    if all(isinstance(value, str) for value in named):
        names.sort()  # as one spells them, not as the data set does
    return names, {value: names.index(name) for value, name in named.items()}


def _name(value: object) -> str:
    """What a cell's value is called: 1.0 is 1, as a whole number becomes where other rows of the column are empty."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _cells(table: "Dataset", label: str, image: str) -> Iterator[tuple[object, tuple[str | None, bytes | None]]]:
    """Each row's label as it is stored, and the path and the bytes of its picture."""
    table = table.select_columns([image, label])
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    for row in table:
        picture = row[image]
        if isinstance(picture, bytes):
            yield row[label], (None, picture)
        else:
            picture = picture or {}
            yield row[label], (picture.get("path"), picture.get("bytes"))
