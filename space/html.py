"""HTML by hand: whatever comes from a bundle or a visitor is escaped here."""

from __future__ import annotations

import base64
import html

from markupsafe import Markup


def escape(text: str) -> Markup:
    """Return a text as HTML for gr.HTML, which reads {{templates}} after that; HTML (Markup) stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text).replace("{", "&#123;"))


def refusal(sentence: str) -> Markup:
    """Return a refusal as the page shows it."""
    return Markup("<p class='refusal' role='alert'>{}</p>").format(escape(sentence))


def data_url(content: bytes, kind: str) -> str:
    """Return bytes as an address that holds them, so that the browser asks for nothing more."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
