"""HTML by hand: whatever comes from a bundle or a visitor is escaped here."""

from __future__ import annotations

import base64
import html


def escape(text: str) -> str:
    """Escape a text for gr.HTML, which reads HTML and, after that, {{templates}}."""
    return html.escape(text).replace("{", "&#123;")


def data_url(content: bytes, kind: str) -> str:
    """Return bytes as an address that holds them, so that the browser asks for nothing more."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
