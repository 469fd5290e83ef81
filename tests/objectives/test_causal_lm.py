"""The left-to-right objective by hand: smoothing, activation terms, restarts, rates, padding that costs nothing."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, step
from ctxjax.config import ConfigError
from ctxjax.models import awd_lstm
from ctxjax.objectives import causal_lm, vocabulary

KEY = jax.random.key(0)
ROWS, LENGTH, USED = 4, 8, 6
AWD = causal_lm.Objective(ar=2.0, tar=1.0, rate_length=8)


@pytest.fixture(scope="module")
def made():
    """A tiny AWD-LSTM, a batch of windows of which the last two places are empty, a carry."""
    model = awd_lstm.tiny()
    tokens = jax.random.randint(KEY, (ROWS, LENGTH + 1), 0, model.vocab_size)
    mask = jnp.broadcast_to(jnp.arange(LENGTH)[None] < USED, (ROWS, LENGTH))
    batch = {
        "inputs": {"tokens": tokens[:, :-1], "mask": mask},
        "targets": tokens[:, 1:],
        "weights": mask.astype(jnp.float32),
        "is_first": jnp.array([True, False, False, True]),
    }
    params = model.init(KEY, batch["inputs"], method="touch")["params"]
    carry = jax.tree.map(lambda leaf: 0.3 + leaf, model.init_carry(ROWS))
    return model, params, batch, carry


def log_probs(rows, params):
    table, bias = params["embed"]["tokens"]["embedding"], params["head"]["softmax"]["bias"]
    logits = np.asarray(rows, np.float64) @ np.asarray(table, np.float64).T + np.asarray(bias)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("ar_of", causal_lm.AR_OF)
def test_the_terms_are_those_of_the_published_loss(made, ar_of):
    """main.py: alpha times the mean square of the dropped output, beta times that of the differences of the raw one."""
    model, params, batch, carry = made
    objective = causal_lm.Objective(ar=2.0, tar=1.0, ar_of=ar_of)
    forward = step.Forward(model, params, KEY, train=True)
    start = jax.tree.map(lambda leaf: leaf.at[jnp.array([0, 3])].set(0.0), carry)
    (terms, _), outputs = jax.jit(lambda: (objective(forward, batch, carry), forward(batch["inputs"], start)))()
    dropped, raw = (np.asarray(leaf, np.float64)[:, :USED] for leaf in (outputs.hidden[-1], outputs.raw))
    assert not np.allclose(dropped, raw)
    told = np.take_along_axis(log_probs(dropped, params), np.asarray(batch["targets"])[:, :USED, None], -1)
    expected = {
        "lm": -told.mean(),
        "ar": ((dropped if ar_of == "dropped" else raw) ** 2).mean(),
        "tar": ((raw[:, 1:] - raw[:, :-1]) ** 2).mean(),
    }
    for name, value in expected.items():
        assert float(terms[name].total / terms[name].weight) == pytest.approx(value, rel=1e-5), name
    total = expected["lm"] + 2 * expected["ar"] + expected["tar"]
    assert float(step.weighted_loss(objective, terms, objective.weights(batch))) == pytest.approx(total, rel=1e-5)


def test_the_state_is_that_behind_the_last_real_token(made):
    model, params, batch, carry = made
    _, ended = jax.jit(lambda: AWD(step.Forward(model, params, KEY, train=False), batch, carry))()
    start = jax.tree.map(lambda leaf: leaf.at[jnp.array([0, 3])].set(0.0), carry)
    short = model.apply({"params": params}, {"tokens": batch["inputs"]["tokens"][:, :USED]}, start)
    for one, two in zip(jax.tree.leaves(ended), jax.tree.leaves(short.carry)):
        np.testing.assert_allclose(one, two, atol=1e-6)


def gradient(model, params, batch, carry, accum=1, tx=None):
    tx = tx or optax.sgd(1.0)
    state = step.TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), carry)
    return jax.jit(step.make_train_step(model, AWD, tx, accum))(state, batch, KEY)


def test_micro_batches_share_the_dropped_weights_and_words(made):
    """Drawn once a step for all lanes, so accumulation gives the same step with them on."""
    model, params, batch, carry = made
    model = model.clone(dropout=0.0, input_dropout=0.0, hidden_dropout=0.0, embed_dropout=0.3)
    whole, values = gradient(model, params, batch, carry)
    split, same = gradient(model, params, batch, carry, accum=4)
    assert float(values["loss"]) == pytest.approx(float(same["loss"]), rel=1e-5)
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(split)):
        np.testing.assert_allclose(one, two, atol=2e-6)


def test_the_step_is_as_long_as_its_window(made):
    """6 of 8 places: the update, clip and decay included, is 6/8 of what it is without."""
    model, params, batch, carry = made
    rule = {"name": "sgd", "lr": 2.0, "clip": 0.1, "weight_decay": 0.1, "schedule": {"name": "constant"}}
    tx, _ = optim.make_optimizer(10, params, **rule, decay_exclude="")
    whole, _ = gradient(model.clone(), params, batch, carry, tx=tx)
    state = step.TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), carry)
    plain = causal_lm.Objective(ar=2.0, tar=1.0)
    other, _ = jax.jit(step.make_train_step(model, plain, tx))(state, batch, KEY)
    assert float(AWD.rate(batch)) == pytest.approx(0.75) and plain.rate(batch) is None
    for old, one, two in zip(*map(jax.tree.leaves, (params, whole.params, other.params))):
        np.testing.assert_allclose(one - old, 0.75 * (two - old), atol=1e-7)


def test_chunks_without_weight_are_left_out():
    """Values and gradients as without, and rows that nothing reads may hold anything."""
    keys = jax.random.split(KEY, 3)
    rows, table = jax.random.normal(keys[0], (30, 5)), jax.random.normal(keys[1], (11, 5))
    targets, weights = jax.random.randint(keys[2], (30,), 0, 11), (jnp.arange(30) < 13).astype(jnp.float32)
    bias = jnp.linspace(-1, 1, 11)

    @functools.partial(jax.jit, static_argnums=1)
    def run(rows, skip):
        loss = lambda *args: vocabulary.cross_entropy(*args, targets, weights, chunk=4, skip=skip)
        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(rows, table, bias)

    for one, two in zip(jax.tree.leaves(run(rows, True)), jax.tree.leaves(run(rows, False))):
        np.testing.assert_allclose(one, two, atol=2e-5)
    poisoned = run(rows.at[16:].set(3e38), True)  # whose logits are infinite
    for one, two in zip(jax.tree.leaves(poisoned), jax.tree.leaves(run(rows, False))):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_a_wrong_choice_is_named():
    with pytest.raises(ValueError, match=r"objective.ar_of='wet' is neither 'dropped' nor 'raw'"):
        causal_lm.Objective(ar_of="wet")


SPLITS = (10, 22, 40)


def split_example():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape).astype(np.float32))
    rows, table, bias = draw(150, 12), draw(47, 12), draw(47)
    targets = jnp.asarray(np.minimum(rng.zipf(1.3, 150) - 1, 46).astype(np.int32))
    weights = jnp.asarray((rng.random(150) < 0.8).astype(np.float32))
    return rows, table, bias, draw(3, 12), draw(3), targets, weights


def split_oracle(rows, table, bias, tombstones, tombstones_bias, targets, weights):
    """splitcross.py in f64: probability of the tombstone, times that of the word in its tail."""
    rows, table, bias, tombstones, tombstones_bias = (
        np.asarray(leaf, np.float64) for leaf in (rows, table, bias, tombstones, tombstones_bias)
    )
    softmax = lambda logits: np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    edges = [*SPLITS, 47]
    head = softmax(rows @ np.concatenate([table[:10], tombstones]).T + np.concatenate([bias[:10], tombstones_bias]))
    parts = [head[:, :10]]
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        parts.append(head[:, 10 + k, None] * softmax(rows @ table[low:high].T + bias[low:high]))
    chances = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(chances.sum(1), 1)
    return -(np.log(chances[np.arange(len(rows)), targets]) * np.asarray(weights)).sum()


def test_the_split_softmax_is_the_published_one():
    arrays = split_example()
    assert len(set(np.searchsorted(SPLITS, np.asarray(arrays[5]), "right"))) == 4  # targets in every part
    loss = jax.jit(lambda *args: vocabulary.split_cross_entropy(*args, *arrays[5:], SPLITS))
    assert float(loss(*arrays[:5])) == pytest.approx(split_oracle(*arrays), rel=1e-5)
    gradient = jax.jit(jax.grad(loss, argnums=range(5)))(*arrays[:5])
    for number, slope in enumerate(gradient):
        step_by = np.zeros(arrays[number].shape)
        place = tuple(np.unravel_index(np.argmax(np.abs(slope)), slope.shape))
        step_by[place] = 1e-4
        above, below = (
            split_oracle(
                *arrays[:number], np.asarray(arrays[number], np.float64) + side * step_by, *arrays[number + 1 :]
            )
            for side in (1, -1)
        )
        assert float(slope[place]) == pytest.approx((above - below) / 2e-4, rel=1e-3)


def test_the_split_softmax_is_the_adaptive_one_of_torch():
    torch = pytest.importorskip("torch")
    rows, table, bias, tombstones, tombstones_bias, targets, weights = split_example()
    bias = bias.at[10:].set(0.0)  # torch has none in the tails
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(12, 47, list(SPLITS), div_value=1.0, head_bias=True)
    tensor = lambda leaf: torch.from_numpy(np.array(leaf))
    with torch.no_grad():
        theirs.head.weight.copy_(tensor(jnp.concatenate([table[:10], tombstones])))
        theirs.head.bias.copy_(tensor(jnp.concatenate([bias[:10], tombstones_bias])))
        for tail, words in zip(theirs.tail, np.split(np.asarray(table), SPLITS)[1:], strict=True):
            tail[0].weight.copy_(torch.eye(12))
            tail[1].weight.copy_(tensor(words))
        expected = -(theirs(tensor(rows), tensor(targets).long()).output * tensor(weights)).sum()
    ours = vocabulary.split_cross_entropy(rows, table, bias, tombstones, tombstones_bias, targets, weights, SPLITS)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


def test_a_split_model_is_trained_by_the_split_objective(made):
    model, _, batch, carry = made
    split = model.clone(splits=SPLITS)
    params = split.init(KEY, batch["inputs"], method="touch")["params"]
    assert params["head"]["softmax"]["tombstones"].shape == (3, 12)
    objective = causal_lm.Objective(split=True)
    forward = step.Forward(split, params, KEY, train=False)
    terms, _ = jax.jit(lambda: objective(forward, batch, carry))()
    sizes = np.array([1, 12, 18, 7])[np.searchsorted(SPLITS, batch["targets"][:, :USED], "right")]
    assert set(terms) == {"lm"}  # and a fresh model is nearly uniform in each part
    assert terms["lm"].compute() == pytest.approx(np.log(13) + np.log(sizes).mean(), rel=0.02)
    with pytest.raises(ValueError, match=r"no head 'tombstones'; set model.splits"):
        objective(step.Forward(model, params, KEY, train=False), batch, carry)
    sizes = {10_000: (), 75_000: (), 267_735: (2800, 20_000, 76_000), 793_471: (4200, 35_000, 180_000)}
    assert {size: awd_lstm.published_splits(size) for size in sizes} == sizes


def test_smoothing_is_minimised_and_the_likelihood_is_still_reported():
    model, plain, batch = causal_lm.example()
    smooth = causal_lm.Objective(label_smoothing=0.1)
    params = model.init(jax.random.key(0), batch["inputs"], method="touch")["params"]
    forward = step.Forward(model, params, jax.random.key(1), train=False)
    one, two = plain(forward, batch, ())[0], smooth(forward, batch, ())[0]
    assert float(one["lm"].total) == float(two["lm"].total) and "smoothed" not in one
    hidden = model.apply({"params": params}, batch["inputs"]).hidden[-1]
    log_probs = np.asarray(jax.nn.log_softmax(hidden @ params["embed"]["tokens"]["embedding"].T))
    labels = np.full(log_probs.shape, 0.1 / (model.vocab_size - 1))
    np.put_along_axis(labels, np.asarray(batch["targets"])[..., None], 0.9, axis=-1)
    divergence = (labels * (np.log(labels) - log_probs)).sum(-1)
    wanted = (divergence * batch["weights"]).sum() / batch["weights"].sum()
    assert float(step.weighted_loss(smooth, two, smooth.weights(batch))) == pytest.approx(float(wanted), rel=1e-5)
    assert smooth.loss == {"smoothed": 1.0} and plain.loss == {"lm": 1.0}


def test_a_share_of_one_or_more_is_refused():
    with pytest.raises(ConfigError, match="label_smoothing=1"):
        causal_lm.Objective(label_smoothing=1.0)
