"""From an uploaded file to what the tab shows, without a browser."""

from __future__ import annotations

import copy
import csv
import io
import os
import pickle
import re
import threading
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub import UsageError, explain
from hub.heatmaps import overlay, shown_map
from space import languages, try_it, viewer
from space.languages import Say
from space.offer import Offer
from space.page import build
from tests.space.conftest import Visitor, file_data, served

EN = Say("en")


def maps(drawn: str) -> list[Image.Image]:
    """The layers in a drawn figure."""
    sources = re.findall(r"src='data:image/png;base64,([^']*)'", drawn)
    return [Image.open(io.BytesIO(b64decode(source))) for source in sources]


def test_answer_is_the_models_own(classifier_2, cat):
    answered = try_it.answer(classifier_2, cat)
    expected = classifier_2.predict(cat)
    assert answered.prediction.label == expected.label
    np.testing.assert_array_equal(answered.prediction.evidence, expected.evidence)


@pytest.mark.parametrize(
    ("size", "drawn"), [((3000, 2000), (1024, 683)), ((5000, 3), (1024, 1)), ((1, 1), (1, 1)), ((800, 600), (800, 600))]
)
def test_pictures_of_any_size_are_drawn(classifier_2, tmp_path, size, drawn):
    Image.new("RGB", size, "teal").save(tmp_path / "photo.png")
    answered = try_it.answer(classifier_2, tmp_path / "photo.png")
    assert Image.open(io.BytesIO(answered.picture)).size == drawn
    assert len(maps(try_it.draw(EN, classifier_2, answered, 0))) == 1


def test_what_a_session_keeps_is_small(classifier_2, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")  # nothing compresses worse
    assert len(pickle.dumps(try_it.answer(classifier_2, tmp_path / "noise.jpg"))) < 1.2e6


def test_a_layer_over_the_photo_is_the_overlay(classifier_2, cat):
    answered = try_it.answer(classifier_2, cat)
    [layer] = maps(try_it.draw(EN, classifier_2, answered, 0))
    photo = Image.open(io.BytesIO(answered.picture)).convert("RGB").resize(layer.size)
    faded = layer.copy()
    faded.putalpha(layer.getchannel("A").point(lambda alpha: alpha * 0.65))
    mixed = Image.alpha_composite(photo.convert("RGBA"), faded).convert("RGB")
    values = shown_map(answered.prediction.evidence, 0)
    expected = overlay(photo, values, classifier_2.evidence_scale, 0.65)
    difference = np.abs(np.asarray(mixed, np.int16) - np.asarray(expected, np.int16))
    assert difference.max() <= 2  # the layer's alpha has 256 steps


def test_the_other_label_flips_the_sign(classifier_2, cat):
    answered = try_it.answer(classifier_2, cat)
    first, second = (np.asarray(maps(try_it.draw(EN, classifier_2, answered, k))[0], np.int16) for k in (0, 1))
    seen = first[..., 3] > 8
    np.testing.assert_allclose(first[..., 3], second[..., 3], atol=1)
    assert seen.any() and ((first[..., 0] > 100) != (second[..., 0] > 100))[seen].all()


def test_the_scale_is_the_bundles_own(classifier_2, cat):
    drawn = try_it.draw(EN, classifier_2, try_it.answer(classifier_2, cat), 0)
    assert f"+{classifier_2.evidence_scale:.1f} logits" in drawn
    assert "−31,4" not in drawn
    assert f"+{classifier_2.evidence_scale:.1f}".replace(".", ",") in try_it.draw(
        Say("de"), classifier_2, try_it.answer(classifier_2, cat), 0
    )


def test_the_numbers_to_save_are_the_evidence(classifier_3, cat):
    prediction = classifier_3.predict(cat)
    rows = list(csv.DictReader(io.StringIO(viewer.grid_csv(prediction, classifier_3.labels, 2))))
    assert [(int(row["row"]), int(row["column"])) for row in rows[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    for k, label in enumerate(classifier_3.labels):
        column = [float(row[f"evidence_{label}"]) for row in rows]
        np.testing.assert_array_equal(np.float32(column), prediction.evidence[..., k].ravel())
    assert np.mean([float(row["shown_fox"]) for row in rows]) == pytest.approx(
        prediction.logits[2] - prediction.logits.mean(), abs=1e-5
    )


@pytest.mark.parametrize("method", ["grad-cam", "occlusion", "score-cam"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_method_is_drawn_beside_the_evidence_and_runs_once(request, cat, method, count):
    classifier = request.getfixturevalue(f"classifier_{count}")
    answered = try_it.answer(classifier, cat)
    drawn = try_it.draw(EN, classifier, answered, 1, method)
    assert len(maps(drawn)) == 2
    assert f"{explain.find_method(method).title} for dog" in drawn
    assert "Cost: " in drawn
    assert try_it.explained(classifier, answered, 1, method) is answered.explained[method, 1]
    assert len(answered.explained) == 1


def test_every_method_is_described_in_every_language():
    for name in explain.METHODS:
        if name != "evidence":
            for language in ("en", "de", "es"):
                assert Say(language)(try_it.about_key(name, keeps_map=True), label="x")


def test_a_method_nobody_knows_is_one_sentence(classifier_2, cat):
    with pytest.raises(UsageError, match=r"There is no method x; did you mean .*\?"):
        try_it.explained(classifier_2, try_it.answer(classifier_2, cat), 0, "x")


def test_a_page_for_three_labels_answers(classifier_3, cat):
    with served(classifier_3) as address:
        message = Visitor(address).ask(cat.read_bytes())
    text = str(message["output"])
    assert message["success"]
    assert "mean of all logits" in text
    assert "compared with the mean of all 3 labels" in text


def test_a_classic_head_has_no_map_and_offers_occlusion(classic, cat):
    with served(classic) as address:
        visitor = Visitor(address)
        message = visitor.ask(cat.read_bytes())
        _, verdict, views, _, _, figure, *_ = message["output"]["data"]
        shown = visitor.send("method", None, "cat", "occlusion")["output"]["data"][0]
    assert "%" in verdict
    assert views["visible"] is True
    assert maps(figure) == []
    assert len(maps(shown)) == 1
    texts = str(visitor.config)
    assert "try_it.no_evidence" in texts and "Score-CAM" in texts


def test_another_label_does_not_run_the_model(visitor, classifier_2, cat, monkeypatch):
    first = visitor.ask(cat.read_bytes())["output"]["data"][5]
    monkeypatch.setattr(classifier_2, "predict_tensors", None)  # a call would fail
    for label in ("dog", "cat"):
        message = visitor.send("label", None, label, "none")
        assert message["success"]
        assert f"Evidence for {label}" in message["output"]["data"][0]
    other = visitor.send("label", None, "dog" if "Evidence for cat" in first else "cat", "none")
    assert maps(other["output"]["data"][0])[0].tobytes() != maps(first)[0].tobytes()


def test_clearing_the_picture_clears_the_answer(visitor, cat):
    visitor.ask(cat.read_bytes())
    _, verdict, views, *_ = visitor.send("photo", None, None)["output"]["data"]
    assert "try_it.hint" in str(verdict)
    assert views["visible"] is False
    message = visitor.send("label", None, "cat", "none")  # nothing to draw, no error
    assert message["success"]
    assert Say("en")("try_it.gone") in message["output"]["data"][0]


@pytest.mark.parametrize(
    ("index", "name"), [(0, "chelsea.png"), (3, "tower.jpg"), (-5, "chelsea.png"), (99, "tower.jpg")]
)
def test_a_sample_is_copied_to_where_uploads_lie(visitor, index, name):
    message = visitor.send("samples", event={"index": index})
    [photo] = message["output"]["data"]
    assert Path(photo["path"]).is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    assert Path(photo["path"]).name == name
    answer = visitor.send("photo", file_data(photo["path"]), None)
    assert "class='verdict'" in answer["output"]["data"][1]


def test_a_click_that_names_no_sample_reveals_nothing(visitor):
    for event in (None, {"index": "../../etc/passwd"}, {"index": None}):
        message = visitor.send("samples", event=event)
        assert not message["success"]
        assert "Traceback" not in str(message)


class Waiting(explain.masks.Occlusion):
    """Occlusion that begins when it is told to."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *arguments):
        self.begun.set()
        assert self.go.wait(20)
        return super().__call__(*arguments)


def test_a_method_that_ends_too_late_leaves_the_new_picture_alone(visitor, cat, monkeypatch):
    slow = Waiting()
    visitor.ask(cat.read_bytes())
    monkeypatch.setitem(explain.METHODS, "occlusion", slow)
    late = visitor.join("method", None, "cat", "occlusion")
    assert slow.begun.wait(20)
    new = visitor.join("photo", file_data(visitor.upload("other.jpg", cat.read_bytes())), None)
    for message in visitor.ends():
        if message["event_id"] == new:
            slow.go.set()
        elif message["event_id"] == late:
            break
    assert message["success"]
    assert all(part.get("__type__") == "update" and "value" not in part for part in message["output"]["data"])


def test_the_page_promises_evidence_only_where_there_is_some(classic, classifier_2):
    def promise(classifier, labels: list[str]) -> str:
        other = copy.copy(classifier)
        other.labels = labels  # of no other test: a text that stands already is not written again
        before = set(languages.texts())
        build(Offer(other))
        made = [text["en"] for name, text in languages.texts().items() if name not in before]
        (title,) = (text for text in made if text.startswith("<h1>"))
        return title

    without = promise(classic, ["heron", "otter"])
    assert "other methods show" in without and "evidence" not in without
    assert "with the evidence" in promise(classifier_2, ["heron", "stork"])
