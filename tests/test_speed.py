"""The speed benchmark compares equal answers, and a fresh process answers soon and without TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import speed
from hub import ImageClassifier
from hub.bundle import DEFAULT


@pytest.fixture(scope="module")
def result(bundle_2) -> dict:
    """Three rounds on the tiny model: the numbers mean nothing, the procedure is the real one."""
    return speed.measure(bundle_2, rounds=3)


def test_both_sides_give_the_same_answer(bundle_2):
    """Grad-CAM of a logit, times h·w, is the positive part of the evidence."""
    classifier, jpeg = ImageClassifier.from_pretrained(bundle_2), speed.photo()
    probabilities, ours = speed.ours(classifier)(jpeg)
    theirs = speed.keras_grad_cam(classifier)(jpeg)
    assert ours.shape == (4, 4)
    assert ours.max() > 0.01
    assert speed.check_agreement((probabilities, ours), theirs)["map"] < 1e-4


def test_different_answers_are_not_timed():
    """A comparison of different answers ends with a sentence."""
    same = np.array([0.5, 0.5]), np.zeros((4, 4))
    other = np.array([0.6, 0.4]), np.zeros((4, 4))
    with pytest.raises(SystemExit, match="nothing was timed"):
        speed.check_agreement(same, other)


@pytest.mark.long
def test_first_answer_needs_no_tensorflow(result):
    """The tiny model: never imports TensorFlow."""
    assert result["heavy_packages_imported"] == []


def test_the_embedded_model_answers_a_fresh_process_in_two_seconds():
    """`import hub` and the first answer of the released model."""
    starts = speed.fresh_starts(DEFAULT, speed.photo(), times=3)
    assert all(start["heavy"] == [] for start in starts)
    assert np.median([start["answer"] for start in starts]) < 2


@pytest.mark.long
def test_table_shows_what_was_measured(result):
    """A row for each measurement, the middle one between its quartiles."""
    rows = speed.table(result).splitlines()[2:]
    assert len(rows) == 6
    assert f"{result['times_as_fast']['median']:.3g} ×" in rows[2]
    assert all(row["low"] <= row["median"] <= row["high"] for row in result["seconds"].values())
