"""Dropout, attention, LayerNorm and the initialiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models.layers.attention import attention
from ctxjax.models.layers.core import Embed, LayerNorm, truncated_normal
from ctxjax.models.layers.dropout import dropout, keep_mask, keyed_bits, stream, substream

KEY = jax.random.key(3)
STREAM = stream(KEY)


def data(seed: int) -> jax.Array:
    return stream(jax.random.key(seed))


def test_the_initialiser_cuts_at_two_deviations_and_does_not_scale_up():
    drawn = np.asarray(truncated_normal(0.02)(KEY, (400, 500), "float32"))
    assert abs(drawn).max() <= 0.04
    assert drawn.std() == pytest.approx(0.02 * 0.87962566, rel=0.01)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_at_its_rate_everywhere_and_keeps_the_mean(rate):
    shape = (64, 50, 40)
    kept = np.asarray(keep_mask(data(0), shape, rate))
    deviation = np.sqrt(rate * (1 - rate))
    for axes in ((0, 1, 2), (1, 2), (0, 2), (0, 1)):  # every row, place and column by itself
        share = kept.mean(axes)
        count = kept.size / np.size(share)
        assert abs(np.asarray(share) - (1 - rate)).max() < 5 * deviation / np.sqrt(count)
    out = dropout(jnp.ones(shape), rate, STREAM, "here")
    assert set(np.unique(out)) == {0.0, np.float32(1 / (1 - rate))}
    assert float(out.mean()) == pytest.approx(1.0, abs=5 * deviation / (1 - rate) / np.sqrt(out.size))


def test_bits_of_neighbours_rows_and_keys_are_uncorrelated():
    bits = {seed: np.asarray(keyed_bits(data(seed), (256, 512))) for seed in (0, 1)}
    centred = {seed: value / 2**32 - 0.5 for seed, value in bits.items()}
    limit = 6 / np.sqrt(256 * 500)
    first = centred[0]
    for shift in (1, 2, 3, 16, 64, 128, 256):
        assert abs(np.corrcoef(first[:, :-shift].ravel(), first[:, shift:].ravel())[0, 1]) < limit
    for shift in (1, 2, 4, 64):
        assert abs(np.corrcoef(first[:-shift].ravel(), first[shift:].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(first.ravel(), centred[1].ravel())[0, 1]) < limit
    for bit in range(32):  # each of the 32 bits is a fair coin, and no two rows are alike
        assert abs(((bits[0] >> np.uint32(bit)) & 1).mean() - 0.5) < 3 / np.sqrt(bits[0].size)
    assert len(np.unique(bits[0], axis=0)) == 256


def test_streams_of_names_are_as_unlike_as_those_of_keys():
    names = [f"layer_{index}" for index in range(24)] + ["embed", "attention", "attention_out", "mlp_out", "top"]
    streams = [substream(data(0), name) for name in names]
    streams += [substream(one, name) for one in streams[:24] for name in names[24:]] + [
        data(seed) for seed in range(30)
    ]
    bits = np.stack([np.asarray(keyed_bits(one, (4, 500))).ravel() for one in streams]) / 2**32
    between = np.corrcoef(bits)
    assert abs(between - np.eye(len(streams))).max() < 6.5 / np.sqrt(2000)


def test_dropout_differs_by_name_and_key_and_repeats_itself():
    x = jnp.ones((4, 100))
    one = dropout(x, 0.3, STREAM, "a")
    assert (one == dropout(x, 0.3, STREAM, "a")).all()
    assert (one != dropout(x, 0.3, STREAM, "b")).any()
    assert (one != dropout(x, 0.3, data(4), "a")).any()
    assert dropout(x, 0.3, None, "a") is x and dropout(x, 0.0, STREAM, "a") is x


def test_the_gradient_of_dropout_goes_through_the_same_mask():
    x = jax.random.normal(KEY, (8, 30))
    out, pull = jax.vjp(lambda x: dropout(x, 0.4, STREAM, "a"), x)
    (gradient,) = pull(jnp.ones_like(x))
    np.testing.assert_allclose(gradient, jnp.where(out == 0, 0.0, 1 / 0.6), rtol=1e-6)


def oracle(query, key, value, mask):
    scores = np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(query.shape[-1])
    scores = scores + np.where(mask, 0.0, -10000.0)[:, None, None, :]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bshk->bthk", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("implementation", [None, "xla", "einsum"])
def test_attention_is_the_formula_with_the_mask_on_keys_alone(implementation):
    query, key, value = (np.asarray(jax.random.normal(k, (2, 5, 3, 4))) for k in jax.random.split(KEY, 3))
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    out = attention(*map(jnp.asarray, (query, key, value, mask)), implementation=implementation)
    np.testing.assert_allclose(out, oracle(query, key, value, mask), atol=2e-6)
    changed = np.where(mask[:, :, None, None], value, 7.0)
    np.testing.assert_allclose(oracle(query, key, changed, mask), out, atol=2e-6)


def test_a_row_without_any_key_gives_the_mean_and_no_nan():
    query = jax.random.normal(KEY, (1, 3, 1, 2))
    out = attention(query, query, query, jnp.zeros((1, 3), bool))
    assert np.isfinite(out).all()


def test_dropout_of_attention_keeps_its_expectation():
    query, key, value = (jax.random.normal(k, (1, 4, 1, 4)) for k in jax.random.split(KEY, 3))
    many = jax.vmap(lambda key_: attention(query, key, value, rate=0.5, rng=stream(key_)))(jax.random.split(KEY, 3000))
    plain = attention(query, key, value, implementation="einsum")
    assert float(jnp.abs(many - plain[None]).max()) > 0.1
    np.testing.assert_allclose(many.mean(0), plain, atol=5 * float(many.std(0).max()) / np.sqrt(3000))


def test_layer_norm_is_exact_where_the_mean_is_large():
    x = jax.random.normal(KEY, (4, 6, 32)) + 1000.0
    out = LayerNorm(32).apply({"params": {"scale": jnp.full(32, 2.0), "bias": jnp.ones(32)}}, x)
    wide = np.asarray(x, np.float64)
    expected = 2 * (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-12) + 1
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_few_is_the_same_lookup():
    table = jax.random.normal(KEY, (3, 8))
    ids = jnp.array([[0, 2], [1, 1]])
    embed = Embed(3, 8)
    few = embed.apply({"params": {"embedding": table}}, ids, method="few")
    assert (few == embed.apply({"params": {"embedding": table}}, ids)).all()
