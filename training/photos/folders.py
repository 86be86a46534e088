"""Folders of pictures, one a label.

`datasets.load_dataset` reads such folders too, but by their names: it takes any folder or file that has a word such as
"test", "dev" or "val" in its name for a split, and leaves out what then has none; and it passes over a phone's HEIC.
Somebody's own photos are named without these rules in mind.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from hub.batch import find_pictures
from hub.errors import DataError, ImageError

if TYPE_CHECKING:
    from datasets import DatasetDict

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}


def label_folders(folder: str | Path) -> "DatasetDict | None":
    """The pictures of FOLDER/LABEL/… or FOLDER/SPLIT/LABEL/…, as `load_dataset` gives them: `image` and `label`.

    A picture's label is the name of the folder that it lies in, whatever that name is; the splits are those of `SPLITS`
    where every folder at the top is one of these words, else all is "train". Files that are not called as pictures are
    passed over.

    Returns:
        None where it is no such folder, and `load_dataset` has to say what it is: no folder at all, fewer than two
        labels, pictures at several depths, or a file that describes the pictures (metadata.*, a card with `configs:`).

    Raises:
        DataError: the folders are splits, and the pictures lie in them without a label.
        StorageError: a folder cannot be listed.
    """
    top = Path(folder)
    if not top.is_dir() or _described(top):
        return None
    try:
        pictures = find_pictures([top])
    except ImageError:  # there is none
        return None
    parts = [path.relative_to(top).parts for path in pictures]
    if len({len(part) for part in parts}) > 1 or len(parts[0]) < 2:
        return None
    in_splits = all(part[0].lower() in _SPLIT_OF for part in parts)
    names = sorted({part[-2] for part in parts})
    if in_splits and len(parts[0]) < 3:
        raise DataError(
            f"{top} has no label folders, only {' and '.join(names)}; sort the photos into one folder a label."
        )
    if len(names) < 2:
        return None
    files: dict[str, list[tuple[str, str]]] = {}
    for path, part in zip(pictures, parts, strict=True):
        files.setdefault(_SPLIT_OF[part[0].lower()] if in_splits else "train", []).append((str(path), part[-2]))

    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

    kinds = Features({"image": Image(), "label": ClassLabel(names=names)})
    columns = {
        split: dict(zip(kinds, map(list, zip(*rows, strict=True)), strict=True)) for split, rows in files.items()
    }
    return DatasetDict({split: Dataset.from_dict(column, features=kinds) for split, column in columns.items()})


def _described(top: Path) -> bool:
    """Whether a file says which pictures there are and what belongs to each."""
    card = top / "README.md"
    if card.is_file() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace"):
        return True
    return any(path.suffix in (".csv", ".jsonl", ".parquet") for path in top.rglob("metadata.*"))
