"""The frame around the tabs: title, theme, footer."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from space import compare, guards, many, model_card, quality, try_it, use_it, words
from space.html import escape
from space.languages import Say, fixed, written
from space.offer import Offer

STYLES = sorted((Path(__file__).parent / "static").glob("*.css"))  # style.css is the frame's
TABS = {  # in their order; each builds itself inside gr.Blocks
    "try_it": try_it,
    "many": many,
    "quality": quality,
    "compare": compare,
    "model_card": model_card,
    "use_it": use_it,
}


def build(offer: Offer) -> gr.Blocks:
    """Return the page."""
    labels, name = offer.classifier.labels, escape(offer.classifier.name)
    title = "page.title" if offer.classifier.config.evidence else "page.title_classic"
    with gr.Blocks(
        title=words.title(Say(), labels),
        analytics_enabled=False,
        delete_cache=(guards.DELETE_EVERY, guards.DELETE_AFTER),
    ) as page:
        gr.HTML(written(lambda say: say(title, title=words.title(say, labels))), elem_id="title")
        with gr.Tabs(elem_id="tabs"):
            for tab, module in TABS.items():
                if tab == "compare" and offer.other is None:
                    continue
                with gr.Tab(fixed(f"page.{tab}"), id=tab, elem_id=f"tab-{tab.replace('_', '-')}"):
                    module.build(offer)
        gr.HTML(written(lambda say: say("page.footer", labels=words.all_of(say, labels), model=name)), elem_id="footer")
    page.queue(max_size=guards.MAX_WAITING, api_open=False)
    return page


def theme() -> gr.themes.Base:
    """Gradio's own look with fonts that come with it: no font is fetched from the web."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
