"""GPT: the published count, the released code's forward pass in NumPy, the dropped table that the softmax sees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, tree
from ctxjax.models import gpt
from ctxjax.objectives import causal_lm
from ctxjax.step import Forward, init_state, make_eval_step, make_train_step
from tests.programs.test_plan import products

KEY = jax.random.key(0)
TOKENS = {"tokens": jnp.zeros((1, 8), jnp.int32)}


def initial(model):
    return model.init(KEY, TOKENS, method="touch")["params"]


@pytest.mark.parametrize(("special", "count"), [(0, 116_534_784), (3, 116_534_784 + 3 * 768)])
def test_parameter_count_is_the_published_one(special, count):
    """40,478 pieces and 512 places of 768, and twelve layers; then the three rows of fine-tuning."""
    assert count == (40_478 + 512 + special) * 768 + 12 * (12 * 768**2 + 13 * 768)
    model = gpt.Model(vocab_size=40_478 + special)
    assert tree.count(jax.eval_shape(lambda: initial(model))) == count


def test_initial_deviations_and_what_is_decayed():
    params = tree.flatten(initial(gpt.Model(400, width=64, depth=3, num_heads=2, mlp_dim=128, max_len=64)))
    decayed = optim.param_groups(tree.unflatten(params))
    for name, leaf in params.items():
        if name.endswith(("kernel", "embedding")):
            assert float(leaf.std()) == pytest.approx(0.02, rel=0.06), name
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name
        assert decayed[name].decay == (leaf.ndim > 1), name


def normalised(x, params):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * params["scale"] + params["bias"]


def released(params, tokens, depth, heads, table):
    """train.py: `embed`, `block`, `attn`, `mlp`, `norm`, with a table of tokens and, behind them, places."""
    rows = len(table) - len(params["embed"]["positions"]["embedding"])
    h = table[tokens] + table[rows + np.arange(tokens.shape[1])]
    layers = [h]
    for i in range(depth):
        layer = params[f"layer_{i}"]
        product = lambda x, part: x @ part["kernel"] + part["bias"]
        parts = [product(h, layer["attention"][name]) for name in ("query", "key", "value")]
        q, k, v = (part.reshape(*h.shape[:2], heads, -1).transpose(0, 2, 1, 3) for part in parts)
        w = q @ k.transpose(0, 1, 3, 2) / np.sqrt(v.shape[-1])
        b = np.tril(np.ones(w.shape[-2:]))
        w = w * b + -1e9 * (1 - b)
        w = np.exp(w - w.max(-1, keepdims=True))
        a = (w / w.sum(-1, keepdims=True)) @ v
        n = normalised(
            h + product(a.transpose(0, 2, 1, 3).reshape(h.shape), layer["attention"]["out"]), layer["attention_norm"]
        )
        x = product(n, layer["mlp"]["in"])
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        h = normalised(n + product(x, layer["mlp"]["out"]), layer["mlp_norm"])
        layers.append(h)
    return layers


@pytest.fixture(scope="module")
def made():
    model = gpt.tiny().clone(dropout=0.0, attention_dropout=0.0, table_dropout=0.3)
    leaves, shape = jax.tree.flatten(initial(model))
    params = [leaf + 0.2 * jax.random.normal(jax.random.fold_in(KEY, i), leaf.shape) for i, leaf in enumerate(leaves)]
    return model, jax.tree.unflatten(shape, params)


def table_of(params):
    return np.concatenate([params["embed"][name]["embedding"] for name in ("tokens", "positions")])


def test_equals_the_released_code(made):
    model, params = made
    tokens = np.arange(14).reshape(2, 7) * 3
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = released(exact, tokens, model.depth, model.num_heads, table_of(exact))
    hidden = model.apply({"params": params}, {"tokens": jnp.asarray(tokens, jnp.int32)}).hidden
    for ours, wanted in zip(hidden, expected, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=2e-5)


def test_layers_and_softmax_see_one_dropped_table(made):
    """Every number of the table is dropped or not for the whole batch, and for its rows and the softmax alike."""
    model, params = made
    tokens = jnp.arange(28, dtype=jnp.int32).reshape(4, 7) % 5
    forward = Forward(model, params, jax.random.key(7), train=True)
    outputs = forward({"tokens": tokens})
    rows, table, bias = forward.readout(outputs.hidden[-1].reshape(-1, model.width))
    whole, table = table_of(params), np.asarray(table)
    assert table.shape == (model.vocab_size + model.max_len, model.width) and (bias == 0).all()
    kept = table != 0
    np.testing.assert_allclose(table[kept], (whole / 0.7)[kept], rtol=1e-6)
    assert kept.mean() == pytest.approx(0.7, abs=0.04)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = released(exact, np.asarray(tokens), model.depth, model.num_heads, table.astype(np.float64))
    for ours, wanted in zip(outputs.hidden, expected, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=2e-5)
    other = Forward(model, params, jax.random.key(8), train=True).readout(rows)[1]
    assert ((np.asarray(other) != 0) != kept).any()


@pytest.mark.parametrize("joint", [True, False])
def test_the_loss_is_over_the_rows_of_the_softmax(made, joint):
    model, params = made
    model = model.clone(joint_softmax=joint)
    batch = causal_lm.example()[2]
    forward = Forward(model, params, jax.random.key(7), train=True)
    top = np.asarray(forward(batch["inputs"]).hidden[-1], np.float64)
    table = np.asarray(forward.readout(jnp.zeros((1, model.width)))[1], np.float64)
    assert len(table) == model.vocab_size + joint * model.max_len

    def loss(top, table):
        logits = top @ table.T
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        found = np.take_along_axis(log_probs, np.asarray(batch["targets"])[:, :, None], -1)[:, :, 0]
        return -(found * np.asarray(batch["weights"])).sum()

    terms, _ = causal_lm.Objective()(forward, batch)
    assert float(terms["lm"].total) == pytest.approx(loss(top, table), rel=1e-5)
    in_use, _ = make_eval_step(model, causal_lm.Objective())(params, batch, (), KEY)
    still = np.asarray(model.apply({"params": params}, batch["inputs"]).hidden[-1], np.float64)
    assert float(in_use["lm"].total) == pytest.approx(loss(still, table_of(params)[: model.vocab_size]), rel=1e-5)


def test_one_draw_serves_all_parts_of_a_batch(made):
    model, _ = made
    objective, batch = causal_lm.Objective(), causal_lm.example()[2]
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    state = init_state(model, tx, batch["inputs"], KEY)
    whole, parts = (jax.jit(make_train_step(model, objective, tx, count)) for count in (1, 4))
    (after, metrics), (other, other_metrics) = (step(state, batch, jax.random.key(3)) for step in (whole, parts))
    np.testing.assert_allclose(other_metrics["loss"], metrics["loss"], rtol=2e-6)
    for left, right in zip(jax.tree.leaves(other.params), jax.tree.leaves(after.params)):
        np.testing.assert_allclose(left, right, atol=2e-6)
    losses = {float(whole(state.replace(step=state.step + i), batch, jax.random.key(3))[1]["loss"]) for i in range(3)}
    assert len(losses) == 3  # another draw every step


@pytest.mark.parametrize("joint", [True, False])
def test_flops_are_those_of_its_products(joint):
    model, objective, batch = gpt.tiny().clone(joint_softmax=joint), causal_lm.Objective(), causal_lm.example()[2]
    params = jax.eval_shape(lambda: initial(model))
    traced = jax.make_jaxpr(lambda params: objective(Forward(model, params, KEY, train=True), batch))(params)
    assert objective.flops(model, batch) == pytest.approx(products(traced.jaxpr), rel=0.03)


def test_the_table_has_a_gradient_through_its_mask_alone(made):
    model, params = made
    batch = causal_lm.example()[2]

    def loss(params):
        return causal_lm.Objective()(Forward(model, params, jax.random.key(7), train=True), batch)[0]["lm"].total

    table = np.asarray(Forward(model, params, jax.random.key(7), train=True).readout(jnp.zeros((1, 16)))[1])
    gradient = table_of(jax.grad(loss)(params))
    assert (gradient[table == 0] == 0).all() and (np.abs(gradient[table != 0]) > 0).mean() > 0.99
