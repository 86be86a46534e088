"""p-values and intervals of differences whose right answers are known."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from training.results.significance import Resampled, affordable, differences, holm, mcnemar

from ..made_runs import answers


def right(pattern: str) -> np.ndarray:
    return np.array([letter == "r" for letter in pattern])


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (10, 0, 2 / 2**10),  # ten heads, or ten tails
        (1, 7, 2 * (1 + 8) / 2**8),  # of eight none or one
        (2, 3, 1.0),  # the middle of five: every division is at least so uneven
        (3, 9, 2 * (1 + 12 + 66 + 220) / 2**12),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_coin_worked_out_by_hand(only_first, only_second, p):
    # Five pictures that both, and three that neither answers rightly, change nothing.
    first = right("r" * only_first + "w" * only_second + "rrrrr" + "www")
    second = right("w" * only_first + "r" * only_second + "rrrrr" + "www")
    found = mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == (only_first, only_second)
    assert found["p"] == pytest.approx(p, abs=1e-12)
    assert mcnemar(second, first)["p"] == found["p"]


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # 4 × 0.005; 3 × 0.01; 2 × 0.03; 1 × 0.04 is less than the one before, so it is lifted to that.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("labels", [2, 4])
def test_a_classifier_does_not_differ_from_itself(labels):
    one = answers(labels, 50)
    first, again = (Resampled(one.labels, one.logits, resamples=100) for _ in range(2))
    assert differences(first, again) == {
        name: {"value": 0.0, "low": 0.0, "high": 0.0} for name in ("accuracy", "log_loss", "roc_auc")
    }
    assert mcnemar(one.logits.argmax(1) == one.labels, one.logits.argmax(1) == one.labels)["p"] == 1


def test_differences_turn_round_with_their_order():
    one, other = answers(3, 80, strength=3), answers(3, 80, seed=1)
    first, second = (Resampled(a.labels, a.logits, resamples=200) for a in (one, other))
    there, back = differences(first, second), differences(second, first)
    for name, found in there.items():
        assert found["value"] == -back[name]["value"]
        assert found["low"] == pytest.approx(-back[name]["high"]) and found["high"] == pytest.approx(-back[name]["low"])
    assert there["accuracy"]["low"] > 0 and there["log_loss"]["high"] < 0  # the first is much better


def test_intervals_are_those_of_a_plain_paired_bootstrap():
    one, other = answers(2, 40, strength=2), answers(2, 40, seed=1)
    np.testing.assert_array_equal(one.labels, other.labels)
    found = differences(*(Resampled(a.labels, a.logits, resamples=150, seed=5) for a in (one, other)))
    rng, drawn = np.random.default_rng(5), {"accuracy": [], "log_loss": [], "roc_auc": []}
    for _ in range(150):
        rows = rng.integers(0, 40, 40)
        truth = one.labels[rows]
        for name, score in (
            ("accuracy", lambda z, y: np.mean(z.argmax(1) == y)),
            ("log_loss", lambda z, y: sk.log_loss(y, softmax(z.astype(float), axis=1))),
            ("roc_auc", lambda z, y: sk.roc_auc_score(y, z[:, 1].astype(float) - z[:, 0])),
        ):
            drawn[name].append(score(one.logits[rows], truth) - score(other.logits[rows], truth))
    for name, values in drawn.items():
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose([found[name]["low"], found[name]["high"]], expected, atol=1e-9)


def test_an_area_that_one_label_cannot_give_is_none():
    one = answers(2, 30).take(np.flatnonzero(answers(2, 30).labels == 1))
    found = differences(*(Resampled(one.labels, one.logits, resamples=20) for _ in range(2)))
    assert found["roc_auc"] == {"value": None, "low": None, "high": None}
    assert found["accuracy"]["value"] == 0


def test_many_labels_are_resampled_less_often():
    assert [affordable(labels) for labels in (2, 20, 40, 1000)] == [2000, 2000, 1000, 400]
