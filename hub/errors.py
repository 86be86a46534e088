"""The refusals a user can meet: each message is one sentence that names the thing and the remedy."""

import difflib
from typing import TypeVar

Found = TypeVar("Found")


class Refusal(Exception):
    """What this package refuses, in one sentence to be shown as it is; whatever else is raised is a bug."""


class UsageError(Refusal, ValueError):
    """A name, option or argument that does not exist."""


class ImageError(Refusal, ValueError):
    """A picture that cannot be, or must not be, decoded."""


class UnsupportedImageError(ImageError):
    """A file that is whole, but no picture of a kind that is read: text, a PDF, an SVG drawing, JPEG XL."""


class ImageTooLargeError(ImageError):
    """A picture of more pixels, or a file of more bytes, than may be decoded."""


class BundleError(Refusal, ValueError):
    """A folder or repository that is not a usable model bundle."""


class DataError(Refusal, ValueError):
    """A data set, recipe or setting that training cannot work with."""


class StorageError(Refusal, OSError):
    """A folder or disk that cannot take what has to be written."""


def lookup(name: str, among: dict[str, Found], what: str) -> Found:
    """Return the one of that name.

    Raises:
        UsageError: there is none; the sentence says what was looked for, the nearest name and all the others.
    """
    if name not in among:
        near = difflib.get_close_matches(name, among, n=1, cutoff=0)[0]
        raise UsageError(f"There is no {what} {name}; did you mean {near}? There are {', '.join(among)}.")
    return among[name]


_HARMLESS = "\u200c\u200d\xa0"  # (non-)joiners and the no-break space, which names in many languages hold


def printable(text: str, most: int | None = None) -> str:
    """Return text on one line that sends a terminal nothing but letters; the middle of a longer one is left out."""
    text = "".join(letter if letter.isprintable() or letter in _HARMLESS else "?" for letter in text)
    return text if most is None or len(text) <= most else f"{text[: most - 30]}…{text[-29:]}"


def first_line(error: BaseException) -> str:
    """The first line of another library's error, short enough for a sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:; ")
    return text if len(text) <= 200 else text[:199] + "…"
