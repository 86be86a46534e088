"""A picture with maps over it: the photo is sent once, each map as a transparent layer, and the browser mixes them.

So opacity, side by side and the swipe comparison cost no request. How they look is static/viewer.css's, what the
buttons and the swipe do static/viewer.js's.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from hub import ImageClassifier, Prediction
from hub.heatmaps import layer, shown_map
from space.html import data_url, escape
from space.languages import Say

SCRIPT = (Path(__file__).parent / "static" / "viewer.js").read_text(encoding="utf-8")
SIDE = 256  # pixels of a map's longer side; it is smooth, and the browser enlarges it as smoothly
OPACITY = 0.65  # of a map over a photo, until somebody chooses another
FALLBACK_SCALE = 10.0  # logits, for a bundle that stores no scale: fixed all the same


@dataclass(frozen=True)
class Pane:
    """One map over the picture."""

    title: Markup
    spoken: str  # what a screen reader says of it
    values: np.ndarray  # (h, w)
    scale: float  # the value of full colour
    signed: bool
    bar: Markup
    notes: Markup  # below it


def scale_of(classifier: ImageClassifier) -> float:
    """Return the value in logits at which a map has its full colour, the same for every photo."""
    return classifier.evidence_scale or FALLBACK_SCALE


def jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """Return a picture as it is sent to the browser."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return data.getvalue()


def figure(say: Say, picture: bytes, panes: list[Pane], *, numbers: str | None = None) -> Markup:
    """Return the picture (JPEG) with each map over it, side by side where there are several (HTML).

    Args:
        say: the visitor's language.
        picture: JPEG.
        panes: none is the picture alone.
        numbers: CSV to download beside the picture.
    """
    width, height = Image.open(io.BytesIO(picture)).size
    stages = Markup("").join(_pane(say, pane, (width, height)) for pane in panes)
    buttons = ""
    if panes:
        buttons = _button("picture", say("viewer.save_picture"))
        if numbers:
            buttons += _button("numbers", say("viewer.save_numbers"))
    return Markup(
        "<div class='panes' data-panes='{}' data-numbers='{}' style='--photo: url({}); --ratio: {:.5f}'>{}</div>"
        "<div class='save'>{}</div>"
    ).format(len(panes), escape(numbers or ""), data_url(picture, "image/jpeg"), width / height, stages, buttons)


def notes(text: Markup) -> Markup:
    """Return what stands below a map (HTML)."""
    return Markup("<div class='notes'><p>{}</p></div>").format(text)


def _pane(say: Say, pane: Pane, size: tuple[int, int]) -> Markup:
    width, height = (max(1, round(side * SIDE / max(size))) for side in size)
    data = io.BytesIO()
    layer(pane.values, (height, width), pane.scale, pane.signed).save(data, "PNG", compress_level=1)
    return Markup(
        "<figure><figcaption>{title}</figcaption>"
        "<div class='stage'><div class='plain' role='img' aria-label=\"{photo}\"></div>"
        "<div class='mixed'><img class='map' alt=\"{spoken}\" src='{map}'></div>"
        "<input type='range' class='cut' min='0' max='100' value='50' aria-label=\"{swipe}\"></div>"
        "{bar}{notes}</figure>"
    ).format(
        title=pane.title,
        photo=say("viewer.photo"),
        spoken=escape(pane.spoken),
        map=data_url(data.getvalue(), "image/png"),
        swipe=say("viewer.swipe_here"),
        bar=pane.bar,
        notes=pane.notes,
    )


def _button(what: str, text: Markup) -> Markup:
    return Markup("<button type='button' data-save='{}'>{}</button>").format(what, text)


def grid_csv(prediction: Prediction, labels: list[str], k: int) -> str:
    """Return a prediction's evidence as CSV: a line a cell, a column a label, and what is shown for label `k`.

    Rows and columns count from 0 at the upper left; the mean of each column is the label's logit, in full precision.
    """
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["row", "column", *(f"evidence_{label}" for label in labels), f"shown_{labels[k]}"])
    shown = shown_map(prediction.evidence, k)
    for row, column in np.ndindex(shown.shape):
        table.writerow([row, column, *map(float, prediction.evidence[row, column]), float(shown[row, column])])
    return text.getvalue()
