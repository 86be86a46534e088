"""Pictures to click on: those that installed packages bring, and those of a folder named at start."""

from __future__ import annotations

import base64
import importlib.util
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageOps

from hub.errors import DataError, ImageError
from hub.images import open_image
from space.words import escape

MOST = 24  # more would push the answer off a phone's screen
THUMBNAIL = 224  # pixels, about twice the size on the page, for sharp screens
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp"}

# Package, its file, caption. scikit-image is not among the Space's packages; where it is, its cat is too.
INSTALLED = (
    ("skimage", "data/chelsea.png", "Cat"),
    ("gradio", "media_assets/images/cheetah.jpg", "Cheetah"),
    ("gradio", "media_assets/images/lion.jpg", "Lion"),
    ("gradio", "media_assets/images/tower.jpg", "Tower"),
)


@dataclass(frozen=True)
class Sample:
    """One picture to click on."""

    path: Path
    caption: str
    thumbnail: bytes  # JPEG, square


def samples_for(folder: Path | None = None) -> list[Sample]:
    """Return the samples of `folder` (by name, at most MOST), then those of installed packages.

    A picture that cannot be read is left out with a line on stderr.

    Raises:
        DataError: `folder` is not a folder.
    """
    found = [*_in_folder(folder), *_installed()] if folder else _installed()
    return [sample for path, caption in found if (sample := _sample(path, caption))]


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; check what --samples names.")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and path.is_file() and not path.name.startswith(".")
    )
    if len(files) > MOST:
        print(f"{folder} holds {len(files)} pictures; the first {MOST} are offered.", file=sys.stderr)
    return [(path, path.stem.replace("_", " ")) for path in files[:MOST]]


def _installed() -> list[tuple[Path, str]]:
    found = []
    for package, file, caption in INSTALLED:
        spec = importlib.util.find_spec(package)  # finds the package without importing it
        for root in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(root, file)).is_file():
                found.append((path, caption))
    return found


def _sample(path: Path, caption: str) -> Sample | None:
    try:
        picture = open_image(path, size=THUMBNAIL)
    except ImageError as error:
        print(f"Left out of the samples: {error}", file=sys.stderr)
        return None
    data = io.BytesIO()
    ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)).save(data, "JPEG", quality=80)
    return Sample(path.resolve(), caption, data.getvalue())


def buttons(samples: list[Sample]) -> str:
    """Return a row of buttons, each with the sample's thumbnail and caption (HTML)."""
    return "".join(
        f"<button type='button' data-index='{index}'>"
        f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(sample.thumbnail).decode()}'>"
        f"<span>{escape(sample.caption)}</span></button>"
        for index, sample in enumerate(samples)
    )
