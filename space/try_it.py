"""The tab that answers one picture: probabilities, a sentence, and the evidence laid over the picture.

A picture runs the model once. Its answer stays in the visitor's session, so that another label, view or opacity
only draws anew.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder
from PIL import Image

from hub import BundleError, ImageClassifier, ImageError, Prediction
from hub.heatmaps import grad_cam, overlay, shown_map
from hub.images import open_image
from space import guards, words
from space.samples import Sample, buttons

LARGEST, SMALLEST = 1024, 640  # pixels of the drawn picture's longer side
OPACITY = 0.65
FALLBACK_SCALE = 10.0  # logits, for a bundle that stores no scale: fixed all the same
RADIO_UP_TO = 6  # labels; more go into a list that can be searched
EVIDENCE, GRAD_CAM = VIEWS = ("Evidence", "Grad-CAM")

EMPTY = "<p class='hint'>The answer appears here. Upload a picture, take or paste one, or click a sample.</p>"
CLICK_SAMPLE = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) trigger("click", { index: Number(button.dataset.index) });
});
"""
# A file that the browser cannot draw leaves no broken frame; on a phone, the answer below comes into view.
SHOW_ANSWER = """() => {
    for (const image of document.querySelectorAll("#photo img"))
        image.style.visibility = image.complete && !image.naturalWidth ? "hidden" : "";
    const sentence = document.querySelector("#verdict p:not(.hint)");
    if (sentence && innerWidth <= 640) sentence.scrollIntoView();
}"""


@dataclass(frozen=True)
class Answer:
    """What a session keeps: the prediction and the picture to draw on, as JPEG (about 0.2 MB)."""

    prediction: Prediction
    picture: bytes


def answer(classifier: ImageClassifier, path: str) -> Answer:
    """Run the model on an uploaded file.

    Raises:
        ImageError: the file is refused, in one sentence.
    """
    prediction = classifier.predict(path)
    picture = open_image(path, size=LARGEST)
    longest = max(picture.size)
    share = min(max(longest, SMALLEST), LARGEST) / longest
    if share != 1:
        size = tuple(max(1, round(side * share)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return Answer(prediction, data.getvalue())


def draw(classifier: ImageClassifier, answered: Answer, k: int, view: str, opacity: float) -> dict[str, object]:
    """Return what a view shows for label `k`: the coloured picture, its bar, the sum, and what it all means."""
    labels, evidence = classifier.labels, answered.prediction.evidence
    picture = Image.open(io.BytesIO(answered.picture))
    scale = classifier.evidence_scale or FALLBACK_SCALE
    signed = view == EVIDENCE
    values = shown_map(evidence, k) if signed else grad_cam(evidence, k)
    what = f"what speaks for and against {labels[k]}" if signed else f"Grad-CAM for {labels[k]}"
    return {
        "picture": gr.update(
            value=overlay(picture, values, scale, opacity, signed=signed),
            alt_text=f"The picture, coloured by {what}",
        ),
        "bar": words.bar(labels, k, scale, opacity, signed_map=signed),
        "account": gr.update(value=words.account(answered.prediction, labels, k) if signed else "", visible=signed),
        "about": words.about_evidence(labels, k, evidence.shape[:2]) if signed else words.about_grad_cam(labels, k),
    }


def build(classifier: ImageClassifier, samples: list[Sample]) -> None:
    """Lay out the tab and connect it; call it inside gr.Blocks."""
    labels = classifier.labels
    state = gr.State(time_to_live=guards.DELETE_AFTER)
    with gr.Row(elem_id="desk"):
        with gr.Column(min_width=300, elem_id="question"):
            photo = guards.photo(
                label="Your picture",
                alt_text="The picture you chose",
                sources=["upload", "webcam", "clipboard"],
                # On a phone the camera at its back, which sees the animal; what it shows is not mirrored.
                webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
                buttons=["fullscreen"],
                height=400,
                elem_id="photo",
            )
            if samples:
                gr.HTML("<h2>Or click a sample</h2>")
                gallery = gr.HTML(buttons(samples), js_on_load=CLICK_SAMPLE, elem_id="samples")
        with gr.Column(min_width=300, elem_id="answer"):
            verdict = gr.HTML(EMPTY, elem_id="verdict")
            with gr.Column(visible=False, elem_id="views") as views:
                with gr.Row(elem_id="controls"):
                    choose = gr.Radio if len(labels) <= RADIO_UP_TO else gr.Dropdown
                    label = choose(labels, type="index", label="The map speaks for", min_width=130, elem_id="label")
                    view = gr.Radio(list(VIEWS), value=EVIDENCE, label="View", min_width=130, elem_id="view")
                picture = gr.Image(
                    label="Evidence",
                    show_label=False,
                    format="jpeg",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="picture",
                )
                bar = gr.HTML(elem_id="bar")
                opacity = gr.Slider(
                    0, 1, OPACITY, step=0.05, label="Opacity of the colours", buttons=[], elem_id="opacity"
                )
                account = gr.HTML(elem_id="account")
                about = gr.HTML(elem_id="about")
            no_map = gr.HTML(words.NO_EVIDENCE, visible=False, elem_id="no-map")
    drawn = {"picture": picture, "bar": bar, "account": account, "about": about}

    def on_photo(path: str | None, chosen_view: str, strength: float) -> dict:
        """Answer a new picture, refuse it in one sentence, or clear the answer."""
        nothing = {state: None, views: gr.update(visible=False), no_map: gr.update(visible=False)}
        if path is None:
            return {verdict: EMPTY, **nothing}
        try:
            answered = answer(classifier, path)
        except (ImageError, BundleError) as error:
            return {verdict: f"<p class='refusal' role='alert'>{words.escape(str(error))}</p>", **nothing}
        prediction = answered.prediction
        sentence = f"<p class='verdict' role='status'>{words.verdict(prediction, labels)}</p>"
        result = {
            state: answered,
            verdict: sentence + words.shares(prediction, labels),
            views: gr.update(visible=prediction.evidence is not None),
            no_map: gr.update(visible=prediction.evidence is None),
        }
        if prediction.evidence is None:
            return result
        k = labels.index(prediction.label)
        shown = draw(classifier, answered, k, chosen_view, strength)
        return {**result, label: prediction.label, **{drawn[part]: value for part, value in shown.items()}}

    def on_control(answered: Answer | None, k: int | None, chosen_view: str, strength: float) -> dict:
        """Draw the answer anew; the model does not run."""
        if answered is None or answered.prediction.evidence is None or k is None:
            return {part: gr.skip() for part in drawn.values()}
        shown = draw(classifier, answered, k, chosen_view, strength)
        return {drawn[part]: value for part, value in shown.items()}

    def on_sample(event: gr.EventData) -> str:
        """Put a copy of the sample where uploads lie: nothing else may be read."""
        sample = samples[min(max(int(event.index), 0), len(samples) - 1)]  # the index comes from the browser
        return processing_utils.save_file_to_cache(sample.path, cache_dir=get_upload_folder())

    photo.change(
        on_photo,
        [photo, view, opacity],
        [state, verdict, views, no_map, label, *drawn.values()],
        show_progress_on=verdict,
        concurrency_limit=2,
        api_visibility="private",
    ).then(None, js=SHOW_ANSWER)
    gr.on(
        [label.input, view.input, opacity.input],
        on_control,
        [state, label, view, opacity],
        list(drawn.values()),
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=4,
        api_visibility="private",
    )
    if samples:
        gallery.click(on_sample, None, photo, show_progress="hidden", api_visibility="private")
