"""Keyed draws: pinned words, uniformity, true permutations, binomial coins."""

import numpy as np
import pytest
from scipy import stats

from ctxjax.data import draws


def test_words_of_the_generator_are_those_of_splitmix64():
    # The first outputs of Vigna's reference splitmix64.c for the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draws.bits(1234567, np.arange(4)).tolist() == expected
    assert [draws.fold(1234567, counter) for counter in range(4)] == expected


def test_keys_of_arrays_are_keys_of_integers():
    keys = np.array([3, 2**64 - 1, 12345678901234567890], np.uint64)
    got = draws.bits(keys[:, None], np.arange(5)[None])
    assert got.tolist() == [[draws.fold(int(key), counter) for counter in range(5)] for key in keys]


def test_keys_do_not_depend_on_the_process():
    assert draws.key("mask", 0, 1) == draws.key("mask", np.int64(0), 1) == 8919386130283014601
    assert (
        len({draws.key("mask", 0, 1), draws.key("mask", 1, 0), draws.key("mask", 0), draws.key("mas", "k", 0, 1)}) == 4
    )


def test_below_is_uniform():
    drawn = draws.below(draws.key("a test"), np.arange(70_000), 7)
    assert stats.chisquare(np.bincount(drawn, minlength=7)).pvalue > 1e-4


@pytest.mark.parametrize("flips", [1, 3, 64, 65, 200])
def test_coins_are_binomial(flips):
    heads = draws.coins(draws.key("coins"), np.arange(20_000), np.full(20_000, flips))
    assert heads.min() >= 0 and heads.max() <= flips
    assert abs(heads.mean() - flips / 2) < 5 * np.sqrt(flips / 4 / 20_000)
    assert abs(heads.var() / (flips / 4) - 1) < 0.06


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 1000, 4097])
def test_permute_is_a_permutation(count):
    seen = draws.permute(draws.key("order", count), np.arange(count), count)
    assert sorted(seen.tolist()) == list(range(count))
    assert draws.permute(draws.key("order", count), np.array([count - 1]), count)[0] == seen[-1]


def test_permute_mixes():
    # Where element 0 lands over many keys is uniform, and the order of one key shows no trend.
    landed = [int(draws.permute(draws.key(seed), np.array([0]), 10)[0]) for seed in range(5000)]
    assert stats.chisquare(np.bincount(landed, minlength=10)).pvalue > 1e-4
    order = draws.permute(draws.key("trend"), np.arange(5000), 5000)
    assert abs(stats.spearmanr(np.arange(5000), order).statistic) < 5 / np.sqrt(5000)
    assert abs(stats.spearmanr(order[:-1], order[1:]).statistic) < 5 / np.sqrt(5000)


def test_permutation_is_a_permutation():
    order = draws.permutation(draws.key("whole"), 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != draws.permutation(draws.key("other"), 1000).tolist()
