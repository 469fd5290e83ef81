"""The head of coreference against loops over spans, and its objective against sums of probabilities."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.evaluators.coreference import linked
from ctxjax.models.layers.coreference import BUCKETS, Coreference
from ctxjax.objectives.coreference import negative_log_likelihood

KINDS = {"dtype": "float32", "param_dtype": "float32"}
LENGTHS, SENTENCES = (7, 5), (3, 2)  # words of two documents, and of their first sentences


def applied(head, *inputs):
    """Random parameters, without running initialisers, and what the head makes of some inputs with them."""
    draw = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), *inputs)["params"])
    params = jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape), jnp.float32), shapes)
    ranked = jax.jit(lambda params, *inputs: head.apply({"params": params}, *inputs))(params, *inputs)
    return jax.tree.map(np.asarray, params), ranked


@pytest.fixture(scope="module")
def made():
    head = Coreference(5, 0, KINDS, width=6, feature_dim=3, max_width=3, ratio=0.9, max_antecedents=3)
    draw = np.random.default_rng(0)
    words = draw.normal(size=(2, 7, 5)).astype(np.float32)
    mask = np.arange(7)[None] < np.array(LENGTHS)[:, None]
    sentences = (np.arange(7)[None] >= np.array(SENTENCES)[:, None]).astype(np.int32)
    inputs = tuple(map(jnp.asarray, (words, mask, sentences)))
    params, ranked = applied(head, *inputs)
    return params, words, ranked


def score(params, x):
    for name in ("layer_0", "layer_1"):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
    return (x @ params["out"]["kernel"] + params["out"]["bias"])[0]


def test_against_loops(made):
    params, words, ranked = made
    for row, (length, border) in enumerate(zip(LENGTHS, SENTENCES)):
        spans = {}
        for start, width in itertools.product(range(length), range(1, 4)):
            stop = start + width
            if stop <= length and (start < border) == (stop - 1 < border):
                here = words[row, start:stop]
                heads = np.array([score(params["attention"], word) for word in here])
                shares = np.exp(heads - heads.max()) / np.exp(heads - heads.max()).sum()
                parts = [here[0], here[-1], shares @ here, params["widths"]["embedding"][width - 1]]
                vector = np.concatenate(parts)
                spans[start, stop] = (score(params["mention"], vector), vector)
        kept = sorted(sorted(spans, key=lambda span: -spans[span][0])[: math.ceil(0.9 * 7)])
        valid = np.asarray(ranked.valid[row])
        assert valid.sum() == len(kept) == 7
        found = [(int(one), int(two)) for one, two in zip(ranked.starts[row], ranked.stops[row])]
        assert found == kept
        for number, span in enumerate(kept):
            links = {}
            for other, before in enumerate(kept[:number]):
                (one, ours), (two, theirs) = spans[span], spans[before]
                coarse = one + two + ours @ params["coarse"]["kernel"] @ theirs
                bucket = max(place for place, begin in enumerate(BUCKETS) if number - other >= begin)
                pair = [ours, theirs, ours * theirs, params["distances"]["embedding"][bucket]]
                links[other] = (coarse, coarse + score(params["antecedent"], np.concatenate(pair)))
            best = sorted(links, key=lambda other: -links[other][0])[:3]
            scores = np.asarray(ranked.scores[row, number])
            assert scores[0] == 0.0 and (scores[1 + len(best) :] < -1e29).all()
            assert ranked.antecedents[row, number, : len(best)].tolist() == best
            np.testing.assert_allclose(scores[1 : 1 + len(best)], [links[one][1] for one in best], rtol=2e-4, atol=2e-4)


def test_spans_that_are_none_are_marked():
    """A document of one word has one span, whatever is kept."""
    head = Coreference(4, 0, KINDS, width=4, feature_dim=2, max_width=2, ratio=1.0)
    words = jnp.ones((1, 3, 4))
    mask = jnp.array([[True, False, False]])
    ranked = applied(head, words, mask, jnp.zeros((1, 3), jnp.int32))[1]
    assert ranked.valid.tolist() == [[True, False, False]] and ranked.scores.shape == (1, 3, 4)
    assert (np.asarray(ranked.scores[0, :, 1:])[:1] < -1e29).all() and np.isfinite(np.asarray(ranked.scores)).all()


def test_the_likelihood_is_of_all_antecedents_of_the_entity():
    scores = np.array([[[0.0, -1e30, -1e30], [0.0, 1.0, -1e30], [0.0, 0.5, -0.5], [0.0, 2.0, 1.0]]], np.float32)
    antecedents = np.array([[[0, 0], [0, 0], [1, 0], [2, 0]]], np.int32)
    entities = np.array([[4, 0, 4, 4]], np.int32)
    powers = np.exp(scores[0])
    expected = -np.log([1.0, powers[1, 0] / powers[1].sum(), powers[2, 2] / powers[2].sum(), 1 - 1 / powers[3].sum()])
    valid = np.array([[True, True, True, True]])
    total = negative_log_likelihood(*map(jnp.asarray, (scores, antecedents, entities, valid)))
    assert float(total) == pytest.approx(expected.sum(), rel=1e-5)
    some = negative_log_likelihood(
        *map(jnp.asarray, (scores, antecedents, entities, valid & [True, True, True, False]))
    )
    assert float(some) == pytest.approx(expected[:3].sum(), rel=1e-5)


def test_links_become_clusters():
    starts, stops = np.array([0, 2, 3, 5, 7]), np.array([1, 3, 5, 6, 9])
    antecedents = np.array([[0, 0], [0, 0], [1, 0], [0, 1], [3, 2]])
    scores = np.array([[0, -9, -9], [0, -1, -9], [0, 2, 1], [0, 0.5, 0.1], [0, 1, 3]], np.float32)
    valid = np.array([True] * 5)
    assert linked(starts, stops, valid, antecedents, scores) == [[(0, 1), (5, 6)], [(2, 3), (3, 5), (7, 9)]]
    valid[4] = False
    assert linked(starts, stops, valid, antecedents, scores)[1] == [(2, 3), (3, 5)]
