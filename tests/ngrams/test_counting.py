"""Counts against dictionaries, and the same whether they fit in memory or not."""

import collections

import numpy as np
import pytest

from ctxjax.ngrams import counting
from tests.ngrams import oracle


def count(sentences, order, folder, vocab=9, rows=1 << 20, at_once=7):
    counter = counting.Counter(order, vocab, oracle.BOS, oracle.EOS, folder, rows)
    for start in range(0, len(sentences), at_once):
        part = sentences[start : start + at_once]
        counter.add(np.concatenate(part), np.array([len(one) for one in part]))
    return counting.all_orders(counter.finish(), order, oracle.BOS), counter


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_counts_and_extensions(order, tmp_path):
    sentences = oracle.text()
    grams, counter = count(sentences, order, tmp_path)
    raw = oracle.raw_counts(sentences, order)
    assert counter.events == sum(len(one) + 1 for one in sentences)
    for k, (found, expected, extensions) in enumerate(zip(grams, raw, oracle.adjusted_counts(raw))):
        rows = [tuple(row) for row in found.words.tolist()]
        assert found.words.shape[1] == k + 1 and len(set(rows)) == len(rows)
        assert dict(zip(rows, found.count.tolist())) == dict(expected)
        assert dict(zip(rows, found.extensions.tolist())) == dict(extensions)


@pytest.mark.parametrize("vocab", [9, 65_535, 3_000_000])  # one, two and three n-grams a column, or fewer words each
def test_spilling_changes_nothing(vocab, tmp_path):
    sentences = [np.where(one == 8, vocab - 1, one) for one in oracle.text(sentences=200)]
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole, _ = count(sentences, 5, folders[0], vocab)
    parts, counter = count(sentences, 5, folders[1], vocab, rows=100)
    assert len(list(folders[1].glob("run-*-0.npy"))) > 5 and len(list(counter.finish())) > 5
    for one, two in zip(whole, parts):
        for left, right in zip(one, two):
            np.testing.assert_array_equal(left, right)


def test_no_range_of_the_merge_is_much_larger_than_memory(tmp_path):
    """Ranges are cut where few rows share a first column; here none does."""
    rng = np.random.default_rng(0)
    sentences = [rng.integers(2, 50_000, 20) for _ in range(2_000)]
    counter = counting.Counter(3, 50_000, oracle.BOS, oracle.EOS, tmp_path, rows=2_000)
    for one in sentences:
        counter.add(one, np.array([len(one)]))
    sizes = [len(rows) for rows, _ in counter.finish()]
    assert sum(sizes) > 40_000 and max(sizes) < 2 * 2_000


def test_no_text_at_all(tmp_path):
    grams, _ = count([], 3, tmp_path)
    assert [len(gram.words) for gram in grams] == [0, 0, 0]
    grams, _ = count([np.zeros(0, np.int32)], 2, tmp_path)
    assert grams[1].words.tolist() == [[oracle.BOS, oracle.EOS]] and grams[1].count.tolist() == [1]


def test_events_are_the_word_and_what_is_before_it():
    rows = counting.events(np.array([5, 6, 7]), np.array([2, 0, 1]), 3, 0, 1)
    assert rows.tolist() == [[6, 1, 0], [7, 6, 1], [2, 7, 6], [2, 1, 0], [8, 1, 0], [2, 8, 1]]
    assert collections.Counter(rows[:, 0].tolist())[2] == 3
