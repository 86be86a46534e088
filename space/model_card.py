"""The tab with the model's card: its README.md as safe HTML, made here rather than in the browser.

A card comes from whoever made the model. Of its Markdown only text, links to open and the model's own figures become
HTML; HTML of its own is dropped, and no picture is asked for elsewhere.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import gradio as gr
import nh3
from markupsafe import Markup

from hub import BundleError, ImageClassifier
from hub.bundle import CARD, FIGURES
from hub.safety import read_limited
from space.html import data_url, escape, refusal
from space.languages import Say, fixed, voice_for, written
from space.offer import Offer
from space.opening import opening
from space.record import fetch

MOST_BYTES, MOST_FIGURE_BYTES, MOST_FIGURES = 2**18, 2**20, 12
PNG = b"\x89PNG\r\n\x1a\n"
FRONT = ("license", "library_name", "pipeline_tag", "base_model", "datasets", "metrics", "language", "tags")

# What stays of the HTML: words, what marks them, links to open, and figures.
TAGS = {
    "h2", "h3", "h4", "h5", "h6", "p", "a", "code", "pre", "strong", "em", "s", "ul", "ol", "li", "blockquote", "hr",
    "br", "table", "thead", "tbody", "tr", "th", "td", "img",
}  # fmt: skip
ATTRIBUTES = {"*": set(), "a": {"href"}, "img": {"src", "alt"}, "ol": {"start"}, "th": {"style"}, "td": {"style"}}
ADDED = {"a": {"target": "_blank"}, "img": {"loading": "lazy"}, "th": {"scope": "col"}}
SCHEMES = {"http", "https", "mailto"}
WORDLESS = {"script", "style", "iframe", "template", "svg", "math"}  # what is inside goes as well


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
    """Return a card's Markdown as HTML in which nothing of its author's runs or loads."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    tokens, figures = parser.parse(text), _figures(text, folder)
    shown = set()  # once each: the same one a thousand times would fill the memory
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"  # the page has its own h1
        for part in token.children or ():
            if part.type == "image" and (part.attrs["src"] not in figures or part.attrs["src"] in shown):
                part.type, part.content = "text", f"[{part.content}]" if part.content else ""
            elif part.type == "image":
                shown.add(part.attrs["src"])

    def kept(_tag: str, name: str, value: str) -> str | None:
        """Return an attribute as it stays: an address that leads nowhere here, or to a picture elsewhere, goes."""
        if name == "src":
            return figures.pop(value, None)
        return value if name != "href" or value.lower().startswith(tuple(f"{scheme}:" for scheme in SCHEMES)) else None

    html = nh3.clean(
        parser.renderer.render(tokens, parser.options, {}),
        tags=TAGS,
        clean_content_tags=WORDLESS,
        attributes=ATTRIBUTES,
        attribute_filter=kept,
        set_tag_attribute_values=ADDED,
        url_schemes=SCHEMES,
        filter_style_properties={"text-align"},
        link_rel="noopener noreferrer nofollow",
    )
    html = html.replace("<table>", "<div class='scroll'><table>").replace("</table>", "</table></div>")
    return Markup(html.replace("{", "&#123;"))  # gr.HTML reads {{templates}}


def _figures(text: str, folder: Path) -> dict[str, str]:
    """Return the pictures that a card may show, as addresses that hold them: PNG files of the bundle's figures."""
    named = [path for path in sorted((folder / FIGURES).glob("*.png")) if f"{FIGURES}/{path.name}" in text]
    found = {}
    for path in named[:MOST_FIGURES]:
        try:
            content = read_limited(path, MOST_FIGURE_BYTES)
        except (BundleError, OSError):  # too large, or not to be read: the card is worth having without it
            continue
        if content.startswith(PNG):
            found[f"{FIGURES}/{path.name}"] = data_url(content, "image/png")
    return found


# ---------------------------------------------------------------- the tab


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    classifier = offer.classifier
    with gr.Column(elem_id="card-tab"):
        gr.HTML(written(lambda say: _from(say, classifier)), elem_id="card-from")
        shown = gr.HTML(fixed("model_card.loading"), elem_id="card")

    def on_open(request: gr.Request) -> str:
        """Show the card when the tab is opened: it is not part of what every visitor loads."""
        return content(voice_for(request), classifier)

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
