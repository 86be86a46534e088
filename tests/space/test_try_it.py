"""From an uploaded file to what the tab shows, without a browser."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hub.heatmaps import shown_map
from space import try_it, words
from tests.space.conftest import Visitor, file_data, served


def pixels(shown: dict) -> np.ndarray:
    """The drawn picture of `draw` as signed integers."""
    return np.asarray(shown["picture"]["value"], np.int16)


def test_answer_is_the_models_own(classifier_2, cat):
    answered = try_it.answer(classifier_2, str(cat))
    expected = classifier_2.predict(cat)
    assert answered.prediction.label == expected.label
    np.testing.assert_array_equal(answered.prediction.evidence, expected.evidence)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((3000, 2000), (1024, 683)), ((5000, 3), (1024, 1)), ((1, 1), (640, 640)), ((800, 600), (800, 600))],
)
def test_pictures_of_any_size_are_drawn_well(classifier_2, tmp_path, size, drawn):
    Image.new("RGB", size, "teal").save(tmp_path / "photo.png")
    answered = try_it.answer(classifier_2, tmp_path / "photo.png")
    assert Image.open(io.BytesIO(answered.picture)).size == drawn
    assert pixels(try_it.draw(classifier_2, answered, 0, try_it.EVIDENCE, 0.5)).shape == (drawn[1], drawn[0], 3)


def test_what_a_session_keeps_is_small(classifier_2, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")  # nothing compresses worse
    assert len(pickle.dumps(try_it.answer(classifier_2, tmp_path / "noise.jpg"))) < 1e6


def test_the_other_label_flips_the_sign(classifier_2, cat):
    answered = try_it.answer(classifier_2, str(cat))
    plain, first, second = (
        pixels(try_it.draw(classifier_2, answered, k, try_it.EVIDENCE, opacity))
        for k, opacity in ((0, 0.0), (0, 1.0), (1, 1.0))
    )
    values = shown_map(answered.prediction.evidence, 0)
    np.testing.assert_array_equal(values, -shown_map(answered.prediction.evidence, 1))
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    height, width = plain.shape[:2]
    y, x = ((2 * index + 1) * side // 8 for index, side in ((row, height), (column, width)))  # 4 x 4 cells
    warmth = (first - plain)[y, x, 0] - (first - plain)[y, x, 2]  # more red and less blue
    assert np.sign(warmth) == np.sign(values[row, column])
    assert np.sign((second - plain)[y, x, 0] - (second - plain)[y, x, 2]) == -np.sign(warmth)


def test_opacity_zero_is_the_photo_itself(classifier_2, cat):
    answered = try_it.answer(classifier_2, str(cat))
    photo = np.asarray(Image.open(io.BytesIO(answered.picture)))
    np.testing.assert_array_equal(pixels(try_it.draw(classifier_2, answered, 0, try_it.EVIDENCE, 0)), photo)


def test_grad_cam_shows_nothing_blue(classifier_2, cat):
    answered = try_it.answer(classifier_2, str(cat))
    plain = pixels(try_it.draw(classifier_2, answered, 0, try_it.EVIDENCE, 0))
    for k in (0, 1):
        shown = try_it.draw(classifier_2, answered, k, try_it.GRAD_CAM, 1)
        change = pixels(shown) - plain
        covered = answered.prediction.evidence[..., k].max() > 0
        # Red only: full red is (202, 0, 32), so green can only fall.
        assert change[..., 1].max() <= 0
        assert (change[..., 1].min() < 0) == covered
        assert shown["account"] == {"value": "", "visible": False, "__type__": "update"}
        assert "max(evidence, 0)" in shown["about"]


def test_the_scale_is_the_bundles_own(classifier_2, cat):
    answered = try_it.answer(classifier_2, str(cat))
    bar = try_it.draw(classifier_2, answered, 0, try_it.EVIDENCE, 0.5)["bar"]
    assert f"+{classifier_2.evidence_scale:.1f} logits" in bar


def test_a_page_for_three_labels_answers(classifier_3, cat):
    with served(classifier_3) as address:
        message = Visitor(address).ask(cat.read_bytes())
    text = str(message["output"])
    assert message["success"]
    assert "mean of all logits" in text
    assert "compared with the mean of all 3 labels" in text


def test_a_classic_head_says_that_there_is_no_map(classic, cat):
    with served(classic) as address:
        visitor = Visitor(address)
        message = visitor.ask(cat.read_bytes())
    assert message["success"]
    _, verdict, views, no_map = message["output"]["data"][:4]
    assert "%" in verdict
    assert (views["visible"], no_map["visible"]) == (False, True)
    assert words.NO_EVIDENCE in str(visitor.config)


def test_another_label_or_opacity_does_not_run_the_model(visitor, classifier_2, cat, monkeypatch):
    first = visitor.ask(cat.read_bytes())
    monkeypatch.setattr(classifier_2, "predict_tensors", None)  # a call would fail
    for label, view, opacity in (("dog", "Evidence", 0.2), ("cat", "Grad-CAM", 0.9)):
        message = visitor.send("opacity", None, label, view, opacity)
        assert message["success"]
        assert f"opacity: {opacity:.2f}" in str(message["output"])
        assert f"speaks for {label}" in str(message["output"])
    assert first["output"]["data"][6] != message["output"]["data"][1]


def test_clearing_the_picture_clears_the_answer(visitor, cat):
    visitor.ask(cat.read_bytes())
    message = visitor.send("photo", None, "Evidence", 0.65)
    _, verdict, views, _ = message["output"]["data"][:4]
    assert verdict == try_it.EMPTY
    assert views["visible"] is False
    assert visitor.send("opacity", None, "cat", "Evidence", 0.3)["success"]  # nothing to draw, no error


@pytest.mark.parametrize(
    ("index", "name"), [(0, "chelsea.png"), (3, "tower.jpg"), (-5, "chelsea.png"), (99, "tower.jpg")]
)
def test_a_sample_is_copied_to_where_uploads_lie(visitor, index, name):
    message = visitor.send("samples", event={"index": index})
    [photo] = message["output"]["data"]
    assert Path(photo["path"]).is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    assert Path(photo["path"]).name == name
    answer = visitor.send("photo", file_data(photo["path"]), "Evidence", 0.65)
    assert "class='verdict'" in answer["output"]["data"][1]


def test_a_click_that_names_no_sample_reveals_nothing(visitor):
    for event in (None, {"index": "../../etc/passwd"}, {"index": None}):
        message = visitor.send("samples", event=event)
        assert not message["success"]
        assert "Traceback" not in str(message)
