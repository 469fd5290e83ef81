"""Probabilities against the textbook's recursion, ratios of counts, and what must hold of any distribution."""

import itertools

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.ngrams import smoothing
from ctxjax.ngrams.model import NGrams
from tests.ngrams import oracle
from tests.ngrams.test_counting import count

VOCAB = 9
CONTEXTS = [[0], [0, 3], [0, 4, 5], [0, 5, 5, 6, 3], [0, 8, 8, 8, 8, 8, 8]]


def fit(order, folder, smoothing_name="kneser_ney", k=0.5, sentences=None):
    sentences = oracle.text() if sentences is None else sentences
    grams, _ = count(sentences, order, folder)
    tables, notes = smoothing.estimate(grams, VOCAB, oracle.BOS, smoothing_name, k)
    return NGrams(tables, VOCAB, order, oracle.BOS, oracle.EOS, smoothing_name, k), grams, notes


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_is_the_textbooks(order, tmp_path):
    sentences = oracle.text(sentences=60)
    model, grams, _ = fit(order, tmp_path, sentences=sentences)
    discounts = []
    for k, gram in enumerate(grams):
        counts = gram.extensions[gram.words[:, -1] != oracle.BOS] if k == 0 else gram.extensions
        discounts.append(smoothing.discounts(counts)[0])
    expected = oracle.KneserNey(sentences, order, VOCAB, discounts)
    for context in CONTEXTS:
        values = np.exp(model.next_log_probs(context))
        for word in range(1, VOCAB):
            assert values[word] == pytest.approx(expected.prob(context, word), rel=2e-6), (context, word)


def test_discounts_by_the_published_formula():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 10, 5])
    y = 100 / 180
    found, told = smoothing.discounts(counts)
    assert told
    np.testing.assert_allclose(found, [1 - 2 * y * 40 / 100, 2 - 3 * y * 20 / 40, 3 - 4 * y * 10 / 20])
    assert smoothing.discounts(np.array([1, 1, 2, 3])) == (pytest.approx(smoothing.FALLBACK), False)


def test_where_the_counts_tell_no_discounts_it_is_said(tmp_path):
    _, _, notes = fit(2, tmp_path)
    assert any("order 1: the counts of counts give no discounts" in note for note in notes)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("name", smoothing.SMOOTHINGS)
def test_is_a_distribution_and_scores_agree_with_it(order, name, tmp_path):
    model, _, _ = fit(order, tmp_path, name)
    for context in CONTEXTS:
        values = model.next_log_probs(context)
        seen = not np.isneginf(values).all()
        if seen:
            assert np.exp(values).sum() == pytest.approx(1.0, abs=1e-6)
        assert values[oracle.BOS] == -np.inf
        scored = [model.log_probs([np.array([*context[1:], word])])[0][len(context) - 1] for word in range(2, VOCAB)]
        np.testing.assert_allclose(np.exp(scored), np.exp(values[2:]), rtol=1e-6)


def test_add_k_and_maximum_likelihood_are_ratios_of_counts(tmp_path):
    sentences = [np.array([2, 3, 2, 3]), np.array([2, 4])]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ml, _, _ = fit(2, tmp_path / "a", "ml", sentences=sentences)
    assert np.exp(ml.next_log_probs([0, 2])[[3, 4, 5]]) == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert np.exp(ml.log_probs([np.array([2, 3])])[0]) == pytest.approx([1.0, 2 / 3, 1 / 2])
    add, _, _ = fit(2, tmp_path / "b", "add_k", k=0.25, sentences=sentences)
    assert np.exp(add.next_log_probs([0, 2])[[3, 4, 5]]) == pytest.approx([2.25 / (3 + 0.25 * 8), 1.25 / 5, 0.25 / 5])
    assert np.exp(add.next_log_probs([0, 7])[1:]) == pytest.approx(np.full(8, 1 / 8))  # never seen: all alike


def test_add_k_ignores_the_counts_behind_the_sentence_mark(tmp_path):
    """The sentence mark is no word that could come: the others share what it does not get."""
    model, _, _ = fit(3, tmp_path, "add_k", k=1.0)
    for context in itertools.product([0], range(2, VOCAB)):
        assert np.exp(model.next_log_probs(context)[1:]).sum() == pytest.approx(1.0)


def test_impossible_values_are_named(tmp_path):
    grams, _ = count(oracle.text(), 2, tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'kneser_ney'"):
        smoothing.estimate(grams, VOCAB, oracle.BOS, "knesr_ney")
    with pytest.raises(ConfigError, match=r"config.model.k=0.0 must be more than 0"):
        smoothing.estimate(grams, VOCAB, oracle.BOS, "add_k", 0.0)


def test_sampling_follows_the_distribution(tmp_path):
    model, _, _ = fit(2, tmp_path)
    rng = np.random.default_rng(0)
    first = [model.sample([3], 1, rng) for _ in range(4000)]
    share = np.mean([one == [4] for one in first])
    assert share == pytest.approx(np.exp(model.next_log_probs([0, 3])[4]), abs=0.02)
    greedy = model.sample([3], 1, rng, temperature=0.0)
    best = int(model.next_log_probs([0, 3]).argmax())
    assert greedy == ([] if best == oracle.EOS else [best])
