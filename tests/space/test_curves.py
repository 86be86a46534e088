"""The curves and the counts are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from hub.scores import log_odds, softmax
from space.curves import Counts, Ranking
from tests.records import random_answers


@pytest.mark.parametrize("labels", [2, 3, 10])
def test_curves_are_scikit_learns(labels):
    truth, logits = random_answers(labels, 400, seed=labels)
    for k in range(labels):
        odds = log_odds(logits)[:, k]
        ranking = Ranking(truth == k, odds)
        false, true, _ = sk.roc_curve(truth == k, odds)
        np.testing.assert_array_equal(ranking.roc, (false, true))
        assert ranking.roc_auc == sk.roc_auc_score(truth == k, odds)
        precision, recall, _ = sk.precision_recall_curve(truth == k, odds)
        np.testing.assert_allclose(ranking.precision_recall, (precision[::-1], recall[::-1]))
        assert ranking.average_precision == pytest.approx(sk.average_precision_score(truth == k, odds), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.25, 0.5, 0.9, 1.0])
def test_the_counts_at_a_threshold_are_scikit_learns(threshold):
    truth, logits = random_answers(3, 400, seed=3)
    ranking = Ranking(truth == 1, log_odds(logits)[:, 1])
    called = softmax(logits)[:, 1] >= threshold
    counts = ranking.at(threshold)
    (tn, fp), (fn, tp) = sk.confusion_matrix(truth == 1, called, labels=[False, True])
    assert counts == Counts(tp, fn, fp, tn)
    assert counts.recall == pytest.approx(sk.recall_score(truth == 1, called))
    assert counts.false_positive_rate == pytest.approx(fp / (truth != 1).sum())
    assert counts.accuracy == pytest.approx(sk.accuracy_score(truth == 1, called))
    if called.any():
        assert counts.precision == pytest.approx(sk.precision_score(truth == 1, called))
        assert counts.f1 == pytest.approx(sk.f1_score(truth == 1, called))
    else:
        assert counts.precision is None and counts.f1 == 0


def test_a_score_without_anything_to_count_is_none():
    assert Ranking(np.array([False, False]), np.array([0.0, 1.0])).at(0.5).recall is None
    assert Ranking(np.array([True]), np.array([0.0])).at(0.5).false_positive_rate is None
    assert not Ranking(np.array([True, True]), np.array([0.0, 1.0])).has_curves


def test_mistakes_are_those_of_the_counts_and_the_worst_comes_first():
    truth = np.array([True, True, False, False, True])
    odds = np.array([3.0, -4.0, 2.0, -1.0, -0.5])
    ranking = Ranking(truth, odds)
    assert ranking.mistakes(0.5).tolist() == [1, 2, 4]  # 4, 2 and 0.5 on the wrong side of 0
    assert ranking.mistakes(0.9).tolist() == [1, 4]  # of log(9) = 2.197, which 2 stays below
    assert ranking.mistakes(0.0).tolist() == [2, 3]  # everything is called the label
    for threshold in (0.0, 0.1, 0.7, 1.0):
        counts = ranking.at(threshold)
        assert len(ranking.mistakes(threshold)) == counts.fn + counts.fp


def test_a_probability_that_rounds_to_one_is_no_tie():
    ranking = Ranking(np.array([True, False]), np.array([60.0, 50.0]))
    assert ranking.probability.tolist() == [1.0, 1.0]
    assert ranking.roc_auc == 1.0
    assert Ranking(np.array([True, False]), np.array([1.0, -1e4])).probability[1] == 0.0
