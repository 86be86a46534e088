"""Tables of labels: which column is the label, and a CSV file that lies beside the pictures it speaks of."""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.batch import text_of
from hub.errors import DataError, printable
from training.photos.split_words import split_of

# What a column of labels is called, likeliest first.
LABEL_COLUMNS = (
    "label", "labels", "class", "classes", "class_name", "class_label", "label_name", "classname", "category",
    "categories", "target", "targets", "species", "breed", "kind", "type", "y", "etiqueta", "klasse", "clase",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "subset", "set", "partition", "fold")
LARGEST = 200_000_000  # bytes of a table that are read
ENOUGH = 0.5  # of a column's values name a picture


@dataclass(frozen=True)
class Labelled:
    """What a table says of a picture."""

    label: str
    split: str | None


def label_column(columns: Iterable[str]) -> str | None:
    """The column that is called as labels are, the likeliest name first, case aside."""
    called = {column.strip().casefold(): column for column in reversed(list(columns))}
    return next((called[name] for name in LABEL_COLUMNS if name in called), None)


def labels_in_tables(top: Path, pictures: dict[Path, str | None], told: list[str]) -> dict[Path, Labelled]:
    """The label of each picture that a CSV or TSV file in the folder, or one folder below, names; {} without a table.

    Args:
        pictures: each with the split that its folder means. A table whose own name means a split speaks of those of it.

    Raises:
        DataError: a table cannot be understood, or two of them speak of the pictures.
    """
    tables = [path for pattern in ("*.csv", "*.tsv", "*/*.csv", "*/*.tsv") for path in sorted(top.glob(pattern))]
    tables = [path for path in tables if path.is_file() and "submission" not in path.name.casefold()]
    found: dict[Path, dict[Path, Labelled]] = {}
    refused: list[str] = []
    for path in tables:
        split = split_of(path.stem, any_word=True)
        own = [picture for picture, of in pictures.items() if split is None or of in (split, None)]
        rows, reason = _read(path, _Names(top, own), split, told)
        if rows:
            found[path] = rows
        else:
            refused.append(reason)
    if not found and refused:
        raise DataError(refused[0])
    if len(found) > 1 and len(set().union(*found.values())) < sum(map(len, found.values())):
        listed = printable(" and ".join(path.name for path in found))
        raise DataError(f"Several tables name the same pictures ({listed}); leave one of them there.")
    for path, rows in found.items():
        name = printable(text_of(path.relative_to(top)))
        told.append(f"The labels of {len(rows):,} pictures are read from {name}.")
    return {picture: row for rows in found.values() for picture, row in rows.items()}


class _Names:
    """Pictures by all that a table may call them."""

    def __init__(self, top: Path, pictures: list[Path]):
        self.top = top
        self.by_path = {unicodedata.normalize("NFC", path.relative_to(top).as_posix()): path for path in pictures}
        self.by_name: dict[str, Path | None] = {}
        for path in pictures:
            for name in {path.name, path.stem}:
                name = unicodedata.normalize("NFC", name)
                self.by_name[name] = None if name in self.by_name else path

    def find(self, name: str, table: Path) -> Path | None:
        """The picture of that path (from the table's folder or the top), name or stem, if there is only one."""
        name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/").removeprefix("./")
        below = (table.parent.relative_to(self.top) / name).as_posix()
        return self.by_path.get(below) or self.by_path.get(name) or self.by_name.get(name)


def _only_column(others: list[str], header: list[str], rows: list[list[str]]) -> str | None:
    """The one column that is left, if its values recur as labels do and captions do not."""
    if len(others) != 1:
        return None
    values = [row[header.index(others[0])] for row in rows]
    return others[0] if len({*values}) <= len(values) / 2 else None


def _decoded(content: bytes) -> str:
    """A table's text: UTF-8, or what spreadsheets write in its place."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _unclear_splits(rows: list[list[str]], place: int | None, called: str, told: list[str]) -> set[str]:
    """The values in a column of splits that mean none beside others that do: what has them is left out."""
    values = {row[place] for row in rows} if place is not None else set()
    unclear = {value for value in values if value.strip() and split_of(value, any_word=True) is None}
    if not unclear:
        return set()
    shown = printable(", ".join(sorted(unclear)), most=100)
    if not any(split_of(value, any_word=True) for value in values):
        told.append(f"What {called} says ({shown}) means neither training, validation nor test: it is not used.")
        return set()
    told.append(f"What {called} says of some ({shown}) means neither training, validation nor test: they are left out.")
    return unclear


def _read(path: Path, names: _Names, own: str | None, told: list[str]) -> tuple[dict[Path, Labelled], str]:
    """What a table says of the pictures, or nothing and one sentence on why it says nothing."""
    called = printable(text_of(path.relative_to(names.top)))
    if path.stat().st_size > LARGEST:
        return {}, f"{called} has more than {LARGEST // 10**6} MB; split it, or sort photos into one folder per label."
    text = _decoded(path.read_bytes())
    delimiter = max(("\t", ";", ","), key=text.partition("\n")[0].count)
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (ValueError, csv.Error):
        header, rows = [], []
    if any(names.find(cell, path) for cell in header):  # a table that begins with its first picture
        header, rows = [f"column {k + 1}" for k in range(len(header))], [header, *rows]
    rows = [(row + [""] * len(header))[: len(header)] for row in rows if row]
    needs = "it needs two: one with the pictures' file names (file_name), and one with their labels (label)"
    columns = f"its columns: {printable(', '.join(header), most=300)}" if header else "it is empty"
    found = {k: [names.find(row[k], path) for row in rows] for k in range(len(header))}
    number = {k: sum(picture is not None for picture in pictures) for k, pictures in found.items()}
    files = max(number, key=lambda k: number[k], default=None)
    if files is None or number[files] < max(1, ENOUGH * len(rows)):
        return {}, f"No column of {called} names the pictures beside it ({columns}); {needs}."
    others = [column for k, column in enumerate(header) if k != files]
    label = label_column(others) or _only_column(others, header, rows)
    if label is None:
        return {}, f"{called} has no column that is clearly the label ({columns}); {needs}."
    split = next((column for column in others if column.strip().casefold() in SPLIT_COLUMNS and column != label), None)
    place, split_place = header.index(label), header.index(split) if split else None
    unclear = _unclear_splits(rows, split_place, f"the column {split} of {called}", told)
    labelled: dict[Path, Labelled] = {}
    for picture, row in zip(found[files], rows, strict=True):
        name = unicodedata.normalize("NFC", row[place].strip())
        if picture is None or not name or (split_place is not None and row[split_place] in unclear):
            continue
        said = Labelled(name, own if split_place is None else split_of(row[split_place], any_word=True))
        if labelled.setdefault(picture, said) != said:
            return {}, (
                f"{called} gives {printable(text_of(picture.name))} two labels or splits "
                f"({printable(f'{labelled[picture].label} and {said.label}')}); leave one."
            )
    return labelled, ""
