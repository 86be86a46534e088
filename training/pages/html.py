"""HTML pages that stand alone: one file, figures inside it, nothing fetched from anywhere."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hub.files import write_aside
from training.pages.drawing import DPI, short_name

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def figure_html(figure: Figure, text: str, caption: str = "") -> Markup:
    """A figure as an <img> of its own bytes; `text` is what someone hears who cannot see it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return picture_html(content.getvalue(), text, caption)


def picture_html(png: bytes, text: str, caption: str = "") -> Markup:
    """The bytes of a PNG file as an <img>."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Markup('<figure><img src="{}" alt="{}">{}</figure>').format(address, text, below)


def write_page(path: Path, template: str, **values: object) -> None:
    """Render a template of templates/ (all values are escaped but Markup) to a file, whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    text = _templates.get_template(template).render(**values)
    write_aside(path, lambda file: file.write(text.encode()))


def listed(names: list[str], most: int = 12) -> str:
    """Names in a row, at most so many of them: "cat, dog", "ant, bee, … (40)"."""
    shown = ", ".join(map(short_name, names[:most]))
    return shown if len(names) <= most else f"{shown}, … ({len(names)})"
