"""The paired bootstrap against all draws there are, against the normal law, and against SciPy's interval."""

import itertools

import numpy as np
import pytest

from ctxjax.significance import paired_bootstrap, spread


def mean_of(scores):
    scores = np.asarray(scores, float)
    return lambda drawn: float(scores[drawn].mean())


def test_p_is_the_share_of_all_draws_there_are():
    """Of five examples there are 3,125 draws, which can be gone through."""
    a, b = np.array([10, 10, 0, 10, 3]), np.array([0, 10, 10, 0, 1])  # whole, so that what is exactly twice is told
    gains = np.array([(a - b)[list(drawn)].sum() for drawn in itertools.product(range(5), repeat=5)])
    exact = (gains > 2 * (a - b).sum()).mean()
    assert (gains == 2 * (a - b).sum()).any()
    found = paired_bootstrap(mean_of(a / 10), mean_of(b / 10), 5, resamples=20_000)
    assert 0.1 < exact < 0.4 and found.p == pytest.approx(exact, abs=0.01)
    assert (found.a, found.b) == pytest.approx((0.66, 0.42))
    assert found.low == pytest.approx(np.quantile(gains, 0.025) / 50, abs=0.05)


def test_the_order_of_the_systems_does_not_matter():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, 50), rng.normal(0, 1, 50)
    one, other = (paired_bootstrap(*pair, 50, 2000) for pair in ((mean_of(a), mean_of(b)), (mean_of(b), mean_of(a))))
    assert one.p == other.p and (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_many_examples_follow_the_normal_law_and_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.06, 1, 400), rng.normal(0, 1, 400)
    found = paired_bootstrap(mean_of(a), mean_of(b), 400, resamples=5000)
    gain = a - b
    assert found.p == pytest.approx(stats.norm.sf(gain.mean() / (gain.std() / 20)), abs=0.02)
    theirs = stats.bootstrap((gain,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(2))
    interval = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_spread_takes_each_figure_over_the_runs_that_have_it():
    means, deviations = spread([{"a": 1.0, "b": 5.0}, {"a": 2.0}, {"a": 4.0}])
    assert means == {"a": pytest.approx(7 / 3), "b": 5.0}
    assert deviations["a"] == pytest.approx(np.std([1, 2, 4], ddof=1)) and np.isnan(deviations["b"])
