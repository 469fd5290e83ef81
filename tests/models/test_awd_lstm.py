"""AWD-LSTM: published counts, the forward pass written down again, what is dropped and when, windows and state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import awd_lstm
from ctxjax.models.layers.dropout import keep_mask, stream, substream
from ctxjax.objectives import causal_lm
from ctxjax.step import Forward
from tests.programs.test_plan import products

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def made():
    model = awd_lstm.tiny()
    tokens = jax.random.randint(KEY, (3, 9), 0, model.vocab_size)
    params = model.init(KEY, {"tokens": tokens}, method="touch")["params"]
    return model, params, tokens


@pytest.mark.parametrize(("words", "count"), [(10_000, 24_221_600), (33_278, 33_556_078)], ids=["ptb", "wt2"])
def test_parameters_are_the_published_number(words, count):
    model = awd_lstm.Model(vocab_size=words)
    inputs = {"tokens": jnp.zeros((1, 1), jnp.int32)}
    assert tree.count(jax.eval_shape(lambda: model.init(KEY, inputs, method="touch")["params"])) == count


def test_initial_values_are_the_published_ones(made):
    _, params, _ = made
    leaves = {name: np.asarray(leaf) for name, leaf in tree.flatten(params).items()}
    assert not leaves.pop("head/softmax/bias").any()
    for name, leaf in leaves.items():
        limit = 0.1 if name.startswith("embed/") else 1 / np.sqrt(12 if "layer_1" in name else 20)
        assert 0.9 * limit < np.abs(leaf).max() <= limit and abs(leaf.mean()) < 0.25 * limit, name


def oracle(params, tokens, state=None, scales=None):
    """model.py's forward pass in f64; `scales` are masks over `1 - p`: of word types, activations, weights."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    leaves = {name: np.asarray(leaf, np.float64) for name, leaf in tree.flatten(params).items()}
    scales = scales or {}
    table = leaves["embed/tokens/embedding"] * scales.get("embed", np.ones(1))[:, None]
    x, layers = table[np.asarray(tokens)], []
    layers.append(x)
    x = x * scales.get("input", np.ones((1, 1)))[:, None]
    for index in range(2):
        name = f"layer_{index}"
        if index:
            x = x * scales.get(name, np.ones((1, 1)))[:, None]
        kernel, recurrent, *biases = (
            leaves[f"{name}/lstm/{part}"]
            for part in ("input/kernel", "recurrent/kernel", "input/bias", "recurrent/bias")
        )
        recurrent = recurrent * scales.get(f"{name}/weight_drop", 1.0)
        c = h = np.zeros((len(tokens), recurrent.shape[0]))
        if state is not None:
            c, h = (np.asarray(state[name][part], np.float64) for part in ("cell", "hidden"))
        out = []
        for t in range(x.shape[1]):
            i, j, f, o = np.split(x[:, t] @ kernel + h @ recurrent + sum(biases), 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        x = np.stack(out, axis=1)
        layers.append(x)
    return layers, x * scales.get("top", np.ones((1, 1)))[:, None]


def test_the_forward_pass_is_the_oracles(made):
    model, params, tokens = made
    outputs = model.apply({"params": params}, {"tokens": tokens})
    layers, top = oracle(params, tokens)
    for ours, theirs in zip(outputs.hidden, layers):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    np.testing.assert_allclose(outputs.hidden[-1], top, atol=2e-6)
    rest = model.apply({"params": params}, {"tokens": tokens}, outputs.carry)
    np.testing.assert_allclose(rest.hidden[-1], oracle(params, tokens, outputs.carry)[1], atol=2e-6)


def test_what_training_drops(made):
    """Each mask, found in what comes out, is of the right shape, and the oracle with all of them gives every value."""
    model, params, tokens = made
    keys = {"dropout": jax.random.key(5), "shared": jax.random.key(6)}
    run = lambda rngs, **rates: model.clone(**(NONE | rates)).apply(
        {"params": params}, {"tokens": tokens}, train=True, rngs=rngs
    )
    still = model.apply({"params": params}, {"tokens": tokens})

    types = run(keys, embed_dropout=0.5).hidden[0]
    of_word = {int(word): np.asarray(row) for word, row in zip(tokens.ravel(), types.reshape(-1, 12))}
    scale = np.ones(model.vocab_size)
    for word, row in of_word.items():
        ratio = row / np.asarray(params["embed"]["tokens"]["embedding"][word])
        assert np.allclose(ratio, 0) or np.allclose(ratio, 2, atol=1e-5)
        scale[word] = ratio.mean()
    same = [types[b, t] for b in range(3) for t in range(9) if int(tokens[b, t]) == int(tokens[0, 0])]
    assert all(np.array_equal(one, same[0]) for one in same) and 0 < (scale[list(of_word)] == 0).sum() < len(of_word)

    top = run(keys, dropout=0.5)
    ratio = np.asarray(top.hidden[-1] / top.raw)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(9, 1), atol=1e-5)  # locked: one mask for all steps
    assert not np.allclose(ratio[0], ratio[1]) and set(np.unique(ratio.round(4))) == {0.0, 2.0}
    np.testing.assert_allclose(top.raw, still.hidden[-1], atol=1e-6)

    other = run(keys | {"dropout": jax.random.key(9)}, weight_drop=0.5, embed_dropout=0.5)  # another micro-batch
    np.testing.assert_array_equal(other.hidden[-1], run(keys, weight_drop=0.5, embed_dropout=0.5).hidden[-1])
    assert not np.allclose(run(keys, weight_drop=0.5).hidden[-1], still.hidden[-1])

    scales = {"embed": np.where(scale == 0, 0.0, 2.0)}

    def mask(name, shape, key):
        return 2.0 * np.asarray(keep_mask(substream(key, name), shape, 0.5))

    class Probe(awd_lstm.Model):
        def __call__(self, inputs, carry=(), train=False):
            return stream(self.make_rng("dropout")), stream(self.make_rng("shared"))

    rows, shared = Probe(**{field: getattr(model, field) for field in FIELDS}).apply(
        {"params": params}, {"tokens": tokens}, rngs=keys
    )
    scales |= {"input": mask("input", (3, 12), rows), "top": mask("top", (3, 12), rows)}
    scales |= {"layer_1": mask("layer_1", (3, 20), rows)}
    scales |= {
        f"layer_{index}/weight_drop": mask(f"layer_{index}/weight_drop", shape, shared)
        for index, shape in enumerate([(20, 80), (12, 48)])
    }
    whole = run(keys, **dict.fromkeys(NONE, 0.5))
    layers, top = oracle(params, tokens, scales=scales)
    np.testing.assert_allclose(whole.hidden[-1], top, atol=5e-6)
    np.testing.assert_allclose(whole.raw, layers[-1], atol=5e-6)


NONE = dict.fromkeys(("dropout", "input_dropout", "hidden_dropout", "embed_dropout", "weight_drop"), 0.0)
FIELDS = ("vocab_size", "width", "embed_width", "depth")


def test_two_halves_with_the_state_are_the_whole(made):
    model, params, tokens = made
    whole = model.apply({"params": params}, {"tokens": tokens})
    first = model.apply({"params": params}, {"tokens": tokens[:, :4]})
    rest = model.apply({"params": params}, {"tokens": tokens[:, 4:]}, first.carry)
    np.testing.assert_allclose(jnp.concatenate([first.hidden[-1], rest.hidden[-1]], 1), whole.hidden[-1], atol=1e-6)
    mask = jnp.arange(9)[None] < 4 + jnp.zeros((3, 1), jnp.int32)
    short = model.apply({"params": params}, {"tokens": tokens, "mask": mask})
    for one, two in zip(jax.tree.leaves(short.carry), jax.tree.leaves(first.carry)):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_it_looks_to_the_left_alone(made):
    model, params, tokens = made
    table = params["embed"]["tokens"]["embedding"]

    def at_4(table):
        new = {**params, "embed": {"tokens": {"embedding": table}}}
        return model.apply({"params": new}, {"tokens": jnp.arange(9)[None]}).hidden[-1][0, 4].sum()

    touched = np.abs(jax.grad(at_4)(table)).max(axis=1) > 0
    assert touched[:5].all() and not touched[5:].any()
    del tokens


def test_flops_are_those_of_the_products(made):
    model, params, tokens = made
    objective = causal_lm.Objective(ar=2.0, tar=1.0)
    batch = {"inputs": {"tokens": tokens}, "targets": tokens, "weights": jnp.ones(tokens.shape)}
    batch |= {"is_first": jnp.zeros((3,), bool)}
    run = lambda params: objective(Forward(model, params, KEY, train=True), batch, model.init_carry(3))
    counted = products(jax.make_jaxpr(run)(params).jaxpr)
    assert objective.flops(model, batch) == pytest.approx(counted, rel=0.01)


def test_the_softmax_may_have_a_table_of_its_own():
    model = awd_lstm.tiny().clone(tied=False)
    inputs = {"tokens": jnp.zeros((2, 3), jnp.int32)}
    params = model.init(KEY, inputs, method="touch")["params"]
    outputs = model.apply({"params": params}, inputs)
    rows, table, _ = model.apply({"params": params}, outputs.hidden[-1][:, 0], method="readout")
    assert rows.shape == (2, 20) and table.shape == (47, 20)
    np.testing.assert_array_equal(table, params["head"]["softmax"]["embedding"])
