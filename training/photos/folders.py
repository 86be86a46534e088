"""Folders of pictures: which folder's name is a picture's label, and which means its split.

`datasets.load_dataset` reads such folders too, but by their names alone: it takes any folder or file that has a word
such as "test", "dev" or "val" in its name for a split, and leaves out what then has none; and it takes the innermost
folder for the label, whatever it is called. Somebody's own photos are named without these rules in mind. What can be
read in two ways is refused, and a pattern behind the folder (`photos/SPLIT/LABEL`) says which of them is meant.
"""

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hub.batch import look_for_pictures, text_of
from hub.errors import DataError, ImageError, printable
from hub.scores import many
from training.photos.label_tables import Labelled, label_column, labels_in_tables
from training.photos.split_words import is_filler, split_in, split_of

LABEL, SPLIT, ANY = "LABEL", "SPLIT", "*"  # of a pattern
# Of files that `load_dataset` may find a data set in, beside those of `_has_tables`.
LOADABLE = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".csv", ".tsv", ".json", ".jsonl")
LISTED = 4  # names in a sentence
WITHOUT_LABEL, OF_SUCH_A_SPLIT = "a picture without a label", "a picture of a split that has no labels"
_YEAR = re.compile(r"(19|20)\d\d(?:[-_. ]?\d\d?(?:[-_. ]?\d\d?)?)?")
# What cameras, phones and programs call pictures; no labels.
_CAMERA = {
    "img", "dsc", "dscn", "dscf", "dcim", "pxl", "mvimg", "vid", "pict", "image", "picture", "photo", "pic", "foto",
    "bild", "imagen", "frame", "screenshot", "scan", "untitled", "download", "file", "img_e", "p", "gopr", "dji", "wp",
    "whatsapp image", "signal", "burst", "train", "test", "val", "valid", "validation",
}  # fmt: skip
_ANNOTATIONS = {
    "annotation", "annotations", "mask", "masks", "trimap", "trimaps", "label", "labels", "segmentation",
    "segmentations", "ground truth", "groundtruth", "ground_truth", "gt", "target", "targets", "depth", "edges",
}  # fmt: skip
_NUMBERED = re.compile(r"(?P<label>.*[^\W\d_].*?)(?:[._\- ]+\d+| ?\(\d+\))$", re.DOTALL)


@dataclass
class LabelFolder:
    """What was read of a folder.

    Attributes:
        pictures: path, split and label of each picture, sorted by path within each split.
        skipped: every file that looks meant and is not among them, and what it is, in words that can follow "is".
        told: sentences on how the folder was read where that is not plain.
        own_splits: whether the splits are the folder's own.
    """

    pictures: list[tuple[Path, str, str]]
    skipped: dict[Path, str]
    told: list[str] = field(default_factory=list)


@dataclass
class _Place:
    """A picture, the names of the folders it lies in, and those not accounted for: (depth, name), outermost first."""

    path: Path
    names: list[str]
    folders: list[tuple[int, str]]
    split: str | None = None
    split_folder: tuple[int, str] | None = None
    label: str | None = None

    @property
    def first(self) -> str | None:
        return self.folders[0][1] if self.folders else None


def with_pattern(name_or_folder: str | Path) -> tuple[str, tuple[str, ...]]:
    """A name or folder, with ~ expanded, and the pattern behind it: photos/SPLIT/LABEL is photos and (SPLIT, LABEL)."""
    name = os.path.expanduser(name_or_folder)  # unlike Path.expanduser, it leaves the home of nobody as it is
    top, levels = Path(name), []
    while top.name in (LABEL, SPLIT, ANY) and not top.exists():
        levels.insert(0, top.name)
        top = top.parent
    return (str(top), tuple(levels)) if LABEL in levels and top.exists() else (name, ())


def read_folder(top: Path, levels: tuple[str, ...] = (), called: Path | None = None) -> LabelFolder | None:
    """The pictures of a folder with a label and a split each.

    Args:
        top: the folder.
        levels: what the folders' levels mean, outermost first: LABEL, SPLIT or *; found out where it is empty.
        called: how sentences call it; default `top`.

    Returns:
        None where `load_dataset` has to say what it is: a table of pictures, or a file that describes them.

    Raises:
        DataError: it holds pictures and no two labels for them, or can be read in two ways.
        StorageError: a folder cannot be listed.
    """
    called = called or top
    if not levels and describes_pictures(top):
        return None
    try:
        found = look_for_pictures([str(top)])
    except ImageError as error:  # there is neither a picture nor what looks like one
        if _has_tables(top) or _has(top, LOADABLE):
            return None
        raise DataError(f"{called} holds neither pictures nor tables of pictures; name another folder.") from error
    if not found.pictures:
        if _has_tables(top):
            return None
        path, reason = next(iter(found.skipped.items()))
        more = f", and {many(len(found.skipped) - 1, 'more file')} like it" if len(found.skipped) > 1 else ""
        raise DataError(
            f"{called} holds no picture that can be read: {_shown(path, top)} is {reason}{more}; save the "
            "pictures as JPEG or PNG."
        )
    names = {folder: _folder_names(folder, top) for folder in {path.parent for path in found.pictures}}
    places = [_Place(path, names[path.parent], list(enumerate(names[path.parent]))) for path in found.pictures]
    skipped, told = dict(found.skipped), []
    if levels:
        _read_by_pattern(places, levels, told)
    elif _has_tables(top) and not _may_be_labels(places):
        return None  # pictures beside a table of pictures, as a card has them
    else:
        _find_splits(places, called)
        if not _labels_from_folders(places, called, told):
            from_table = labels_in_tables(top, {place.path: place.split for place in places}, told)
            if not _label(places, from_table) and not _label(places, _labels_from_names(places, told)):
                raise _no_labels(places, called)
    _tell_unlabelled(places, skipped, told)
    labelled = [place for place in places if place.label is not None]
    _check_labels(labelled, called, levels)
    told += _vanished(found.skipped, found.pictures, top)
    pictures = [(place.path, place.split or "train", place.label) for place in labelled]
    return LabelFolder(pictures, skipped, told)


def _folder_names(folder: Path, top: Path) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in folder.relative_to(top).parts]


# Which folders mean a split -----------------------------------------------------------------------------------


def _find_splits(places: list[_Place], top: Path) -> None:
    """Set each picture's split where folders mean splits, and take these folders off what is left to read."""
    _strip_shared(places)
    depth = max(len(place.folders) for place in places)
    for level in range(depth):
        having = [place for place in places if len(place.folders) > level]
        names = list(dict.fromkeys(place.folders[level][1] for place in having))
        meanings = {name: split_of(name) for name in names}
        known = {meaning for meaning in meanings.values() if meaning}
        if not known:
            continue
        outer = level > 0 and len(having) < len(places)
        if all(meanings.values()) and not outer:
            for place in having:
                _take_split(place, level, meanings[place.folders[level][1]])
            break
        deeper = any(len(place.folders) > level + 1 for place in having if meanings[place.folders[level][1]])
        if len(known) > 1 or deeper or level > 0:
            raise _unclear_splits(top, having, level, [name for name in names if meanings[name]], names)
    for split in {place.split for place in places if place.split}:
        _strip_fillers([place for place in places if place.split == split])
    _strip_shared(places)


def _strip_shared(places: list[_Place]) -> None:
    """Take off outer folders that all pictures share, as long as there are folders inside them."""
    while True:
        firsts = {place.first for place in places if place.folders}
        inner = any(len(place.folders) > 1 for place in places)
        if len(firsts) != 1 or not inner or split_of(*firsts):
            return
        for place in places:
            del place.folders[:1]


def _strip_fillers(places: list[_Place]) -> None:
    """Take off a folder called "images" or the like that all pictures of a split lie in."""
    while len({place.first for place in places}) == 1 and places[0].first and is_filler(places[0].first):
        for place in places:
            del place.folders[0]


def _take_split(place: _Place, level: int, split: str) -> None:
    place.split, place.split_folder = split, place.folders.pop(level)
    while len(place.folders) > level and (again := split_of(place.folders[level][1])):  # training_set/training_set
        if again != split:
            file = printable("/".join([*place.names, text_of(place.path.name)]))
            raise DataError(f"{file} is in a folder for {split} and in one for {again}; move it out of one of them.")
        place.folders.pop(level)


def _unclear_splits(top: Path, places: list[_Place], level: int, words: list[str], names: list[str]) -> DataError:
    rest = [name for name in names if name not in words]
    depth = places[0].folders[level][0]
    inner = next((place for place in places if len(place.folders) > level + 1), places[0])
    other = next((d for d, _ in [*reversed(inner.folders[:level]), *inner.folders[level + 1 :]]), None)
    as_split = _command(top, places, {depth: SPLIT, other: LABEL}) if other is not None else ""
    as_label = _command(top, places, {depth: LABEL})
    meant = f"{listed(words)} may be {'a split' if len(words) == 1 else 'splits'}"
    beside = f", but {listed(rest)} beside {'it is' if len(words) == 1 else 'them is'} none" if rest else ""
    remedies = [
        f"for splits give {as_split}" + (f" (without {listed(rest)})" if rest else "") if as_split
        else f"for splits move {listed(rest or words)} elsewhere",
        f"for labels {'' if as_split else 'give '}{as_label}" if as_label else "",
    ]  # fmt: skip
    return DataError(
        f"{top} can be read in two ways: {meant}{beside}, or all of them labels; {', '.join(filter(None, remedies))}."
    )


# Which folders are labels -------------------------------------------------------------------------------------


def _labels_from_folders(places: list[_Place], top: Path, told: list[str]) -> bool:
    """Set the label of each picture that lies in a label's folder; False where no folders are labels."""
    depth = max(len(place.folders) for place in places)
    names = [
        list(dict.fromkeys(place.folders[level][1] for place in places if len(place.folders) > level))
        for level in range(depth)
    ]
    levels = [level for level in range(depth) if len(names[level]) > 1]
    lettered = [level for level in levels if not _are_dates(names, level)]
    levels = lettered or levels
    if not levels:
        return False
    level = levels[0]
    if len(levels) > 1 and not _lies_in_each(places, level):
        raise _unclear_labels(top, places, levels, names)
    _check_mixed_names(names[level], top, places, level)
    _check_annotations(names[level], top, places, level)
    for place in places:
        if len(place.folders) > level:
            place.label = place.folders[level][1]
    if depth > level + 1 or level > 0:
        example = next(place for place in places if place.label is not None and len(place.folders) > 1)
        others = listed(name for depth, (_, name) in enumerate(example.folders) if depth != level)
        told.append(f"The labels are {listed(names[level])}; other folders, such as {others}, are not labels.")
    return True


def _are_dates(names: list[list[str]], level: int) -> bool:
    """Whether all folders of a level are years or dates, or months and days below such a level."""
    if all(_YEAR.fullmatch(name) for name in names[level]):
        return True
    below = level > 0 and _are_dates(names, level - 1)
    return below and all(re.fullmatch(r"\d\d?", name) for name in names[level])


def _lies_in_each(places: list[_Place], level: int) -> bool:
    """Whether pictures lie directly in every folder of a level, so that the folders inside cannot be all the labels."""
    direct = {place.folders[level][1] for place in places if len(place.folders) == level + 1}
    return direct == {place.folders[level][1] for place in places if len(place.folders) > level}


def _unclear_labels(top: Path, places: list[_Place], levels: list[int], names: list[list[str]]) -> DataError:
    example = next(place for place in places if len(place.folders) > levels[-1])
    split = {example.split_folder[0]: SPLIT} if example.split_folder else {}
    readings = [
        f"{listed(names[level])}: {_pattern(top, {**split, example.folders[level][0]: LABEL})}" for level in levels
    ]
    return DataError(f"The labels of {top} may be the outer or the inner folders; say which: {', or '.join(readings)}.")


def _check_mixed_names(names: list[str], top: Path, places: list[_Place], level: int) -> None:
    """Refuse folders such as train_cats and test_cats, which hold a split and a label at once."""
    found = {name: split_in(name) for name in names}
    rests: dict[str, set[str]] = {}
    for part in found.values():
        if part:
            rests.setdefault(part[1], set()).add(part[0])
    both = next((rest for rest, splits in rests.items() if len(splits) > 1), None)
    if both is not None:
        some = [name for name, part in found.items() if part and part[1] == both]
        depth = next(place.folders[level][0] for place in places if len(place.folders) > level)
        raise DataError(
            f"{listed(some)} in {top} may each be a split and a label at once, or labels; for the first, rename them "
            f"to {found[some[0]][0]}/{both} and the like, for the second give {_pattern(top, {depth: LABEL})}."
        )


def _check_annotations(names: list[str], top: Path, places: list[_Place], level: int) -> None:
    """Refuse images/ beside masks/, which are two pictures of each thing and no two labels."""
    drawn = [name for name in names if name.casefold() in _ANNOTATIONS]
    if drawn and all(name in drawn or is_filler(name) for name in names):
        depth = next(place.folders[level][0] for place in places if len(place.folders) > level)
        raise DataError(
            f"The folders {listed(names)} of {top} look like pictures and what was drawn for them; sort the photos "
            f"into one folder per label, or if these are the labels give {_pattern(top, {depth: LABEL})}."
        )


def _read_by_pattern(places: list[_Place], levels: tuple[str, ...], told: list[str]) -> None:
    unknown: Counter[str] = Counter()
    for place in places:
        names = dict(place.folders)
        if len(names) < len(levels):
            continue
        for depth, meaning in enumerate(levels):
            if meaning == SPLIT:
                place.split = split_of(names[depth], any_word=True)
                if place.split is None:
                    unknown[names[depth]] += 1
        if SPLIT not in levels or place.split:
            place.label = names[levels.index(LABEL)]
    for name, number in unknown.items():
        left = f"its {many(number, 'picture')} {'is' if number == 1 else 'are'} left out"
        told.append(f"{printable(name)} means neither training, validation nor test: {left}.")


def _label(places: list[_Place], found: dict[Path, Labelled]) -> bool:
    """Set what was found of the pictures; whether that is anything."""
    for place in places:
        if row := found.get(place.path):
            place.label, place.split = row.label, place.split or row.split
    return bool(found)


def _labels_from_names(places: list[_Place], told: list[str]) -> dict[Path, Labelled]:
    """Labels from names such as cat.0.jpg, in each split whose pictures are nearly all called like that."""
    by_split: dict[str | None, list[_Place]] = {}
    for place in places:
        by_split.setdefault(place.split, []).append(place)
    found: dict[Path, Labelled] = {}
    for group in by_split.values():
        named = {place.path: match["label"] for place in group if (match := _NUMBERED.fullmatch(place.path.stem))}
        if len(named) >= 0.9 * len(group):
            found |= {path: Labelled(unicodedata.normalize("NFC", label), None) for path, label in named.items()}
    counts = Counter(row.label for row in found.values())
    camera = any(label.strip(" ._-").casefold() in _CAMERA for label in counts)
    if len(counts) < 2 or camera or min(counts.values()) < 2:
        return {}
    example = next(path for path in found)
    told.append(
        f"The labels are read from the files' names, as {printable(found[example].label)} from "
        f"{printable(text_of(example.name))}: {listed(counts)}."
    )
    return found


# What is said -------------------------------------------------------------------------------------------------


def _no_labels(places: list[_Place], top: Path) -> DataError:
    """One sentence on why there are no two labels, and what to do."""
    inner = sorted({place.first for place in places if place.folders})
    splits = sorted({place.split_folder[1] for place in places if place.split_folder})
    sort = "sort the photos into one folder per label"
    if len(inner) == 1 and not is_filler(inner[0]):
        return one_label_only(top, inner)
    if splits:
        return DataError(
            f"{top} has no label folders, only {listed(splits)}; {sort} inside {'each' if len(splits) > 1 else 'it'}."
        )
    where = f"all in {listed(inner)}" if inner else "in no folders"
    return DataError(f"The pictures of {top} have no label: they lie {where}; {sort}.")


def one_label_only(top: str | Path, names: Iterable[str]) -> DataError:
    """What is said of a data set whose pictures are all of one label."""
    return DataError(
        f"{top} has one label only ({listed(names)}); a classifier needs two: add pictures of something else."
    )


def _tell_unlabelled(places: list[_Place], skipped: dict[Path, str], told: list[str]) -> None:
    """List the pictures without a label, and tell a split's folder that has no others."""
    labelled = {place.split_folder for place in places if place.label is not None}
    without: dict[tuple[int, str], int] = {}
    for place in places:
        if place.label is not None:
            continue
        if place.split_folder is None or place.split_folder in labelled:
            skipped[place.path] = WITHOUT_LABEL
        else:
            skipped[place.path] = OF_SUCH_A_SPLIT
            without[place.split_folder] = without.get(place.split_folder, 0) + 1
    for (_, name), number in without.items():
        told.append(
            f"{printable(name)} has no labels: its {many(number, 'picture')} {'is' if number == 1 else 'are'} left out."
        )


def _check_labels(labelled: list[_Place], top: Path, levels: tuple[str, ...]) -> None:
    names = {place.label for place in labelled}
    if not names and levels:
        raise DataError(
            f"No picture of {top} has a label by {'/'.join(levels)}; look at how deep its folders are"
            f"{' and which of them mean splits' if SPLIT in levels else ''}."
        )
    if len(names) < 2:
        raise one_label_only(top, names)


def _vanished(skipped: dict[Path, str], pictures: list[Path], top: Path) -> list[str]:
    """A sentence for each folder that holds nothing but skipped files, since its label is missing then."""
    lowest = {path.parent for path in pictures}
    full = lowest | {folder for path in lowest for folder in path.parents}
    empty = Counter(path.parent for path in skipped if path.parent not in full and path.parent != top)
    return [
        f"No picture in {_shown(folder, top)} can be read ({many(number, 'file')}), so it is not a label."
        for folder, number in sorted(empty.items())
    ]


def skipped_in_words(skipped: dict[Path, str], top: Path) -> list[str]:
    """A sentence for each reason for which files in a folder were passed over, with some of their names."""
    by_reason: dict[str, list[Path]] = {}
    for path, reason in skipped.items():
        if reason != OF_SUCH_A_SPLIT:  # which has its own sentence
            by_reason.setdefault(reason, []).append(path)
    sentences = []
    for reason, paths in by_reason.items():
        names = listed(_shown(path, top) for path in paths)
        sentences.append(f"Skipped {many(len(paths), 'file')} ({names}): {reason}.")
    return sentences


def _shown(path: Path, top: Path) -> str:
    return printable(text_of(path.relative_to(top)))


def listed(names: Iterable[str]) -> str:
    """Some names as they stand in a sentence: a, b and 7 more."""
    names = list(names)
    shown = [printable(name) for name in names[:LISTED]]
    if len(names) > LISTED:
        return f"{', '.join(shown)} and {len(names) - LISTED:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _command(top: Path, places: list[_Place], meanings: dict[int, str]) -> str:
    """The option that gives the levels of folders these meanings, or "" where that does not lead to two labels."""
    depth, levels = next(d for d, meaning in meanings.items() if meaning == LABEL), range(max(meanings) + 1)
    split = next((d for d, meaning in meanings.items() if meaning == SPLIT), None)
    deep = [place.names for place in places if len(place.names) >= len(levels)]
    labels = {names[depth] for names in deep if split is None or split_of(names[split], any_word=True)}
    return _pattern(top, meanings) if len(labels) > 1 else ""


def _pattern(top: Path, meanings: dict[int, str]) -> str:
    """The folder with a pattern that gives its levels these meanings, as it is typed in a shell."""
    return shlex.quote(str(Path(top, *(meanings.get(depth, ANY) for depth in range(max(meanings) + 1)))))


# What load_dataset reads --------------------------------------------------------------------------------------


def describes_pictures(top: Path) -> bool:
    """Whether a file says which pictures there are and what belongs to each, in the way that `load_dataset` knows."""
    card = top / "README.md"
    if card.is_file() and "\nconfigs:" in card.read_text(encoding="utf-8", errors="replace"):
        return True
    return any(_names_files(path) for path in top.rglob("metadata.*"))


def _names_files(metadata: Path) -> bool:
    """Whether a metadata file has the column by which `load_dataset` finds the pictures, and one of labels."""
    if metadata.suffix not in (".csv", ".jsonl"):
        return metadata.suffix == ".parquet"
    with metadata.open(encoding="utf-8-sig", errors="replace") as file:
        columns = re.findall(r"\w+", file.readline(10_000))
    return "file_name" in columns and (metadata.suffix == ".jsonl" or label_column(columns) is not None)


def _has_tables(top: Path) -> bool:
    """Whether there are files that hold a whole data set."""
    return _has(top, (".parquet", ".arrow", ".tar"))


def _has(top: Path, endings: tuple[str, ...]) -> bool:
    return any(path.suffix.lower() in endings for path in top.rglob("*") if not path.name.startswith("."))


def _may_be_labels(places: list[_Place]) -> bool:
    """Whether the pictures lie in several folders, all at the same depth."""
    folders = {place.path.parent for place in places}
    return len(folders) > 1 and len({len(place.folders) for place in places}) == 1
