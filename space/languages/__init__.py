"""What the page says, in each of its languages: one JSON file a tab, in which every text stands in all of them.

A text on the page that never changes is `fixed("try_it.photo")`: Gradio's own i18n picks the language in the browser.
A text that depends on the model too is `written(…)`. One that is made for an answer is
`voice_for(request)("words.where", place=…)`, in the language that the browser asks for.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from space.html import escape

LANGUAGES = ("en", "de", "es")
COMMA = ("de", "es")  # languages that write 98,7


@functools.cache
def texts() -> dict[str, dict[str, str]]:
    """Return every text by its name, TAB.KEY, and then by its language."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.json")):
        entries = json.loads(file.read_text(encoding="utf-8"))
        found |= {f"{file.stem}.{key}": entry for key, entry in entries.items()}
    return found


class Say:
    """One language's voice: say("words.where", place="…") is the text with its values in their places."""

    def __init__(self, language: str = "en"):
        self.language = language

    def __call__(self, name: str, /, **values: object) -> Markup:
        """Return a text as HTML; values are escaped, but for those that are HTML already (Markup)."""
        inside = {key: value if isinstance(value, Markup) else escape(str(value)) for key, value in values.items()}
        return Markup(self.plain(name, **inside))

    def plain(self, name: str, /, **values: object) -> str:
        """Return a text that is shown as it is, not read as HTML."""
        return texts()[name][self.language].format(**values)

    @staticmethod
    def text(value: str) -> Markup:
        """Return a text from a bundle or a visitor as HTML."""
        return escape(value)

    def number(self, written: str) -> str:
        """Return a number, written with a point, as this language writes it."""
        return written.replace(".", ",") if self.language in COMMA else written


def voice_for(request: gr.Request | None) -> Say:
    """Return the voice in the language that a browser asks for, English where none of ours is among them."""
    asked = request.headers.get("accept-language", "") if request else ""
    return Say(next((code for code in _ranked(asked) if code in LANGUAGES), "en"))


def _ranked(header: str) -> list[str]:
    """Return the languages of an Accept-Language header, best first (RFC 9110, 12.5.4), without their regions."""
    weighed = []
    for part in header[:1000].split(","):
        code, _, weight = part.strip().lower().partition(";q=")
        try:
            quality = float(weight or 1)
        except ValueError:
            continue
        if quality > 0:
            weighed.append((-quality, code.split("-")[0]))
    return [code for _, code in sorted(weighed, key=lambda pair: pair[0])]


def fixed(name: str) -> str:
    """Return a text that the browser translates; for labels and HTML that do not depend on an answer."""
    if name not in texts():
        raise KeyError(name)
    return gr.I18n()(name)


def written(write: Callable[[Say], str]) -> str:
    """Return a text that depends on the model but on no answer, as `fixed`; `write` writes it in each language."""
    entry = {code: str(write(Say(code))) for code in LANGUAGES}
    name = f"written.{hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]}"
    texts()[name] = entry
    return fixed(name)


def i18n() -> gr.I18n:
    """Return all texts as Gradio takes them."""
    return gr.I18n(**{code: {name: text[code] for name, text in texts().items()} for code in LANGUAGES})
