"""The biLM: counts, what each direction can see, windows with carry, padding, the residual's quirk, FLOPs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import bilm

KEY = jax.random.key(0)
P = 8


@pytest.fixture(scope="module")
def words():
    """A model over words, its variables with weights large enough that clips and depth matter, and sentences."""
    model = bilm.Model(31, width=12, projection=P, token="words", cell_clip=0.9, projection_clip=0.7)
    tokens = jax.random.randint(KEY, (3, 7), 0, 31)
    variables = model.init(KEY, {"tokens": tokens}, method="touch")
    return model, jax.tree.map(lambda leaf: 2.0 * leaf, variables), tokens


def test_the_published_elmo_has_93_6_million_parameters():
    inputs = {"chars": jnp.zeros((1, 2, 1, 50), jnp.int32)}
    params = jax.eval_shape(lambda: bilm.Model(793_471).init(KEY, inputs, method="touch")["params"])
    features, cell, size = 2048, 4096, 512
    filters = bilm.Model(1).filters
    assert sum(number for _, number in filters) == features
    conv = sum(width * 16 * number + number for width, number in filters)
    highway = 2 * 2 * (features * features + features)
    lstm = 2 * 2 * ((size + size) * 4 * cell + 4 * cell + cell * size)
    assert tree.count(params["head"]) == 793_471 * (size + 1)
    count = tree.count(params) - tree.count(params["head"])
    assert count == 261 * 16 + conv + highway + features * size + size + lstm
    assert round(count / 1e6, 1) == 93.6


def test_parameters_start_as_published():
    model = bilm.Model(500, width=64, projection=32, filters=((1, 40), (3, 60)), max_chars=10)
    params = tree.flatten(model.init(KEY, {"chars": jnp.zeros((1, 2, 1, 10), jnp.int32)}, method="touch")["params"])
    for name, bound in {
        "embed/chars/embedding": 1.0,
        "embed/conv_3/kernel": 0.05,
        "layer_0/lstm/input_kernel": math.sqrt(6 / (64 + 256)),
        "layer_1/lstm/recurrent_kernel": math.sqrt(6 / (64 + 256)),
        "layer_0/lstm/projection": math.sqrt(6 / 96),
    }.items():
        assert 0.97 * bound < float(jnp.abs(params[name]).max()) <= bound, name
        assert float(params[name].std()) == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    for name, deviation in {
        "embed/highway_0/carry/kernel": 0.1,
        "embed/projection/kernel": 0.1,
        "head/softmax/embedding": 1 / math.sqrt(32),
    }.items():
        assert float(params[name].std()) == pytest.approx(deviation, rel=0.05), name
    assert (params["embed/highway_1/carry/bias"] == -2).all()
    assert not params["embed/highway_1/transform/bias"].any() and not params["layer_0/lstm/bias"].any()


def test_the_forward_half_is_blind_to_the_right_and_the_backward_half_to_the_left():
    model, tokens = bilm.Model(31, width=12, projection=P, token="words"), jnp.arange(7)[None]
    params = model.init(KEY, {"tokens": tokens}, method="touch")["params"]

    def halves(table, layer, place):  # each place has a word of its own, so a row of the table is a place
        changed = tree.merge(params, {"embed/tokens/embedding": table})
        hidden = model.apply({"params": changed}, {"tokens": tokens}).hidden[layer][0, place]
        return hidden[:P].sum(), hidden[P:].sum()

    for layer in (1, 2):
        for place in (0, 3, 6):
            table = params["embed"]["tokens"]["embedding"]
            forward, backward = jax.jacrev(functools.partial(halves, layer=layer, place=place))(table)
            seen = lambda gradient: (jnp.abs(gradient).sum(1)[:7] > 0).tolist()
            assert seen(forward) == [other <= place for other in range(7)]
            assert seen(backward) == [other >= place for other in range(7)]


def test_two_half_windows_with_carry_are_the_whole(words):
    model, variables, _ = words
    streams = jax.random.randint(KEY, (3, 2, 8), 0, 31)
    whole = model.apply(variables, {"tokens": streams})
    first = model.apply(variables, {"tokens": streams[:, :, :3]}, model.init_carry(3))
    second = model.apply(variables, {"tokens": streams[:, :, 3:]}, first.carry)
    for layer in range(3):
        both = jnp.concatenate([first.hidden[layer], second.hidden[layer]], axis=2)
        np.testing.assert_allclose(both, whole.hidden[layer], atol=1e-6)
    for one, two in zip(jax.tree.leaves(second.carry), jax.tree.leaves(whole.carry), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert jax.tree.map(jnp.shape, whole.carry) == {"cell": (3, 2, 2, 12), "hidden": (3, 2, 2, P)}
    cold = model.apply(variables, {"tokens": streams[:, :, 3:]})
    assert float(jnp.abs(cold.hidden[2] - whole.hidden[2][:, :, 3:]).max()) > 0.01


def test_in_use_a_sentence_is_read_both_ways(words):
    model, variables, tokens = words
    used = model.apply(variables, {"tokens": tokens})
    streams = model.apply(variables, {"tokens": jnp.stack([tokens, tokens[:, ::-1]], axis=1)})
    for layer in range(3):
        forward, backward = streams.hidden[layer][:, 0], streams.hidden[layer][:, 1, ::-1]
        np.testing.assert_allclose(used.hidden[layer], jnp.concatenate([forward, backward], -1), atol=1e-6)
    assert (used.hidden[0][..., :P] == used.hidden[0][..., P:]).all()


def test_padding_changes_neither_vectors_nor_carry(words):
    model, variables, tokens = words
    lengths = [7, 4, 1]
    mask = jnp.arange(9)[None] < jnp.array(lengths)[:, None]
    carry = jax.tree.map(lambda leaf: leaf + 0.3, model.init_carry(3))
    padded = model.apply(variables, {"tokens": jnp.pad(tokens, ((0, 0), (0, 2))), "mask": mask}, carry)
    for row, length in enumerate(lengths):
        state = {name: leaf[row : row + 1] for name, leaf in carry.items()}
        alone = model.apply(variables, {"tokens": tokens[row : row + 1, :length]}, state)
        for layer in range(3):
            np.testing.assert_allclose(padded.hidden[layer][row, :length], alone.hidden[layer][0], atol=1e-6)
            assert not padded.hidden[layer][row, length:].any()
        for one, two in zip(jax.tree.leaves(padded.carry), jax.tree.leaves(alone.carry)):
            np.testing.assert_allclose(one[row], two[0], atol=1e-6)


def test_the_residual_adds_the_dropped_input_to_the_second_layer_alone(words):
    _, _, tokens = words
    streams = jnp.stack([tokens, tokens], 1)
    model = bilm.Model(31, width=12, projection=P, token="words", dropout=0.5)
    variables = model.init(KEY, {"tokens": streams}, method="touch")
    silent = tree.merge(  # layer 2's LSTM gives 0, so what it returns is its skip
        variables, {"params/layer_1/lstm/projection": jnp.zeros((2, 12, P))}
    )
    plain = model.apply(silent, {"tokens": streams}).hidden
    np.testing.assert_array_equal(plain[2], plain[1])
    assert not model.clone(residual=False).apply(silent, {"tokens": streams}).hidden[2].any()
    dropped = model.apply(silent, {"tokens": streams}, train=True, rngs={"dropout": KEY}).hidden
    ratio = np.asarray(dropped[2] / dropped[1])
    kept = np.abs(ratio) > 0
    # Dropped once on the way in (the skip carries it) and once at the top: a quarter is left, at four times its size.
    np.testing.assert_allclose(ratio[kept], 4.0, rtol=1e-5)
    assert kept.mean() == pytest.approx(0.25, abs=0.1)
    # The first layer has no skip: silence it, and nothing of the words is left.
    first = tree.merge(variables, {"params/layer_0/lstm/projection": jnp.zeros((2, 12, P))})
    assert not model.apply(first, {"tokens": streams}).hidden[1].any()


def test_clips_bound_cell_and_output(words):
    model, variables, tokens = words
    outputs = model.apply(variables, {"tokens": jnp.tile(tokens, (1, 5))})
    assert float(jnp.abs(outputs.carry["cell"]).max()) == pytest.approx(0.9)
    assert float(jnp.abs(outputs.hidden[1]).max()) == pytest.approx(0.7)


def test_bfloat16_is_close_and_its_state_is_f32(words):
    model, variables, tokens = words
    outputs = model.clone(dtype="bfloat16").apply(variables, {"tokens": tokens})
    assert outputs.carry["cell"].dtype == jnp.float32
    assert float(jnp.abs(outputs.hidden[2] - model.apply(variables, {"tokens": tokens}).hidden[2]).max()) < 0.05


def test_flops_are_those_of_the_compiled_products(monkeypatch):
    # Unrolled, and every word through the characters, since the analysis counts the body of a loop once.
    unrolled = lambda low, high, body, start: functools.reduce(
        lambda state, t: body(jnp.int32(t), state), range(low, high), start
    )
    monkeypatch.setattr("ctxjax.models.layers.lstm.jax.lax.fori_loop", unrolled)
    filters = ((1, 16), (2, 32), (3, 64))
    model = bilm.Model(64, width=64, projection=32, filters=filters, max_chars=16, each_distinct=False)
    inputs = {"chars": jnp.zeros((4, 2, 5, 16), jnp.int32)}
    variables = jax.eval_shape(lambda: model.init(KEY, inputs, method="touch"))

    def run(variables):
        hidden = model.apply(variables, inputs).hidden[-1]
        rows, table, bias = model.apply(variables, hidden.reshape(-1, 32), method="readout")
        return rows @ table.T + bias[None]

    counted = jax.jit(run).lower(variables).cost_analysis()["flops"]
    expected = model.flops({"chars": (4, 2, 5, 16)}) + model.readout_flops(40)
    assert expected < counted and math.isclose(expected, counted, rel_tol=0.08)
