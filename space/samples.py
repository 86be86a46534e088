"""Pictures to click on: those that installed packages bring, and those of a folder named at start."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import ImageOps

from hub.batch import SUFFIXES
from hub.errors import DataError, ImageError
from hub.images import open_image
from space.html import data_url
from space.languages import Say
from space.viewer import jpeg

MOST = 24  # more would push the answer off a phone's screen
THUMBNAIL = 160  # pixels, more than its size on the page, for sharp screens

# Package, its file, the name of its caption in languages/samples.json. scikit-image is not among the Space's
# packages; where it is, its cat is too.
INSTALLED = (
    ("skimage", "data/chelsea.png", "cat"),
    ("gradio", "media_assets/images/cheetah.jpg", "cheetah"),
    ("gradio", "media_assets/images/lion.jpg", "lion"),
    ("gradio", "media_assets/images/tower.jpg", "tower"),
)


@dataclass(frozen=True)
class Sample:
    """One picture to click on."""

    path: Path
    name: str  # of its caption in languages/samples.json, or, from a folder, the caption itself
    thumbnail: bytes  # JPEG, square
    known: bool = False  # whether its caption is in languages/samples.json

    def caption(self, say: Say) -> Markup:
        """Return what stands below it (HTML)."""
        return say(f"samples.{self.name}") if self.known else say.text(self.name)


def samples_for(folder: Path | None = None) -> list[Sample]:
    """Return the samples of `folder` (by name, at most MOST), then those of installed packages.

    A picture that cannot be read is left out with a line on stderr.

    Raises:
        DataError: `folder` is not a folder.
    """
    found = [(path, name, False) for path, name in _in_folder(folder)] if folder else []
    found += [(path, name, True) for path, name in _installed()]
    return [sample for path, name, known in found if (sample := _sample(path, name, known))]


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; check what --samples names.")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
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


def _sample(path: Path, name: str, known: bool) -> Sample | None:
    try:
        picture = open_image(path, size=THUMBNAIL)
    except ImageError as error:
        print(f"Left out of the samples: {error}", file=sys.stderr)
        return None
    thumbnail = jpeg(ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)), quality=75)
    return Sample(path.resolve(), name, thumbnail, known)


def buttons(say: Say, samples: list[Sample]) -> Markup:
    """Return a row of buttons, each with the sample's thumbnail and caption (HTML)."""
    button = Markup("<button type='button' data-index='{}'><img alt='' src='{}'><span>{}</span></button>")
    return Markup("").join(
        button.format(index, data_url(sample.thumbnail, "image/jpeg"), sample.caption(say))
        for index, sample in enumerate(samples)
    )
