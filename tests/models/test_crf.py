"""The CRF against every path written out, its marginals by gradient, and constraints of a tag scheme."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models.layers import crf

B, T, N = 5, 4, 3
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)  # with holes, and empty
HERE = jnp.asarray(MASK)


def example(seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return make(B, T, N), crf.Chain(make(N, N), make(N), make(N))


def every_path(emissions, chain, mask):
    """`{path: score}` of one row, in f64; the positions that count alone."""
    rows = np.asarray(emissions, np.float64)[mask]
    found = {}
    for path in itertools.product(range(N), repeat=len(rows)):
        score = sum(row[tag] for row, tag in zip(rows, path))
        score += sum(float(chain.transitions[one, two]) for one, two in itertools.pairwise(path))
        found[path] = score + (float(chain.start[path[0]] + chain.end[path[-1]]) if path else 0.0)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_against_every_path(seed):
    emissions, chain = example(seed)
    tags = np.random.default_rng(seed).integers(0, N, (B, T)).astype(np.int32)
    total = jax.jit(crf.log_partition)(emissions, chain, HERE)
    score = jax.jit(crf.path_score)(emissions, chain, jnp.where(HERE, tags, 99), HERE)
    nll = crf.negative_log_likelihood(emissions, chain, jnp.asarray(tags), HERE)
    best, best_score = jax.jit(crf.viterbi)(emissions, chain, HERE)
    for row in range(B):
        paths = every_path(emissions[row], chain, MASK[row])
        expected = np.log(np.sum(np.exp(list(paths.values()))))
        assert float(total[row]) == pytest.approx(expected, abs=1e-5)
        assert float(score[row]) == pytest.approx(paths[tuple(tags[row][MASK[row]])], abs=1e-5)
        assert float(nll[row]) == pytest.approx(expected - paths[tuple(tags[row][MASK[row]])], abs=1e-5)
        winner = max(paths, key=paths.get)
        assert tuple(np.asarray(best[row])[MASK[row]].tolist()) == winner
        assert float(best_score[row]) == pytest.approx(paths[winner], abs=1e-5)
        assert not np.asarray(best[row])[~MASK[row]].any()


def test_gradients_are_marginals():
    """d log Z / d emission is the probability of a tag at a position, d log Z / d transition expected uses of it."""
    emissions, chain = example(7)
    by_emission, by_chain = jax.grad(lambda *args: crf.log_partition(*args, HERE).sum(), (0, 1))(emissions, chain)
    np.testing.assert_allclose(by_emission.sum(-1), MASK, atol=1e-5)
    assert (np.asarray(by_emission)[MASK] > 0).all()
    assert float(by_chain.transitions.sum()) == pytest.approx(np.maximum(MASK.sum(1) - 1, 0).sum(), abs=1e-4)
    assert float(by_chain.start.sum()) == pytest.approx(4, abs=1e-5)
    paths = every_path(emissions[1], chain, MASK[1])
    law = np.exp(np.array(list(paths.values())))
    expected = sum(share for path, share in zip(paths, law / law.sum()) if path[1] == 2)
    assert float(by_emission[1, 1, 2]) == pytest.approx(expected, abs=1e-5)


def test_without_a_mask_all_positions_count():
    emissions, chain = example(1)
    whole = jnp.ones((B, T), bool)
    np.testing.assert_array_equal(crf.log_partition(emissions, chain), crf.log_partition(emissions, chain, whole))
    np.testing.assert_array_equal(crf.viterbi(emissions, chain)[0], crf.viterbi(emissions, chain, whole)[0])


def test_what_is_forbidden_is_never_on_a_path():
    emissions, chain = example(2)
    allowed = (np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], bool), np.array([1, 0, 1], bool), np.array([0, 1, 1], bool))
    held = crf.constrain(chain, tuple(map(jnp.asarray, allowed)))
    for row in range(B):
        paths = every_path(emissions[row], chain, MASK[row])
        legal = {
            path: score
            for path, score in paths.items()
            if all(allowed[0][one, two] for one, two in itertools.pairwise(path))
            and (not path or (allowed[1][path[0]] and allowed[2][path[-1]]))
        }
        if not legal:
            continue
        one = slice(row, row + 1)
        total = np.log(np.sum(np.exp(list(legal.values()))))
        assert float(crf.log_partition(emissions[one], held, HERE[one])[0]) == pytest.approx(total, abs=1e-4)
        best = np.asarray(crf.viterbi(emissions[one], held, HERE[one])[0])[0][MASK[row]]
        assert tuple(best.tolist()) == max(legal, key=legal.get)


def test_sums_are_in_f32():
    emissions, chain = example(3)
    low = jnp.asarray(100 * emissions, jnp.bfloat16)
    total = crf.log_partition(low, chain)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, crf.log_partition(low.astype(jnp.float32), chain), rtol=1e-6)
