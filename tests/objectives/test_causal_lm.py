"""The left-to-right objective by hand: activation terms, restarts, the rate of a step, padding that costs nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, step
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
