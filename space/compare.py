"""The tab that asks two models about the same picture; both were named at start, and no visitor names another."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from markupsafe import Markup

from hub import ImageClassifier, Refusal
from space import try_it, viewer
from space.html import escape, refusal
from space.languages import Say, fixed, voice_for
from space.offer import Offer


def answers(say: Say, models: list[ImageClassifier], path: Path) -> list[Markup]:
    """Return what each model says of a picture, with its map for its own answer (HTML).

    Raises:
        ImageError: the file is refused, in one sentence.
        BundleError: a model cannot answer.
    """
    shown = []
    for classifier in models:
        answered = try_it.answer(classifier, path)
        k = classifier.labels.index(answered.prediction.label)
        drawn = try_it.draw(say, classifier, answered, k)
        shown.append(_head(classifier) + try_it.reply(say, answered, classifier.labels) + drawn)
    return shown


def _head(classifier: ImageClassifier) -> Markup:
    return Markup("<h2>{}</h2>").format(escape(classifier.name))


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    models = [offer.classifier, offer.other]
    with gr.Row():
        with gr.Column(min_width=300):
            photo = try_it.photo_input("compare-photo")
        with gr.Column(min_width=300):
            try_it.sample_row(offer.samples, photo, "compare-samples")
    refused = gr.HTML(elem_id="compare-refused")
    with gr.Row(elem_id="compare"):
        sides = [
            gr.HTML(_head(model), js_on_load=viewer.SCRIPT, elem_id=f"side-{side}", elem_classes="side", min_width=300)
            for side, model in enumerate(models)
        ]
    gr.HTML(fixed("compare.about"), elem_id="compare-about")

    def on_photo(path: Path | None, request: gr.Request) -> list:
        """Answer a picture by both models, or refuse it once."""
        blank = [_head(model) for model in models]
        if path is None:
            return ["", *blank]
        try:
            return ["", *answers(voice_for(request), models, path)]
        except Refusal as error:
            return [refusal(str(error)), *blank]

    photo.change(
        on_photo,
        photo,
        [refused, *sides],
        show_progress_on=sides,
        concurrency_limit=2,
        api_visibility="private",
    )
