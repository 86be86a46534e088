"""The proof that a published model says the same everywhere: every runtime on the same photos, each in its own process.

Two questions are asked, both against Keras on the tensors that `hub.images` makes. *Same tensor in*: do the formats
compute the same function? That must hold to 1e-4, or nothing is published. *Same file in*: what does a user get whose
library reads the picture itself? That is reported. Beside the photos given it is asked of a photo of 12 megapixels,
since libraries shrink differently, and of one that is stored turned, since some overlook the EXIF note that says so.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hub import bundle
from hub.agreement import TOLERANCE, Agreement, LargestPhoto, Row, SameFile, difference
from hub.config import read_config
from hub.errors import BundleError, ImageError, UsageError, printable
from hub.files import sha256, write_aside
from hub.formats import FORMATS, Answers, Format, Runner, batched
from hub.formats.foreign import refuse_probabilities
from hub.images import open_image, to_tensor
from hub.publishing import staging
from hub.scores import softmax

REFERENCE = "keras"
LARGE = (4000, 3000)  # 12 megapixels, as phones take them
TURNED = 6  # the EXIF orientation of a photo taken with the phone upright


def verify(
    folder: Path,
    photos: list[Path],
    *,
    without: Iterable[str] = (),
    also: Iterable[str] = (),
    using: dict[str, str] | None = None,
    title: str | None = None,
    progress: bool = True,
) -> Agreement:
    """Run every format of a bundle on the same photos; write agreement.json and the card that shows it.

    Args:
        folder: a bundle; no other file of it is touched.
        photos: picture files; unreadable ones are left out and counted.
        without, also: formats to leave out or to add, as for `hub.publishing.staging.choose`.
        using: by format, where it is run: another Python interpreter, or for transformers.js the folder that
            holds its node_modules.
        title: what the card calls the photos; None is "photos".
        progress: show a bar on standard error.

    Returns:
        What agreement.json says now. `hub.agreement.failures` says what in it forbids to publish.

    Raises:
        BundleError: no readable photo, a runtime that is not installed, or one that fails.
    """
    using = using or {}
    formats, left_out = staging.choose(folder, without=without, also=also)
    check_runtimes(formats, using)
    with tempfile.TemporaryDirectory() as place:
        aside = Path(place)
        staged = staging.stage(folder, aside / "model", formats)
        config = read_config(staged)
        for one in formats:
            one.check(staged, config)
        runner = FORMATS["onnx"].start(staged, config)
        refuse_probabilities(str(folder), runner, runner.image_size)  # a bundle may come from elsewhere
        pictures = _Pictures(photos, runner, aside)
        runners = [one for one in formats if one.runs]

        def ask(one: Format) -> Answers:
            return one.answer(staged, pictures.tensors, pictures.files, using.get(one.name))

        with ThreadPoolExecutor(max_workers=2) as two:  # half of a process's time is spent importing its runtime
            asked = tqdm(two.map(ask, runners), "Comparing", len(runners), disable=not progress or None, unit="runtime")
            answers = {one.name: answer for one, answer in zip(runners, asked, strict=True)}
        for one in runners:
            _check_finite(one, answers[one.name])
        found = Agreement(
            tolerance=TOLERANCE,
            photos=pictures.count,
            title=printable(title or "photos"),
            unreadable=pictures.unreadable,
            largest_photo=pictures.largest,
            largest_evidence=_largest_evidence(answers[REFERENCE]),
            runtimes={one.name: _row(one, answers, pictures.count) for one in runners},
            files={name: sha256(staged / name) for one in formats for name in one.files},
            written_only={one.name: one.title for one in formats if not one.runs},
            left_out=left_out,
        )
    text = bundle.json_text(found.to_json(), bundle.AGREEMENT)
    write_aside(folder / bundle.AGREEMENT, lambda file: file.write(text.encode()))
    write_aside(folder / bundle.CARD, lambda file: file.write(staging.card(folder).encode()))
    return found


def places(assignments: Iterable[str]) -> dict[str, str]:
    """Return what `using` takes of texts RUNTIME=PATH, as a command line has them.

    Raises:
        UsageError: one is not of that form.
    """
    pairs = [text.partition("=") for text in assignments]
    for pair in pairs:
        if not all(pair):
            raise UsageError(f"{''.join(pair)} is not RUNTIME=PATH, such as transformers=torch-env/bin/python.")
    return {name: path for name, _, path in pairs}


def check_runtimes(formats: Iterable[Format], using: dict[str, str] | None = None) -> None:
    """Raise a BundleError that names the first runtime that is not installed where it is to be run.

    A name that is no runtime's is a UsageError.
    """
    using = using or {}
    strangers = sorted(using.keys() - FORMATS.keys())
    if strangers:
        raise UsageError(f"There is no runtime {strangers[0]}; choose from {', '.join(FORMATS)}.")
    for one in formats:
        missing = one.missing(using.get(one.name))
        if missing:
            raise BundleError(
                f"{one.title} is not installed here (no {', '.join(missing)}), so it cannot be compared: "
                f"install {one.install}, say where it is with --using {one.name}=PATH, or publish --without {one.name}."
            )


def _largest_evidence(answers: Answers) -> float | None:
    return None if answers.evidence is None else float(np.abs(answers.evidence).max())


def _check_finite(one: Format, answers: Answers) -> None:
    wrong = ~np.isfinite(answers.logits).all(axis=1)
    if answers.evidence is not None:
        wrong |= ~np.isfinite(answers.evidence).all(axis=(1, 2, 3))
    if wrong.any():
        raise BundleError(
            f"{one.title} answers NaN or infinity for {wrong.sum():,} of {len(wrong):,} photos: nothing was written; "
            "look for weights that are broken, or a layer that converts differently."
        )


def _row(one: Format, answers: dict[str, Answers], count: int) -> Row:
    mine, reference = answers[one.name], answers[REFERENCE]
    expected = softmax(reference.logits)
    apart = np.abs(mine.files - expected).max(axis=1)
    read = np.isfinite(apart)
    if not read[count:].all() or not read[:count].any():
        raise BundleError(
            f"{one.title} could read none of the photos, or no JPEG; run it on its own to see why, or leave it out."
        )
    other = mine.files.argmax(axis=1) != expected.argmax(axis=1)
    same_file = SameFile(
        probability=float(np.nanmax(apart[:count])),
        other_label=int((other & read)[:count].sum()),
        unread=int((~read)[:count].sum()),
        largest_photo=float(apart[count]),
        turned_photo=float(apart[count + 1]),
    )
    same_tensor = difference((reference.logits, reference.evidence), (mine.logits, mine.evidence))
    return Row(one.title, mine.versions, same_tensor, same_file)


class _Pictures:
    """The photos to compare on: `count` readable ones, then the large one and the turned one.

    These two are made of the photo that the model is least sure of: where a probability is near 0 or 1, nothing that
    a library does to the pixels would show.
    """

    def __init__(self, photos: list[Path], runner: Runner, aside: Path):
        size = runner.image_size
        self.files: list[Path] = []
        tensors: list[np.ndarray] = []
        large = None
        for path in photos:
            try:
                tensors.append(to_tensor(path, size))
            except ImageError:
                continue
            self.files.append(path)
            if large is None and math.prod(_size(path)) >= math.prod(LARGE):
                large = path
        if not tensors:
            raise BundleError("None of the photos to compare on can be read; give a folder that holds some.")
        self.count, self.unreadable = len(tensors), len(photos) - len(tensors)
        logits, _ = batched(runner, np.stack(tensors))
        doubtful = self.files[int(softmax(logits).max(axis=1).argmin())]
        extra = [large or _enlarged(doubtful, aside / "large.jpg"), _turned(doubtful, aside / "turned.jpg")]
        self.largest = LargestPhoto(*_size(extra[0]), enlarged=large is None)
        self.files += extra
        self.tensors = aside / "tensors.npy"
        np.save(self.tensors, np.stack([*tensors, *(to_tensor(path, size) for path in extra)]))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as photo:  # the header alone; the file was read whole before, with suspicion
        return photo.size


def _enlarged(path: Path, out: Path) -> Path:
    """Make a photo of 12 megapixels of another: enlarged, and with a sensor's noise so that it has fine detail."""
    pixels = np.asarray(open_image(path).resize(LARGE, Image.Resampling.LANCZOS), np.float32)
    noise = np.random.default_rng(0).normal(0, 12, pixels.shape[:2])[:, :, None]
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(out, quality=95)
    return out


def _turned(path: Path, out: Path) -> Path:
    """Store a photo lying on its side, with the EXIF note that says how to turn it back."""
    photo = open_image(path)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    photo.transpose(Image.Transpose.ROTATE_90).save(out, quality=95, exif=exif)
    return out
