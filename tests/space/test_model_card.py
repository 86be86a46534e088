"""A stranger's card is shown as text, links to open and the bundle's own figures, and as nothing else."""

from __future__ import annotations

import base64
import html.parser
import re
import shutil
import time

import gradio as gr
import pytest
from PIL import Image

from hub import BundleError, ImageClassifier
from hub.bundle import DEFAULT
from space import model_card
from space.languages import LANGUAGES, Say, texts
from space.model_card import MOST_BYTES, card, render
from space.offer import Offer
from tests.space.attacks import ATTACKS

TAGS = {
    "h2", "h3", "h4", "h5", "h6", "p", "a", "code", "pre", "strong", "em", "s", "ul", "ol", "li", "blockquote", "hr",
    "br", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "img",
}  # fmt: skip
ATTRIBUTES = {"href", "target", "rel", "src", "alt", "loading", "start", "style", "scope", "class", "aria-label"}


class Found(html.parser.HTMLParser):
    """The tags and attributes of a piece of HTML."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def written(folder, text: str):
    """Return the card of a folder that has this README.md."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return card(folder)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_strangers_card_acts(tmp_path, attack):
    """Only known tags and attributes; links lead to the web or a mailbox, and pictures are inside the page."""
    for text in (
        attack,
        f"# Title\n\nwords {attack} words\n\n- {attack}\n\n> {attack}\n\n| {attack} | b |\n|--|--|\n| {attack} | d |",
    ):
        shown = written(tmp_path, text)
        for tag, attributes in Found(shown).tags:
            assert tag in TAGS, text
            assert attributes.keys() <= ATTRIBUTES, text
            assert re.match("(https?|mailto):", attributes.get("href", "mailto:"), re.IGNORECASE), text
            assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,"), text
            assert re.fullmatch("(text-align:(left|right|center))?", attributes.get("style", "")), text
        assert "{" not in shown  # which gr.HTML would read as a template


def test_words_of_html_stay_and_scripts_go(tmp_path):
    shown = written(
        tmp_path, "<div align='center'>\n<b>My model</b> &amp; me\n<script>alert('no')</script>\n</div>\n\nafter"
    )
    assert "My model &amp; me" in shown and "after" in shown and "alert" not in shown


def test_figures_of_the_bundle_are_inside_and_others_are_words(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (4, 3), "red").save(tmp_path / "figures/roc.png")
    Image.new("RGB", (4, 3), "red").save(tmp_path / "outside.png")
    (tmp_path / "figures/no.png").write_text("<svg onload=alert(1)>")
    (tmp_path / "figures/secret.png").symlink_to("/etc/hostname")
    content = base64.b64encode((tmp_path / "figures/roc.png").read_bytes()).decode()
    shown = written(
        tmp_path,
        "![ROC curve](figures/roc.png) ![web](https://example.invalid/a.png) ![up](figures/../outside.png) "
        "![no](figures/no.png) ![none](figures/none.png) ![out](outside.png) ![secret](figures/secret.png)",
    )
    assert [tag[1] for tag in Found(shown).tags if tag[0] == "img"] == [
        {"src": f"data:image/png;base64,{content}", "alt": "ROC curve", "loading": "lazy"}
    ]
    for name in ("web", "up", "no", "none", "out", "secret"):
        assert f"[{name}]" in shown


def test_a_figure_is_shown_once_and_a_large_one_is_not(tmp_path):
    """A few bytes of a card must not become megabytes of a page."""
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (4, 3), "red").save(tmp_path / "figures/roc.png")
    (tmp_path / "figures/huge.png").write_bytes(model_card.PNG + bytes(model_card.MOST_FIGURE_BYTES))
    shown = written(tmp_path, "![a](figures/roc.png)" * 500 + "<img src='figures/roc.png'> ![b](figures/huge.png)")
    assert shown.count("src=") == 1


def test_links_open_in_a_new_tab_and_say_nothing_of_this_page(tmp_path):
    shown = written(
        tmp_path, "[a](https://example.invalid/x?y=1&z=2) [b](predictions.parquet) [c](#results) <me@x.invalid>"
    )
    links = [tag[1] for tag in Found(shown).tags if tag[0] == "a" and "href" in tag[1]]
    assert [link["href"] for link in links] == ["https://example.invalid/x?y=1&z=2", "mailto:me@x.invalid"]
    assert all(link["target"] == "_blank" and "noopener noreferrer" in link["rel"] for link in links)
    assert "b" in shown and "c" in shown


def test_the_released_card_is_whole():
    """Headings below the page's own, the front matter as a table, tables with heads, code as it is written."""
    shown = card(DEFAULT)
    tags = Found(shown).tags
    assert "<h2>Cat or dog: a photo classifier that shows its evidence</h2>" in shown
    assert not [tag for tag, _ in tags if tag == "h1"]
    assert "<tr><th scope='row'>license</th><td>apache-2.0</td></tr>" in shown
    assert "0.99949 (0.99913–0.99975)" in shown
    source = (DEFAULT / "README.md").read_text(encoding="utf-8")
    assert shown.count("<pre>") == len(re.findall("^```", source, re.MULTILINE)) / 2
    assert {attributes.get("scope") for tag, attributes in tags if tag == "th"} == {"row", "col"}
    assert "model-index" not in shown


@pytest.mark.parametrize("front", ["license: [", "[" * 5000, "- a\n- b", "license: {a: {b: c}}", "license:", ""])
def test_an_odd_front_matter_is_left_out(tmp_path, front):
    shown = written(tmp_path, f"---\n{front}\n---\n# Title\n")
    assert shown == "<h2>Title</h2>\n"


def test_front_matter_is_text(tmp_path):
    shown = written(tmp_path, "---\nlicense: '<img src=x onerror=alert(1)>{{value}}'\ntags: [a, b, {c: d}]\n---\nx")
    assert "&lt;img src=x onerror=alert(1)&gt;&#123;&#123;value}}" in shown
    assert "<td>a, b</td>" in shown
    front = "license: !!python/object/apply:os.getcwd []\nlanguage: no\ntags: [0x" + "f" * 5000 + "]"
    shown = written(tmp_path, f"---\n{front}\n---\nx")
    assert "license" not in shown and "<td>no</td>" in shown and "<td>0xfff" in shown


def test_front_matter_that_multiplies_itself_is_read_at_once(tmp_path):
    """Merged keys, nine times nine times nine: beyond the memory of any machine."""
    levels = [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 20)]
    front = "\n".join(["a0: &a0 {x: 1}", *levels, "license: mit"])
    assert "<td>mit</td>" in written(tmp_path, f"---\n{front}\n---\nx")


def test_a_card_that_is_no_text_or_too_long_is_refused_without_a_path(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match=r"^README\.md is not UTF-8"):
        card(tmp_path)
    (tmp_path / "README.md").write_bytes(b"a" * (MOST_BYTES + 1))
    with pytest.raises(BundleError, match=r"^README\.md cannot be read, or is larger than 256 KB") as refusal:
        card(tmp_path)
    assert str(tmp_path) not in str(refusal.value)
    (tmp_path / "README.md").unlink()
    assert card(tmp_path) is None


@pytest.mark.parametrize("piece", ["[", "![](", ">", "**a", "`a", "<a ", "- ", "[a](<b"])
def test_no_markdown_takes_long(tmp_path, piece):
    started = time.monotonic()
    render(piece * (2**14 // len(piece)), tmp_path)
    assert time.monotonic() - started < 5


def test_the_tab_says_whose_card_it_is_and_where_there_is_none(bundle_2, tmp_path):
    shutil.copytree(bundle_2, tmp_path / "mine")
    (tmp_path / "mine/README.md").unlink()
    with gr.Blocks() as page:
        model_card.build(Offer(ImageClassifier.from_pretrained(tmp_path / "mine")))
    first = next(block.value for block in page.blocks.values() if block.elem_id == "card-from")
    assert "<strong>mine</strong>" in texts()[re.search(r'"key": "([^"]+)"', str(first))[1]]["de"]
    (event,) = page.fns.values()
    assert event.api_visibility == "private"
    for language in LANGUAGES:
        none = model_card.content(Say(language), ImageClassifier.from_pretrained(tmp_path / "mine"))
        assert none == texts()["model_card.none"][language]
    (tmp_path / "mine/README.md").write_bytes(b"\xff")
    refused = model_card.content(Say("en"), ImageClassifier.from_pretrained(tmp_path / "mine"))
    assert "role='alert'" in refused and "README.md is not UTF-8 text" in refused
