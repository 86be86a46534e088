"""Figures drawn alike: their size and letters, their colours, and how they are written.

Figures are made without pyplot, so nothing is shared between calls or threads. Colours are those of Okabe and Ito
(2008, https://jfly.uni-koeln.de/color/), which colour-blind readers tell apart; where there are more lines than
colours, the line style changes too.
"""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hub.files import write_aside

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLES = ["-", "--", ":", "-."]
FONT = 12
DPI = 120


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with its own canvas."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """The figure as a PNG file, whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    write_aside(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def cut(name: str, longest: int = 40) -> str:
    """A name of at most so many letters, which ends in … where some are left out."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def short_name(name: str, longest: int = 18) -> str:
    """A label's name as a figure can take it: not too long, a $ no formula, a first _ no reason to leave it out."""
    text = cut(name, longest)
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")
