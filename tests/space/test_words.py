"""The sentences and numbers of the page, on maps small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hub import Prediction
from hub.scores import softmax
from space import words
from space.languages import Say

EN = Say("en")


def prediction(evidence) -> Prediction:
    """The prediction that an evidence map (h, w, K) adds up to."""
    evidence = np.asarray(evidence, np.float32)
    logits = evidence.mean(axis=(0, 1))
    return Prediction("cat", softmax(logits), logits, evidence)


# 2 x 2 cells, cat and dog; cat − dog is 8, 1, −1, 0, so its mean is +2.
TWO = prediction([[[6, -2], [1, 0]], [[0, 1], [3, 3]]])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50.0 %"),
        (0.98765, "98.8 %"),
        (0.99949, "99.9 %"),
        (0.9999, "more than 99.9 %"),
        (1.0, "more than 99.9 %"),
        (0.0004, "less than 0.1 %"),
        (0.0006, "0.1 %"),
    ],
)
def test_percent_never_claims_certainty(share, text):
    assert words.percent(EN, share) == text


def test_signed_uses_a_true_minus_and_no_minus_zero():
    assert [words.signed(EN, value) for value in (1.234, -1.236, -0.001)] == ["+1.23", "−1.24", "+0.00"]


@pytest.mark.parametrize(
    ("cell", "where"),
    [
        ((0, 0), "upper_left"),
        ((0, 3), "top"),
        ((1, 5), "upper_right"),
        ((2, 6), "right"),
        ((3, 3), "middle"),
        ((6, 0), "lower_left"),
        ((6, 4), "bottom"),
    ],
)
def test_place_of_the_largest_cell(cell, where):
    values = np.zeros((7, 7))
    values[cell] = 1
    assert words.place(values) == where


def test_place_is_silent_where_nothing_stands_out():
    assert words.place(np.full((7, 7), 2.0)) is None
    assert words.place(-np.arange(1.0, 50).reshape(7, 7)) is None
    assert words.place(np.ones((1, 1))) is None


def test_verdict_says_label_probability_and_place():
    text = words.verdict(EN, TWO, ["cat", "dog"])
    assert text.startswith("<strong>Cat, 88.1 %.</strong> <span>") and text.count("in the upper left") == 1


def test_verdict_without_a_map_says_no_place():
    plain = Prediction("cat", TWO.probabilities, TWO.logits, None)
    assert words.verdict(EN, plain, ["cat", "dog"]) == "<strong>Cat, 88.1 %.</strong>"


def test_verdict_does_not_choose_in_a_tie():
    tie = prediction(np.zeros((2, 2, 3)))
    assert "Undecided" in words.verdict(EN, tie, ["cat", "dog", "fox"])
    assert "Cat and dog get 33.3 % each" in words.verdict(EN, tie, ["cat", "dog", "fox"])


def test_account_of_two_labels_adds_up_to_the_log_odds():
    text = words.account(EN, TWO, ["cat", "dog"], 0)
    assert "<b>+2.00</b><span>mean of the 4 cells" in text
    assert "of cat against dog" in text
    assert "<b>88.1 %</b><span>cat: 1 / (1 + e<sup>−2.00</sup>)" in text
    other = words.account(EN, TWO, ["cat", "dog"], 1)
    assert "<b>−2.00</b>" in other
    assert "<b>11.9 %</b><span>dog: 1 / (1 + e<sup>+2.00</sup>)" in other


def test_account_of_three_labels_is_the_logit_less_the_mean():
    three = prediction([[[3, 0, 0]], [[5, 2, -4]]])  # logits 4, 1, −2: mean 1
    text = words.account(EN, three, ["cat", "dog", "fox"], 2)
    assert "<b>−3.00</b><span>mean of the 2 cells" in text
    assert "<b>−2.00</b><span>logit of fox" in text
    assert "<b>+1.00</b><span>mean of all logits" in text


def test_shares_are_sorted_and_cut():
    labels = [f"label {index}" for index in range(12)]
    many = prediction(np.arange(12.0).reshape(1, 1, 12))
    text = words.shares(EN, many, labels)
    assert text.count("<li>") == 10
    assert text.index("label 11") < text.index("label 10")
    assert "label 0<" not in text


def test_bar_names_its_ends_and_ticks():
    text = words.bar(EN, ["cat", "dog"], 1, 6.5, signed_map=True)
    assert "evidence for cat</span><span>evidence for dog" in text
    assert "<span>−6.5</span><span>0</span><span>+6.5 logits</span>" in text
    assert "rgb(5 113 176), rgb(255 255 255), rgb(202 0 32)" in text
    assert "evidence against fox" in words.bar(EN, ["cat", "dog", "fox"], 2, 6.5, signed_map=True)
    positive = words.bar(EN, ["cat", "dog"], 1, 6.5, signed_map=False)
    assert "<span>0</span><span>+3.2</span><span>+6.5 logits</span>" in positive


def test_whatever_a_bundle_calls_its_labels_stays_text():
    labels = ["<script>alert(1)</script>", "{{dog}} & '\"co"]
    everything = [
        words.verdict(EN, TWO, labels),
        words.shares(EN, TWO, labels),
        words.account(EN, TWO, labels, 1),
        words.bar(EN, labels, 1, 1.0, signed_map=True),
        words.about_evidence(EN, labels, 1, (7, 7)),
    ]
    assert not any("<script" in text or "{{" in text or "'\"co" in text for text in everything)


def test_choices_are_named():
    assert words.one_of(EN, ["cat", "dog"]) == "cat or dog"
    assert words.one_of(EN, ["cat", "dog", "fox"]) == "cat, dog or fox"
    assert words.one_of(EN, [str(digit) for digit in range(10)]) == "one of 10 labels"


def test_account_of_an_extreme_answer():
    """Log-odds of -900 are beyond what exp() takes; the probability is the prediction's own."""
    evidence = np.zeros((1, 1, 2), np.float32)
    evidence[..., 0] = 900
    prediction = Prediction("cat", np.array([1, 0], np.float32), evidence[0, 0], evidence)
    assert "less than 0.1 %" in words.account(EN, prediction, ["cat", "dog"], 1)
