"""Generation: the cache against no cache, what top-k and top-p leave, stopping, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.generation import Sampling, generate, narrow
from ctxjax.models import gpt2

PROMPTS = [np.array([3, 1, 4]), np.array([1]), np.array([5, 9, 2, 6, 5])]


@pytest.fixture(scope="module")
def made():
    model = gpt2.tiny()
    params = model.init(jax.random.key(0), {"tokens": jnp.zeros((1, 4), jnp.int32)}, method="touch")["params"]
    return model, jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 1 else leaf, params)


def test_greedy_with_a_cache_is_greedy_without(made):
    model, params = made
    found = generate(model, params, PROMPTS, 12, stop=-1, sampling=Sampling(temperature=0.0))
    # Causal, so one shape does for all lengths: what is behind the last token changes nothing.
    read = jax.jit(lambda tokens: model.apply({"params": params}, {"tokens": tokens}).hidden[-1][0])
    for prompt, row in zip(PROMPTS, found, strict=True):
        tokens = prompt.tolist()
        for _ in range(12):
            padded = np.zeros((1, model.max_len), np.int32)
            padded[0, : len(tokens)] = tokens
            hidden = read(padded)[len(tokens) - 1]
            tokens.append(int((params["embed"]["tokens"]["embedding"] @ hidden).argmax()))
        assert row.tolist() == tokens[len(prompt) :]
    assert len({tuple(row.tolist()) for row in found}) == 3


def test_it_stops_at_the_stop_token_and_leaves_it_out(made):
    model, params = made
    whole = generate(model, params, PROMPTS, 12, stop=-1, sampling=Sampling(temperature=0.0))
    stop = int(whole[0][4])
    for row, cut in zip(whole, generate(model, params, PROMPTS, 12, stop=stop, sampling=Sampling(temperature=0.0))):
        end = np.flatnonzero(row == stop)
        assert cut.tolist() == row[: end[0] if len(end) else 12].tolist()


def test_seeds_repeat_and_differ(made):
    model, params = made
    runs = [generate(model, params, PROMPTS, 10, stop=-1, seed=seed) for seed in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1]))
    assert any(not np.array_equal(a, b) for a, b in zip(runs[0], runs[2]))
    cold = generate(model, params, PROMPTS, 10, stop=-1, seed=5, sampling=Sampling(top_k=1))
    greedy = generate(model, params, PROMPTS, 10, stop=-1, sampling=Sampling(temperature=0.0))
    assert all(np.array_equal(a, b) for a, b in zip(cold, greedy))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 2, 3]),
        (Sampling(top_k=2), [1, 3]),
        (Sampling(top_k=9), [0, 1, 2, 3]),
        (Sampling(top_p=0.81), [1, 3]),  # 0.5 + 0.3
        (Sampling(top_p=0.79), [3]),
        (Sampling(top_p=0.1), [3]),
        (Sampling(top_k=3, top_p=0.9), [1, 3]),  # of three: 0.526 + 0.316 + 0.158
    ],
)
def test_what_is_left_to_draw_from(sampling, kept):
    probabilities = jnp.array([[0.05, 0.3, 0.15, 0.5]])
    left = narrow(jnp.log(probabilities), sampling)
    assert np.flatnonzero(np.isfinite(left[0])).tolist() == kept
    warm = narrow(jnp.log(probabilities), sampling._replace(temperature=2.0, top_p=1.0, top_k=0))
    np.testing.assert_allclose(jax.nn.softmax(warm), probabilities**0.5 / (probabilities**0.5).sum(), rtol=1e-5)


def test_draws_follow_the_model(made):
    """First tokens of many rows, against the model's own probabilities."""
    model, params = made
    hidden = model.apply({"params": params}, {"tokens": jnp.array([[7, 3]], jnp.int32)}).hidden[-1][0, -1]
    wanted = np.asarray(jax.nn.softmax(params["embed"]["tokens"]["embedding"] @ hidden))
    drawn = [int(row[0]) for row in generate(model, params, [np.array([7, 3])] * 4000, 1, stop=-1, seed=3)]
    counts = np.bincount(drawn, minlength=len(wanted)) / len(drawn)
    assert abs(counts - wanted).max() < 5 * np.sqrt(0.25 / len(drawn))


def test_limits(made):
    model, params = made
    with pytest.raises(ConfigError, match="over the 24 that this model reads"):
        generate(model, params, PROMPTS, 20, stop=0)
    with pytest.raises(ConfigError, match="0 < top_p <= 1"):
        generate(model, params, PROMPTS, 2, stop=0, sampling=Sampling(top_p=0.0))
    with pytest.raises(ConfigError, match="a token in every prompt"):
        generate(model, params, [np.array([], int)], 2, stop=0)
