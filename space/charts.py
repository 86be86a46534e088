"""The charts of the tab "How good is it?": drawn once by matplotlib, as SVG that is part of the page.

Text stays text, and every colour is the theme's (CSS variables of quality.css), so that dark mode follows. The point
of the threshold is an element on top that CSS moves: the slider sets --false, --true, --recall and --precision.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hub.scores import BINS, Calibration, wilson
from space.curves import Ranking
from space.languages import Say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 360, 340  # of the view box: about the pixels that a chart gets, so that text has its size
FONT = 12.5
CORNER = 0.1  # the part of the axes that is enlarged where a good curve lives
INK, CURVE, FAINT, PAPER = COLOURS = ("#010101", "#020202", "#030303", "#040404")
THEME = dict(zip(COLOURS, ("currentColor", "var(--curve)", "var(--faint)", "var(--paper)"), strict=True))
_drawing = threading.Lock()  # matplotlib's settings are the process's


def roc(ranking: Ranking, say: Say) -> str:
    """Draw the ROC curve, and its corner again where it passes there (SVG)."""
    false, true = ranking.roc

    def draw(figure: Figure) -> list[str]:
        axes = _square(figure, say, "quality.false_positive_rate", "quality.true_positive_rate")
        axes.plot([0, 1], [0, 1], ":", color=INK, lw=1.2)
        spots = [_curve(axes, false, true, "--false", "--true")]
        if ((false <= CORNER) & (true >= 1 - CORNER)).any():
            corner = _corner(figure, say, (0.42, 0.23), (0, CORNER), (1 - CORNER, 1))
            spots.append(_curve(corner, false, true, "--false", "--true"))
        return spots

    return _svg(draw)


def precision_recall(ranking: Ranking, say: Say) -> str:
    """Draw precision over recall, and the corner again where the curve passes there (SVG)."""
    precision, recall = ranking.precision_recall
    share = ranking.positives / (ranking.positives + ranking.negatives)

    def draw(figure: Figure) -> list[str]:
        axes = _square(figure, say, "quality.recall", "quality.precision")
        axes.plot([0, 1], [share, share], ":", color=INK, lw=1.2)
        spots = [_curve(axes, recall, precision, "--recall", "--precision")]
        if ((recall >= 1 - CORNER) & (precision >= 1 - CORNER)).any():
            corner = _corner(figure, say, (0.26, 0.23), (1 - CORNER, 1), (1 - CORNER, 1))
            spots.append(_curve(corner, recall, precision, "--recall", "--precision"))
        return spots

    return _svg(draw)


def reliability(found: Calibration, labels: int, say: Say) -> str:
    """Draw the share of right answers over the top probability, and how many pictures each bin holds (SVG)."""
    used = found.photos > 0
    photos, mean, share = found.photos[used], found.confidence[used], found.right[used]

    def draw(figure: Figure) -> list[str]:
        upper = figure.add_axes((0.15, 0.385, 0.81, 0.585))
        lower = figure.add_axes((0.15, 0.135, 0.81, 0.19))
        low, high = wilson(share, photos)
        upper.plot([0, 1], [0, 1], ":", color=INK, lw=1.2)
        upper.errorbar(mean, share, yerr=[share - low, high - share], fmt="o", ms=6, capsize=3, color=CURVE, lw=1.6)
        start = min(1 / labels, float(mean.min())) - 0.03
        upper.set(xlim=(start, 1.03), ylim=(-0.03, 1.03), ylabel=say.plain("quality.share_right"))
        upper.tick_params(labelbottom=False)
        lower.bar((np.flatnonzero(used) + 0.5) / BINS, photos, width=0.9 / BINS, color=CURVE)
        lower.set(xlim=(start, 1.03), yscale="log", ylim=(0.7, 2 * photos.max()))
        lower.set(xlabel=say.plain("quality.top_probability"), ylabel=say.plain("quality.photos"))
        lower.set_yticks([10**power for power in range(0, int(np.log10(photos.max())) + 1, 2)])
        lower.minorticks_off()
        for axes in (upper, lower):
            _style(axes, say)
        return []

    return _svg(draw)


def _square(figure: Figure, say: Say, across: str, up: str) -> Axes:
    axes = figure.add_axes((0.15, 0.135, 0.81, 0.835))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=say.plain(across), ylabel=say.plain(up))
    _style(axes, say)
    return axes


def _corner(figure: Figure, say: Say, at: tuple[float, float], x: Sequence[float], y: Sequence[float]) -> Axes:
    """The corner where a good curve lives, enlarged: at full size it hides in the frame."""
    axes = figure.add_axes((*at, 0.5, 0.5))
    axes.set(xlim=x, ylim=y, xticks=[x[0], sum(x) / 2, x[1]], yticks=[y[0], sum(y) / 2, y[1]], facecolor=PAPER)
    axes.set_title(say.plain("quality.corner"), fontsize=FONT - 1, color=INK, pad=5)
    axes.title.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})
    _style(axes, say)
    return axes


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, across: str, up: str) -> str:
    """Draw a curve; return the spot that CSS moves along it, in a window of its own that cuts it off."""
    axes.plot(x, y, color=CURVE, lw=2, clip_on=axes.get_xlim() != (0, 1), solid_joinstyle="round")
    left, bottom, width, height = axes.get_position().bounds
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    width, height, left, top = WIDTH * width, HEIGHT * height, WIDTH * left, HEIGHT * (1 - bottom - height)
    right = f"calc((var({across}, 0) - {x0:g}) / {x1 - x0:g} * {width:.2f}px)"
    down = f"calc(({y1:g} - var({up}, 0)) / {y1 - y0:g} * {height:.2f}px)"
    edge = 7  # the spot's radius and outline, so that it is whole on the frame
    return (
        f"<svg x='{left - edge:.2f}' y='{top - edge:.2f}' width='{width + 2 * edge:.2f}' "
        f"height='{height + 2 * edge:.2f}'><g transform='translate({edge} {edge})'>"
        f"<circle class='spot' r='5.5' style='transform: translate({right}, {down})'/></g></svg>"
    )


def _style(axes: Axes, say: Say) -> None:
    def write(value: float, _position: int) -> str:
        return number(say, value) if value >= 1 else say.number(f"{value:g}")

    axes.xaxis.set_major_formatter(write)
    axes.yaxis.set_major_formatter(write)
    axes.grid(color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT - 1, color=FAINT, labelcolor=INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=FONT, color=INK)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def number(say: Say, value: float) -> str:
    """Write a count with the language's mark between the thousands."""
    written = f"{value:,.0f}"
    if say.language == "de":
        return written.replace(",", ".")
    if say.language == "es":  # none in numbers of four digits, else a thin space (Ortografía de la lengua española)
        return written.replace(",", "\u202f" if value >= 10_000 else "")
    return written


def _svg(draw: Callable[[Figure], list[str]]) -> str:
    """Return what `draw` puts on a figure, as SVG for the middle of a page, with the spots it returns on top."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    with _drawing, rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="none")
        FigureCanvasSVG(figure)
        spots = draw(figure)
        for axes in figure.axes:
            if axes.get_facecolor()[:3] == (1, 1, 1):
                axes.set_facecolor("none")
        figure.savefig(file, format="svg", facecolor="none")
    text = re.sub(r"(?s)^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", "", file.getvalue())
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # another chart of the page has the same ones
    text = re.sub(r' (?:width|height)="[\d.]+pt"| font-family: [^;"]*;', "", text, count=0)
    for drawn, shown in THEME.items():
        text = text.replace(drawn, shown)
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    return text.removesuffix("</svg>") + "".join(spots) + "</svg>"
