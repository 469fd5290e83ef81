"""Each distinct word once: the same values and gradients as all words, whatever the hash does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models.layers import char_cnn, distinct
from ctxjax.models.layers.encoders import CharEncoder

SIZE, PAD = 18, 260


def words(count, groups, length, seed=0, longest=SIZE):
    """`[groups length SIZE]` characters of `count` different words, one of them as long as it can be, one empty."""
    rng = np.random.default_rng(seed)
    spelling = np.full((count, SIZE), PAD, np.int32)
    for row in range(count):
        letters = {0: longest, 1: 0}.get(row, int(rng.integers(1, longest)))
        spelling[row, :letters] = rng.integers(0, 256, letters)
    chosen = rng.integers(0, count, (groups, length))
    chosen[:, :2] = [0, 1]
    return jnp.asarray(spelling[chosen]), chosen


@pytest.mark.parametrize(("groups", "length"), [(1, 40), (4, 9), (2, 1)])
def test_distinct_finds_each_word_once_and_the_way_back(groups, length):
    chars, chosen = words(12, groups, max(length, 2))
    found = distinct.distinct(chars)
    back = jnp.take_along_axis(found.chars, found.slots[:, :, None], axis=1)
    assert (back == chars).all()
    for group in range(groups):
        assert int(found.counts[group]) == len(set(chosen[group]))
        assert int(found.slots[group].max()) == int(found.counts[group]) - 1
    lengths = np.asarray(found.lengths)
    assert (np.diff(lengths, axis=1) >= 0).all()
    assert (lengths == np.asarray(distinct.word_lengths(found.chars))).all()


def test_the_length_of_a_word_needs_no_name_for_padding():
    rows = jnp.array([[[5, 6, 7, 7], [0, 0, 0, 0], [1, 2, 3, 4], [9, 260, 260, 260]]])
    assert distinct.word_lengths(rows).tolist() == [[2, 0, 3, 1]]


def test_a_collision_of_hashes_makes_every_position_its_own_word(monkeypatch):
    chars, _ = words(12, 3, 20)
    chars = chars.at[1].set(chars[1, :1])  # a group with one word cannot collide
    monkeypatch.setattr(distinct, "word_hash", lambda chars: jnp.zeros(chars.shape[:2], jnp.uint32))
    monkeypatch.setattr(distinct, "word_lengths", lambda chars: jnp.zeros(chars.shape[:2], jnp.int32))
    found = distinct.distinct(chars)
    assert found.counts.tolist() == [20, 1, 20]
    assert (jnp.take_along_axis(found.chars, found.slots[:, :, None], axis=1) == chars).all()


def encoder(each_distinct, activation="relu", highways=1, groups=2, dtype="float32"):
    kinds = {"dtype": dtype, "param_dtype": "float32"}
    filters = ((1, 3), (4, 5))
    return CharEncoder(6, 261, 4, SIZE, filters, highways, activation, groups, each_distinct, kinds)


def value_and_gradient(module, params, chars):
    weights = jax.random.normal(jax.random.key(9), (*chars.shape[:-1], 6))
    loss = lambda params: (module.apply({"params": params}, {"chars": chars}) * weights).sum()
    values = module.apply({"params": params}, {"chars": chars})
    return values, jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("case", ["long", "short", "all_different", "collision", "tanh"])
def test_values_and_gradients_equal_those_of_all_words(case, monkeypatch):
    monkeypatch.setattr(char_cnn, "CHUNK", 8)  # several chunks, the last one not full
    monkeypatch.setattr(char_cnn, "BLOCK", 5)
    monkeypatch.setattr(char_cnn, "SIZES", (3, 7, 16))  # one of which each case takes
    count, longest = {"all_different": (400, SIZE), "short": (12, 6)}.get(case, (12, SIZE))
    chars, _ = words(count, 4, 15, longest=longest)
    if case == "collision":
        monkeypatch.setattr(distinct, "word_hash", lambda chars: jnp.zeros(chars.shape[:2], jnp.uint32))
    options = {"activation": "tanh", "highways": 0, "groups": 1} if case == "tanh" else {}
    plain, fast = encoder(False, **options), encoder(True, **options)
    params = plain.init(jax.random.key(0), {"chars": chars})["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    for one, two in zip(*(jax.tree.leaves(value_and_gradient(m, params, chars)) for m in (plain, fast)), strict=True):
        assert float(jnp.abs(one).max()) > 0
        np.testing.assert_allclose(one, two, atol=2e-4, rtol=2e-5)


def test_rows_over_eight_devices_give_the_same():
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    devices = jax.device_count()
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    chars, _ = words(10, 2 * devices, 6)
    module = encoder(True, groups=devices)
    params = module.init(jax.random.key(0), {"chars": chars})["params"]
    expected = value_and_gradient(encoder(False, groups=devices), params, chars)
    spread = jax.device_put(chars, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    for one, two in zip(jax.tree.leaves(value_and_gradient(module, params, spread)), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, two, atol=2e-4, rtol=2e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"model\.max_chars=18"):
        encoder(True).init(jax.random.key(0), {"chars": jnp.zeros((2, 3, 7), jnp.int32)})
    with pytest.raises(ValueError, match=r"model\.groups=3"):
        encoder(True, groups=3).init(jax.random.key(0), {"chars": jnp.zeros((2, 3, SIZE), jnp.int32)})
