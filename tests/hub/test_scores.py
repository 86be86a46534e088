"""Scores of logits are SciPy's and scikit-learn's, and each is written in the same digits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from hub.scores import BINS, calibration, duration, log_odds, many, percent, softmax, wilson
from tests.records import random_answers


@pytest.mark.parametrize("labels", [2, 3, 10])
def test_probabilities_and_log_odds(labels):
    _, logits = random_answers(labels, 400, seed=labels)
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(softmax(logits), special.softmax(exact, axis=1), rtol=1e-14)
    np.testing.assert_allclose(log_odds(logits), special.logit(special.softmax(exact, axis=1)), rtol=1e-9, atol=1e-9)
    if labels == 2:
        np.testing.assert_array_equal(log_odds(logits)[:, 1], exact[:, 1] - exact[:, 0])


def test_log_odds_do_not_saturate():
    odds = log_odds(np.array([[0.0, 60.0], [0.0, 50.0], [0.0, -2000.0]]))
    assert odds[:, 1].tolist() == [60.0, 50.0, -2000.0]


@pytest.mark.parametrize("labels", [2, 7])
def test_calibration_is_the_mean_gap_of_fifteen_bins(labels):
    truth, logits = random_answers(labels, 400, seed=labels)
    found = calibration(truth, logits)
    certainty, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == truth
    gaps = 0.0
    for index in range(BINS):
        inside = (certainty > index / BINS) & (certainty <= (index + 1) / BINS)
        assert found.photos[index] == inside.sum()
        if inside.any():
            assert found.confidence[index] == pytest.approx(certainty[inside].mean())
            assert found.right[index] == pytest.approx(right[inside].mean())
            gaps += abs(certainty[inside].mean() - right[inside].mean()) * inside.sum()
        else:
            assert np.isnan(found.confidence[index]) and np.isnan(found.right[index])
    assert found.error == pytest.approx(gaps / len(truth))


def test_calibration_error_of_a_bin_is_the_gap_of_its_means():
    # Ten answers of exactly the same certainty, seven right: one bin, gap |0.7 - p|.
    logits = np.tile([[0.0, 2.0]], (10, 1))
    labels = np.array([1] * 7 + [0] * 3)
    assert calibration(labels, logits).error == pytest.approx(abs(0.7 - 1 / (1 + np.exp(-2))))


def test_wilson_of_known_shares():
    low, high = wilson(np.array([0.5, 1.0, 0.0]), np.array([10, 10, 10]))
    np.testing.assert_allclose(low, [0.2366, 0.7225, 0.0], atol=1e-4)
    np.testing.assert_allclose(high, [0.7634, 1.0, 0.2775], atol=1e-4)


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "> 99.9 %"), (0.9996, "> 99.9 %"), (0.9994, "99.9 %"), (0.5, "50.0 %"), (0.0004, "< 0.1 %"), (0, "< 0.1 %")],
)
def test_no_probability_is_rounded_to_a_certainty(probability, text):
    assert percent(probability) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (47.2, "47 s"), (59.4, "59 s"), (59.6, "1 min"), (89.9, "1 min 30 s"), (119.7, "2 min"),
        (599.4, "9 min 59 s"), (599.6, "10 min"), (749, "12 min"), (3569.7, "59 min"), (3599.7, "1 h"),
        (5640, "1 h 34 min"), (7199, "2 h"), (90_000, "25 h"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_one_is_not_called_many():
    assert [many(count, "picture") for count in (0, 1, 1234)] == ["0 pictures", "1 picture", "1,234 pictures"]
