"""ULMFiT's classifier against torch: BatchNorm1d, windows, padding and pooling as released, and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import run as runs
from ctxjax import tree
from ctxjax.models import ulmfit
from ctxjax.models.layers.batch_norm import BatchNorm
from ctxjax.objectives import labels
from ctxjax.step import Forward, init_state, make_eval_step, make_train_step

STILL = {"input_dropout": 0.0, "hidden_dropout": 0.0, "embed_dropout": 0.0, "weight_drop": 0.0}
LENGTHS = np.array([13, 5, 9, 2])


@functools.cache
def made(padding, windows=2):
    model = ulmfit.tiny().clone(padding=padding, windows=windows, dropout=0.0, hidden_dropout=0.0)
    model = model.clone(encoder={**model.encoder, **STILL})
    mask = np.arange(14)[None] < LENGTHS[:, None]
    tokens = np.random.default_rng(0).integers(3, model.vocab_size, mask.shape)
    inputs = {"tokens": jnp.asarray(np.where(mask, tokens, 7), jnp.int32), "mask": jnp.asarray(mask)}
    targets = jnp.array([2, 0, 1, 0], jnp.int32)
    batch = {"inputs": inputs, "targets": targets, "weights": jnp.ones(4)}
    objective = labels.Objective(ar=2.0, tar=1.0)
    state = init_state(model, optax.sgd(1.0), inputs, jax.random.key(0))
    # Away from what starts as zeros and ones.
    params = tree.map_named(
        lambda name, leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), state.params
    )
    return model, objective, batch, state.replace(params=params)


@functools.cache
def stepped(padding, windows=2):
    """The state after one step of SGD at rate 1, so that the parameters differ by the gradient, and its metrics."""
    model, objective, batch, state = made(padding, windows)
    return jax.jit(make_train_step(model, objective, optax.sgd(1.0)))(state, batch, jax.random.key(1))


def test_batch_norm_is_torchs():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.BatchNorm1d(5), BatchNorm(5)
    x = [jnp.asarray(np.random.default_rng(step).standard_normal((6, 5)) * 3 + 1, jnp.float32) for step in range(3)]
    variables = ours.init(jax.random.key(0), x[0], True)
    variables = {"params": variables["params"], "batch_stats": {"mean": jnp.zeros(5), "var": jnp.ones(5)}}
    for rows in x:
        expected = theirs(torch.tensor(np.asarray(rows))).detach().numpy()
        found, moved = ours.apply(variables, rows, True, mutable=["batch_stats"])
        variables = {**variables, **moved}
        np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], theirs.running_mean, rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["var"], theirs.running_var, rtol=1e-5)
    expected = theirs.eval()(torch.tensor(np.asarray(x[0]))).detach().numpy()
    np.testing.assert_allclose(ours.apply(variables, x[0], False), expected, atol=2e-6)


def released(padding, windows=2):
    """fastai's MultiBatchRNN and PoolingLinearClassifier (0.7), or SentenceEncoder and masked pooling (2), in torch:
    loss, gradients by our names, and the statistics that the batch moved."""
    torch = pytest.importorskip("torch")
    model, _, batch, state = made(padding, windows)
    leaves = {
        name: torch.tensor(np.asarray(leaf), requires_grad=True) for name, leaf in tree.flatten(state.params).items()
    }
    table, bptt, max_seq = leaves["embed/tokens/embedding"], model.bptt, model.windows * model.bptt

    def layer(index, x, state):
        i, j, f, o = range(4)
        kernel, recurrent = leaves[f"layer_{index}/lstm/input/kernel"], leaves[f"layer_{index}/lstm/recurrent/kernel"]
        bias = leaves[f"layer_{index}/lstm/input/bias"] + leaves[f"layer_{index}/lstm/recurrent/bias"]
        hidden, cell = state
        out = []
        for step in x:
            gates = (step @ kernel + hidden @ recurrent + bias).chunk(4, dim=-1)
            cell = torch.sigmoid(gates[f]) * cell + torch.sigmoid(gates[i]) * torch.tanh(gates[j])
            hidden = torch.sigmoid(gates[o]) * torch.tanh(cell)
            out.append(hidden)
        return torch.stack(out), (hidden.detach(), cell.detach())

    def encode(tokens):
        """Windows of `[T B]` from their beginning, the state detached behind each."""
        state = [tuple(torch.zeros(tokens.shape[1], width) for _ in range(2)) for width in model.widths()[1:]]
        found = []
        for start in range(0, len(tokens), bptt):
            x = table[tokens[start : start + bptt]]
            for index in range(model.depth):
                x, state[index] = layer(index, x, state[index])
            found.append((start, x))
        return found

    ids = np.asarray(batch["inputs"]["tokens"])
    pools, ar, tar = [], 0.0, 0.0
    if padding == "front":
        longest = LENGTHS.max()
        rows = np.stack([np.concatenate([np.zeros(longest - n, int), row[:n]]) for row, n in zip(ids, LENGTHS)])
        output = torch.cat([x for start, x in encode(torch.tensor(rows.T)) if start > longest - max_seq])
        pooled = torch.cat([output[-1], output.max(0)[0], output.mean(0)], 1)
        ar, tar = output.pow(2).mean(), (output[1:] - output[:-1]).pow(2).mean()
    else:
        for row, n in zip(ids, LENGTHS):
            found = encode(torch.tensor(row[:n, None]))
            output = torch.cat([x[:, 0] for _, x in found[-model.windows :]])
            pools.append(torch.cat([output[-1], output.max(0)[0], output.mean(0)]))
            ar = ar + output.pow(2).mean() / 4
            tar = tar + (output[1:] - output[:-1]).pow(2).mean() / 4
        pooled = torch.stack(pools)
    norms = [torch.nn.BatchNorm1d(width) for width in (pooled.shape[1], model.hidden_width)]
    x = pooled
    for norm, name, linear in zip(norms, ("pooled_norm", "hidden_norm"), ("hidden", "labels")):
        with torch.no_grad():
            norm.weight.copy_(leaves[f"task/classify/{name}/scale"])
            norm.bias.copy_(leaves[f"task/classify/{name}/bias"])
        x = torch.relu(x) if linear == "labels" else x
        x = norm(x) @ leaves[f"task/classify/{linear}/kernel"] + leaves[f"task/classify/{linear}/bias"]
    targets = torch.tensor(np.asarray(batch["targets"]), dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(x, targets) + 2 * ar + 1 * tar
    loss.backward()
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    for norm, name in zip(norms, ("pooled_norm", "hidden_norm")):
        gradients[f"task/classify/{name}/scale"] = norm.weight.grad.numpy()
        gradients[f"task/classify/{name}/bias"] = norm.bias.grad.numpy()
    moved = {
        f"batch_stats/task/classify/{name}/mean": norm.running_mean.numpy()
        for norm, name in zip(norms, ("pooled_norm", "hidden_norm"))
    }
    moved |= {
        f"batch_stats/task/classify/{name}/var": norm.running_var.numpy()
        for norm, name in zip(norms, ("pooled_norm", "hidden_norm"))
    }
    return float(loss.detach()), gradients, moved


@pytest.mark.parametrize("padding", ulmfit.PADDING)
def test_a_step_is_that_of_the_original(padding):
    """Texts over a window and over all windows that are kept, the loss with both activation terms."""
    loss, gradients, moved = released(padding)
    state = made(padding)[3]
    after, metrics = stepped(padding)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=2e-5)
    old, new = tree.flatten(state.params), tree.flatten(after.params)
    assert set(gradients) == set(old)
    for name in old:
        np.testing.assert_allclose(old[name] - new[name], gradients[name], rtol=2e-3, atol=1e-4, err_msg=name)
    stats = tree.flatten(after.extra)
    assert set(stats) == set(moved)
    for name, expected in moved.items():
        np.testing.assert_allclose(stats[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_pooling_by_hand():
    """Three windows of 4, the last two of each text kept; with padding in front the longest decides."""
    model, _, batch, state = made("behind")
    forward = Forward(model, {"params": state.params, **state.extra}, jax.random.key(0), train=False)
    outputs = forward(batch["inputs"])
    top, kept = np.asarray(outputs.hidden[-1]), np.asarray(forward.head("kept", batch["inputs"]["mask"]))
    spans = [(8, 13), (0, 5), (4, 9), (0, 2)]
    for row, (first, last) in enumerate(spans):
        assert np.flatnonzero(kept[row]).tolist() == list(range(first, last))
        here = top[row, first:last]
        expected = np.concatenate([here[-1], here.max(0), here.mean(0)])
        np.testing.assert_allclose(outputs.pooled[row, 0], expected, rtol=1e-5, atol=1e-6)
    front, _, _, state = made("front")
    forward = Forward(front, {"params": state.params, **state.extra}, jax.random.key(0), train=False)
    kept = np.asarray(forward.head("kept", batch["inputs"]["mask"]))
    assert all(np.flatnonzero(row).tolist() == list(range(8, 13)) for row in kept)  # windows that start behind 13 - 8


def test_statistics_in_use_are_the_running_ones_and_rows_alone_then():
    model, objective, batch, _ = made("behind")
    after, _ = stepped("behind")
    both = {"params": after.params, **after.extra}
    told, _ = make_eval_step(model, objective)(both, batch, (), jax.random.key(0))
    alone = [
        make_eval_step(model, objective)(
            both, jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], batch), (), jax.random.key(0)
        )[0]
        for row in range(4)
    ]
    assert float(told["labels"].total) == pytest.approx(sum(float(one["labels"].total) for one in alone), rel=1e-5)


def test_a_step_that_is_not_finite_leaves_the_statistics():
    model, objective, batch, state = made("behind")
    bad = dict(batch, weights=batch["weights"].at[0].set(jnp.nan))
    after, metrics = jax.jit(make_train_step(model, objective, optax.sgd(1.0)))(state, bad, jax.random.key(1))
    assert float(metrics["skipped"]) == 1.0
    for left, right in zip(jax.tree.leaves(after.extra), jax.tree.leaves(state.extra)):
        np.testing.assert_array_equal(left, right)


def test_paths_are_those_of_the_language_model():
    """So `init_from` of the second stage needs no pattern; the language model's own head is not made."""
    from ctxjax.models import awd_lstm

    model, _, batch, state = made("behind")
    encoder = awd_lstm.Model(**{name: value for name, value in model.encoder.items() if name != "name"})
    there = jax.eval_shape(lambda: encoder.init(jax.random.key(0), batch["inputs"], method="touch"))["params"]
    ours, theirs = tree.flatten(state.params), tree.flatten(there)
    shared = {name for name in theirs if not name.startswith("head/")}
    assert {name for name in ours if not name.startswith("task/")} == shared
    assert all(ours[name].shape == theirs[name].shape for name in shared)
    assert runs.FIELDS and model.couples_rows
