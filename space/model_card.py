"""The tab with the model's card: its README.md as safe HTML, made here rather than in the browser.

A card comes from whoever made the model. Of its Markdown only text, links to open and the model's own figures become
HTML; HTML of its own is dropped, and no picture is asked for elsewhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup

from hub import BundleError, ImageClassifier
from hub.bundle import CARD, FIGURES
from hub.safety import read_limited
from space.html import data_url, escape, refusal
from space.languages import Say, fixed, of, written
from space.offer import Offer
from space.opening import opening
from space.record import fetch

if TYPE_CHECKING:
    from markdown_it.token import Token

MOST_BYTES, MOST_FIGURE_BYTES, MOST_FIGURES = 2**18, 2**20, 12
SCHEMES = {"http", "https", "mailto"}
FRONT = ("license", "library_name", "pipeline_tag", "base_model", "datasets", "metrics", "language", "tags")
PNG = b"\x89PNG\r\n\x1a\n"


def card(folder: Path) -> Markup | None:
    """Return the card of a bundle's folder as HTML; None where it has none.

    Raises:
        BundleError: it is too large, or no text.
    """
    if not (folder / CARD).is_file():
        return None
    try:
        text = read_limited(folder / CARD, MOST_BYTES).decode()
    except (BundleError, OSError) as error:
        raise BundleError(f"{CARD} cannot be read, or is larger than {MOST_BYTES // 1024} KB.") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{CARD} is not UTF-8 text.") from error
    front, body = _split(text.replace("\r\n", "\n"))
    return _front(front) + render(body, folder)


def _split(text: str) -> tuple[str, str]:
    """Return the YAML block at the top of a card, and the rest."""
    found = re.match(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|$)", text, re.DOTALL)
    return (found[1] or "", text[found.end() :]) if found else ("", text)


def _front(block: str) -> Markup:
    """Return what the YAML block says of the model, as a small table (HTML); nothing where it cannot be read."""
    import yaml

    try:  # as text alone: merged keys multiply without end, and numbers may be too long to be written
        entries = yaml.load(block[:20_000], yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        return Markup("")
    row = Markup("<tr><th scope='row'>{}</th><td>{}</td></tr>")
    rows = [row.format(name, escape(", ".join(values))) for name in FRONT if (values := _words(entries.get(name)))]
    if not rows:
        return Markup("")
    table = Markup("<div class='scroll'><table class='front' aria-label='README.md'><tbody>{}</tbody></table></div>")
    return table.format(Markup("").join(rows))


def _words(entry: object) -> list[str]:
    """Return an entry that is a word or a list of words, at most 20 of them."""
    entries = entry if isinstance(entry, list) else [entry]
    return [word[:100] for word in entries[:20] if isinstance(word, str) and word]


# ---------------------------------------------------------------- Markdown


def render(text: str, folder: Path) -> Markup:
    """Return a card's Markdown as HTML in which nothing of its author's runs or loads.

    The parser's own HTML is made of escaped text and of the tags that it knows. What could do more is changed in its
    tokens before: addresses, pictures, and the author's own HTML, of which only the words stay.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    tokens = list(_safe(parser.parse(text), _Figures(folder)))
    html = parser.renderer.render(tokens, parser.options, {})
    html = html.replace("<table>", "<div class='scroll'><table>").replace("</table>", "</table></div>")
    return Markup(html.replace("{", "&#123;"))  # gr.HTML reads {{templates}}


class _Figures:
    """The pictures that a card may show: PNG files of the bundle's figures folder."""

    def __init__(self, folder: Path):
        self._folder, self._left = folder / FIGURES, MOST_FIGURES

    def __call__(self, address: str) -> str | None:
        """Return a picture as an address that holds it; None if it is no figure of the bundle."""
        path = PurePosixPath(address)
        if path.parent != PurePosixPath(FIGURES) or path.suffix.lower() != ".png" or not self._left:
            return None
        try:
            content = read_limited(self._folder / path.name, MOST_FIGURE_BYTES)
        except (BundleError, OSError, ValueError):
            return None
        if not content.startswith(PNG):
            return None
        self._left -= 1
        return data_url(content, "image/png")


def _safe(tokens: list[Token], figures: _Figures) -> Iterator[Token]:
    """Yield tokens of which the renderer makes nothing that acts."""
    shown: list[bool] = []  # of the links that are open
    for token in tokens:
        if token.type == "html_block":
            yield from _as_paragraph(token.content)
        elif token.type == "html_inline":
            pass  # a tag; the words between two of them are tokens of their own
        elif token.type == "image":
            yield _as_figure(token, figures(str(token.attrs.get("src", ""))))
        elif token.type == "link_open":
            shown.append(_opens(str(token.attrs.get("href", ""))))
            if shown[-1]:
                token.attrs = {"href": token.attrs["href"], "target": "_blank", "rel": "noopener noreferrer nofollow"}
                yield token
        elif token.type == "link_close":
            if shown.pop():
                yield token
        else:
            token.attrs = _kept(token)
            if token.type.startswith("heading_"):
                token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"  # the page has its own h1
            if token.children is not None:
                token.children = list(_safe(token.children, figures))
            yield token


def _kept(token: Token) -> dict[str, Any]:
    """Return the attributes that a token needs: where an ordered list starts, and how a column is aligned."""
    kept = {"start": token.attrs["start"]} if isinstance(token.attrs.get("start"), int) else {}
    if token.tag in ("td", "th") and "style" in token.attrs:
        kept["style"] = token.attrs["style"]  # the parser's own text-align
    return {**kept, "scope": "col"} if token.type == "th_open" else kept


def _opens(address: str) -> bool:
    """Whether a link's address leads to a page or a mailbox; one inside the repository leads nowhere here."""
    try:
        return urlsplit(address).scheme.lower() in SCHEMES
    except ValueError:
        return False


def _as_paragraph(html: str) -> list[Token]:
    """Return the words of a piece of HTML as a paragraph; nothing where it has none."""
    from markdown_it.token import Token as New

    words = _Words()
    words.feed(html)
    words.close()
    content = " ".join(" ".join(words.found).split())
    if not content:
        return []
    text = New("inline", "", 0, children=[New("text", "", 0, content=content)])
    return [New("paragraph_open", "p", 1), text, New("paragraph_close", "p", -1)]


class _Words(HTMLParser):
    """Collects the words of a piece of HTML, without those of scripts and styles."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self._silent += tag in ("script", "style", "iframe", "template", "svg")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in ("script", "style", "iframe", "template", "svg")))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


def _as_figure(token: Token, address: str | None) -> Token:
    """Return a picture's token with its content inside, or its description alone."""
    from markdown_it.token import Token as New

    if address is None:
        return New("text", "", 0, content=f"[{token.content}]" if token.content else "")
    token.attrs = {"src": address, "alt": "", "loading": "lazy"}  # the renderer fills in the alternative text
    return token


# ---------------------------------------------------------------- the tab


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    classifier = offer.classifier
    with gr.Column(elem_id="card-tab"):
        gr.HTML(written(lambda say: _from(say, classifier)), elem_id="card-from")
        shown = gr.HTML(fixed("model_card.loading"), elem_id="card")

    def on_open(request: gr.Request) -> str:
        """Show the card when the tab is opened: it is not part of what every visitor loads."""
        return content(of(request), classifier)

    opening()(on_open, None, shown, show_progress="hidden", api_visibility="private")


def content(say: Say, classifier: ImageClassifier) -> str:
    """Return the card of a model, or the sentence that says why there is none to show (HTML)."""
    html, problem = _made(classifier)
    if problem:
        return refusal(say("model_card.problem", reason=problem))
    return Markup("<article class='card'>{}</article>").format(html) if html else say("model_card.none")


def _from(say: Say, classifier: ImageClassifier) -> Markup:
    """Say whose card it is (HTML)."""
    name = say("model_card.from", name=classifier.name)
    commit = classifier.folder.name if classifier.folder else ""
    if re.fullmatch("[0-9a-f]{40}", commit):
        return Markup("<p>{} {}</p>").format(name, say("model_card.commit", commit=commit[:12]))
    return Markup("<p>{}</p>").format(name)


@functools.lru_cache(maxsize=4)
def _made(classifier: ImageClassifier) -> tuple[Markup | None, str | None]:
    """Return the card, None where there is none, and what kept it from being shown."""
    problem = fetch(classifier)
    if problem or classifier.folder is None:
        return None, problem
    try:
        return card(classifier.folder), None
    except BundleError as error:
        return None, str(error)
