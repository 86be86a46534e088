"""The tab that answers one picture: a sentence, probabilities, and the evidence laid over the picture.

A picture runs the model once. Its answer stays in the visitor's session, so that another label only draws anew, and
another method runs once; opacity and view are the browser's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import numpy as np
from gradio import processing_utils
from gradio.utils import get_upload_folder
from markupsafe import Markup

from hub import ImageClassifier, Prediction, Refusal, explain
from hub.heatmaps import shown_map
from hub.images import to_tensor_and_picture
from space import guards, viewer, words
from space.html import escape, refusal
from space.languages import Say, fixed, voice_for, written
from space.offer import Offer
from space.samples import Sample, buttons
from space.work import WORK, is_large

SIDE = 1024  # pixels of the shown picture's longer side
VIEWS = ("overlay", "beside", "swipe")
NONE = "none"  # no other method

CLICK_SAMPLE = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) trigger("click", { index: Number(button.dataset.index) });
});
"""
SHOW = """(view, opacity) => {
    const figure = document.querySelector("#figure");
    figure.dataset.view = view;
    figure.style.setProperty("--opacity", opacity);
}"""
# A file that the browser cannot draw leaves no broken frame; on a phone, the answer below comes into view.
SHOW_ANSWER = """() => {
    for (const image of document.querySelectorAll("#photo img"))
        image.style.visibility = image.complete && !image.naturalWidth ? "hidden" : "";
    const sentence = document.querySelector("#verdict p:not(.hint)");
    if (sentence && innerWidth <= 640) sentence.scrollIntoView();
}"""


@dataclass(frozen=True)
class Answer:
    """What a session keeps (about 0.4 MB): what the model said, what it saw, and the picture to draw on as JPEG."""

    prediction: Prediction
    tensor: np.ndarray  # (S, S, 3) uint8
    picture: bytes
    explained: dict[tuple[str, int], explain.Explanation] = field(default_factory=dict)  # by method and label


def answer(classifier: ImageClassifier, path: str | Path) -> Answer:
    """Run the model on an uploaded file.

    Raises:
        ImageError: the file is refused, in one sentence.
    """
    return WORK.run("page", _answer, classifier, path, alone=is_large(Path(path)))


def _answer(classifier: ImageClassifier, path: str | Path) -> Answer:
    tensor, picture = to_tensor_and_picture(path, classifier.image_size, SIDE)
    return Answer(classifier.predict(tensor), tensor, viewer.jpeg(picture))


@dataclass(eq=False)
class Visit:
    """A visitor's session: the answer that is on the page. Shared by all its events, so that each can see a new one."""

    answered: Answer | None = None


def explained(classifier: ImageClassifier, answered: Answer, k: int, method: str) -> explain.Explanation:
    """Return what a method says of label `k`; it runs once for each answer.

    Raises:
        BundleError: the method does not run here.
        UsageError: it is not known.
    """
    chosen = explain.find_method(method)
    if (method, k) not in answered.explained:
        answered.explained[method, k] = WORK.run("page", chosen, classifier, answered.tensor, k, alone=True)
    return answered.explained[method, k]


def reply(say: Say, answered: Answer, labels: list[str]) -> Markup:
    """Return the sentence and the probabilities (HTML)."""
    sentence = Markup("<p class='verdict' role='status'>{}</p>")
    prediction = answered.prediction
    return sentence.format(words.verdict(say, prediction, labels)) + words.shares(say, prediction, labels)


def draw(say: Say, classifier: ImageClassifier, answered: Answer, k: int, method: str = NONE) -> Markup:
    """Return the picture with its evidence for label `k`, and beside it what another method says (HTML).

    Raises:
        Refusal: as `explained`.
    """
    labels, evidence = classifier.labels, answered.prediction.evidence
    panes = [] if evidence is None else [evidence_pane(say, classifier, answered.prediction, k)]
    if method != NONE:
        panes.append(_method_pane(say, classifier, explained(classifier, answered, k, method), k, method))
    numbers = None if evidence is None else viewer.grid_csv(answered.prediction, labels, k)
    return viewer.figure(say, answered.picture, panes, numbers=numbers)


def evidence_pane(say: Say, classifier: ImageClassifier, prediction: Prediction, k: int) -> viewer.Pane:
    """Return the evidence for label `k`, on the model's fixed scale."""
    labels, scale, values = classifier.labels, viewer.scale_of(classifier), shown_map(prediction.evidence, k)
    strongest = float(values.flat[np.abs(values).argmax()])
    note = say("viewer.strongest", value=words.signed(say, strongest), scale=say.number(f"{scale:.1f}"))
    return viewer.Pane(
        title=say("try_it.evidence_for", label=labels[k]),
        spoken=say.plain("try_it.spoken", label=labels[k]),
        values=values,
        scale=scale,
        signed=True,
        bar=words.bar(say, labels, k, scale, signed_map=True),
        notes=viewer.notes(note),
    )


def _method_pane(say: Say, classifier: ImageClassifier, found: explain.Explanation, k: int, method: str) -> viewer.Pane:
    labels, title = classifier.labels, explain.find_method(method).title
    scale = viewer.scale_of(classifier) if found.in_logits else None
    cost = "free" if found.passes == 1 else "cost"  # one pass is the one that answered
    costs = say(f"try_it.{cost}", passes=found.passes, seconds=say.number(f"{found.seconds:.2g}"))
    about = say(about_key(method, keeps_map=_keeps_map(classifier)), label=labels[k])
    return viewer.Pane(
        title=say("try_it.method_for", method=title, label=labels[k]),
        spoken=say.plain("try_it.spoken_method", method=title, label=labels[k]),
        values=found.values,
        scale=scale or max(float(found.values.max()), 1e-9),
        signed=found.signed,
        bar=words.bar(say, labels, k, scale, signed_map=found.signed),
        notes=viewer.notes(about + " " + costs),
    )


def about_key(method: str, *, keeps_map: bool) -> str:
    """Return the name of the text that says what a method shows."""
    kind = method.replace("-", "_").replace("+", "p")
    return f"try_it.about_{kind}" + ("_classic" if method == "grad-cam" and not keeps_map else "")


def build(offer: Offer) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    classifier, samples = offer.classifier, offer.samples
    labels, lacking = classifier.labels, _lacking(classifier)
    state = gr.State(Visit(), time_to_live=guards.DELETE_AFTER)
    with gr.Row(elem_id="desk"):
        with gr.Column(min_width=300, elem_id="question"):
            photo = photo_input("photo")
            sample_row(samples, photo, "samples")
        with gr.Column(min_width=300, elem_id="answer"):
            verdict = gr.HTML(fixed("try_it.hint"), elem_id="verdict")
            with gr.Column(visible=False, elem_id="views") as views:
                gr.HTML(fixed("try_it.no_evidence"), visible=not _keeps_map(classifier), elem_id="no-map")
                figure = gr.HTML(js_on_load=viewer.SCRIPT, elem_id="figure")
                view = gr.Radio(
                    [(fixed(f"try_it.{name}"), name) for name in VIEWS],
                    value=VIEWS[0],
                    label=fixed("try_it.view"),
                    elem_id="view",
                )
                opacity = gr.Slider(
                    0, 1, viewer.OPACITY, step=0.05, label=fixed("try_it.opacity"), buttons=[], elem_id="opacity"
                )
                choose = gr.Radio if len(labels) <= words.NAMED_UP_TO else gr.Dropdown
                label = choose(labels, type="index", label=fixed("try_it.label"), elem_id="label")
                account = gr.HTML(elem_id="account", visible=_keeps_map(classifier))
                about = gr.HTML(elem_id="about", visible=_keeps_map(classifier))
                method = gr.Radio(
                    [(fixed("try_it.none"), NONE), *_methods(lacking)],
                    value=NONE,
                    label=fixed("try_it.method"),
                    info=fixed("try_it.method_info"),
                    elem_id="method",
                )
                gr.HTML(_not_here(lacking), elem_id="not-here")
    drawn = [figure, account, about]

    def show(say: Say, answered: Answer, k: int, chosen: str) -> list:
        """Draw the parts that depend on the label and the method."""
        if answered.prediction.evidence is None:
            return [draw(say, classifier, answered, k, chosen), "", ""]
        return [
            draw(say, classifier, answered, k, chosen),
            words.account(say, answered.prediction, labels, k),
            words.about_evidence(say, labels, k, answered.prediction.evidence.shape[:2]),
        ]

    def on_photo(path: Path | None, visit: Visit, request: gr.Request) -> dict:
        """Answer a new picture, refuse it in one sentence, or clear the answer."""
        visit.answered = None
        hidden = {state: visit, views: gr.update(visible=False)}
        if path is None:
            return {verdict: fixed("try_it.hint"), **hidden}
        try:
            answered = answer(classifier, path)
        except Refusal as error:
            return {verdict: refusal(str(error)), **hidden}
        visit.answered = answered
        say, k = voice_for(request), labels.index(answered.prediction.label)
        parts = dict(zip(drawn, show(say, answered, k, NONE), strict=True))
        shown = {verdict: reply(say, answered, labels), views: gr.update(visible=True)}
        return {state: visit, **shown, label: answered.prediction.label, method: NONE, **parts}

    def on_choice(visit: Visit, k: int | None, chosen: str, request: gr.Request) -> list:
        """Draw the answer anew for a label, with a method that runs if it has not yet; the model's answer stays."""
        say, answered = voice_for(request), visit.answered
        if answered is None or k is None:
            return [refusal(say("try_it.gone")), "", ""]
        try:
            shown = show(say, answered, k, chosen)
        except Refusal as error:
            figure_, *rest = show(say, answered, k, NONE)
            shown = [figure_ + refusal(str(error)), *rest]
        # Another picture was answered while a method ran: what it found is not what the page is about any more.
        return shown if visit.answered is answered else [gr.skip()] * len(shown)

    photo.change(
        on_photo,
        [photo, state],
        [state, verdict, views, label, method, *drawn],
        show_progress_on=verdict,
        concurrency_limit=2,
        api_visibility="private",
    ).then(None, [view, opacity], js=SHOW).then(None, js=SHOW_ANSWER)
    gr.on([view.input, opacity.input], None, [view, opacity], js=SHOW, api_visibility="private")
    gr.on(
        [label.input, method.input],
        on_choice,
        [state, label, method],
        drawn,
        trigger_mode="always_last",
        show_progress_on=figure,
        concurrency_limit=2,
        api_visibility="private",
    )


def sample_row(samples: list[Sample], photo: gr.Image, name: str) -> None:
    """Lay out the pictures to click on; one that is clicked goes into the field `photo`."""
    if not samples:
        return

    def on_sample(event: gr.EventData) -> str:
        """Put a copy of the sample where uploads lie: nothing else may be read."""
        sample = samples[min(max(int(event.index), 0), len(samples) - 1)]  # the index comes from the browser
        return processing_utils.save_file_to_cache(sample.path, cache_dir=get_upload_folder())

    gr.HTML(fixed("try_it.or_sample"))
    row = written(lambda say: buttons(say, samples))
    gallery = gr.HTML(row, js_on_load=CLICK_SAMPLE, elem_id=name, elem_classes="samples")
    gallery.click(on_sample, None, photo, show_progress="hidden", api_visibility="private")


def photo_input(name: str) -> gr.Image:
    """Return the field that takes a picture: upload, drag, webcam, paste."""
    return guards.photo(
        label=fixed("try_it.photo"),
        alt_text="",
        sources=["upload", "webcam", "clipboard"],
        # On a phone the camera at its back, which sees the animal; what it shows is not mirrored.
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
        buttons=["fullscreen"],
        height=400,
        elem_id=name,
    )


def _keeps_map(classifier: ImageClassifier) -> bool:
    return classifier.config.evidence is not None


def _lacking(classifier: ImageClassifier) -> dict[str, str | None]:
    """Return, for each method beside the evidence, why it does not run here; None where it does."""
    return {name: method.lacks(classifier) for name, method in explain.METHODS.items() if name != "evidence"}


def _methods(lacking: dict[str, str | None]) -> list[tuple[str, str]]:
    """Return the methods that run here, by title and name."""
    return [(explain.METHODS[name].title, name) for name, reason in lacking.items() if not reason]


def _not_here(lacking: dict[str, str | None]) -> str:
    """Say which methods do not run here, and why (HTML)."""
    line = Markup("<li><b>{}</b>: {}</li>")
    lines = [line.format(explain.METHODS[name].title, escape(reason)) for name, reason in lacking.items() if reason]
    listed = Markup("<ul>{}</ul>").format(Markup("").join(lines))
    return written(lambda say: say("try_it.not_here", list=listed)) if lines else ""
