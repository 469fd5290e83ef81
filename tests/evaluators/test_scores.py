"""Figures of tasks against hand-made cases, scikit-learn and scipy."""

import numpy as np
import pytest

from ctxjax.evaluators import scores


def test_by_hand():
    told, right = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert scores.accuracy(told, right) == pytest.approx(60.0)
    assert scores.f1(told, right) == pytest.approx(100 * 2 * 2 / (3 + 3))
    # tp 2, tn 1, fp 1, fn 1
    assert scores.matthews(told, right) == pytest.approx(100 * (2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    assert scores.pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(100.0)
    assert scores.spearman(np.array([1.0, 8.0, 9.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-100.0)
    assert scores.squared_error(np.array([1.0, 2.0]), np.array([1.5, 4.0])) == pytest.approx((0.25 + 4) / 2)


def test_what_does_not_vary_has_no_correlation():
    same, other = np.ones(4), np.arange(4.0)
    assert scores.pearson(same, other) == scores.spearman(same, other) == scores.matthews(same, other) == 0.0
    assert scores.f1(np.zeros(3), np.zeros(3)) == 0.0


def test_as_many_as_there_are():
    with pytest.raises(ValueError, match="3 predictions of 4 examples"):
        scores.scores(("accuracy",), np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="0 predictions"):
        scores.scores(("accuracy",), np.zeros(0), np.zeros(0))
    found = scores.scores(("f1", "accuracy"), np.array([0, 2]), np.array([0, 1]), positive=0)
    assert found == {"f1": 100.0, "accuracy": 50.0}


@pytest.mark.parametrize("seed", range(10))
def test_labels_against_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, 5))
    right, told = draw.integers(0, count, 60), draw.integers(0, count, 60)
    told = np.where(draw.random(60) < 0.5, right, told)
    assert scores.accuracy(told, right) == pytest.approx(100 * metrics.accuracy_score(right, told))
    assert scores.matthews(told, right) == pytest.approx(100 * metrics.matthews_corrcoef(right, told))
    assert scores.macro_f1(told, right) == pytest.approx(100 * metrics.f1_score(right, told, average="macro"))
    one = (right == 1).astype(int), (told == 1).astype(int)
    assert scores.f1(told, right, 1) == pytest.approx(100 * metrics.f1_score(*one))


@pytest.mark.parametrize("seed", range(10))
def test_numbers_against_scipy(seed):
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(seed)
    right = np.round(draw.normal(size=50), int(draw.integers(0, 3)))  # with ties
    told = np.round(right + draw.normal(size=50), 1)
    assert scores.pearson(told, right) == pytest.approx(100 * stats.pearsonr(told, right)[0])
    assert scores.spearman(told, right) == pytest.approx(100 * stats.spearmanr(told, right)[0])
