"""The biLM's objective by hand: directions, restarts, scale, sampled in training and full in evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import step
from ctxjax.objectives import bilm, lanes, vocabulary

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def made():
    model, objective, batch = bilm.example()
    model = model.clone(token="words", dropout=0.0)
    params = model.init(KEY, batch["inputs"], method="touch")["params"]
    carry = jax.tree.map(lambda leaf: leaf + 0.5, model.init_carry(4))
    return model, objective, batch, params, carry


def test_terms_are_the_mean_of_each_direction(made):
    model, objective, batch, params, carry = made
    terms, new_carry = objective(step.Forward(model, params, KEY, train=True), batch, carry)
    start = jax.tree.map(lambda leaf: leaf.at[jnp.array([0, 1, 3])].set(0.0), carry)  # lane 2 goes on
    outputs = model.apply({"params": params}, batch["inputs"], start)
    table, bias = params["head"]["softmax"]["embedding"], params["head"]["softmax"]["bias"]
    logits = np.asarray(jnp.einsum("bstp,vp->bstv", outputs.hidden[-1], table), np.float64) + np.asarray(bias)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_p, np.asarray(batch["targets"])[..., None], -1)[..., 0]
    weights = np.asarray(batch["weights"])
    for index, name in enumerate(("forward", "backward")):
        np.testing.assert_allclose(terms[name].total, (nll * weights)[:, index].sum(), rtol=1e-5)
        assert float(terms[name].weight) == weights[:, index].sum() == float(objective.weights(batch)[name])
    for one, two in zip(jax.tree.leaves(new_carry), jax.tree.leaves(outputs.carry)):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_is_first_matters(made):
    model, objective, batch, params, carry = made
    forward = step.Forward(model, params, KEY, train=False)
    restarted = objective(forward, {**batch, "is_first": jnp.ones(4, bool)}, carry)[0]["forward"].total
    fresh = objective(forward, batch, model.init_carry(4))[0]["forward"].total
    kept = objective(forward, {**batch, "is_first": jnp.zeros(4, bool)}, carry)[0]["forward"].total
    assert float(restarted) == float(fresh) != float(kept)


def test_training_samples_and_evaluation_does_not(made):
    model, full, batch, params, carry = made
    objective = dataclasses.replace(full, samples=10)
    train, evaluation = (step.Forward(model, params, KEY, train=mode) for mode in (True, False))
    value = lambda objective, forward: float(objective(forward, batch, carry)[0]["backward"].total)
    assert value(objective, evaluation) == pytest.approx(value(full, evaluation), rel=1e-6)
    assert value(objective, train) != pytest.approx(value(full, train), rel=1e-3)
    assert value(dataclasses.replace(full, samples=31), train) == pytest.approx(value(full, train), rel=1e-6)
    # The negatives are those of this step's key, shared by rows and directions.
    start = lanes.restart(carry, batch["is_first"])
    top = model.apply({"params": params}, batch["inputs"], start).hidden[-1][:, 1].reshape(-1, 8)
    softmax = params["head"]["softmax"]
    drawn = vocabulary.draw(train.key("negatives"), 31, 10)
    targets, weights = batch["targets"][:, 1].reshape(-1), batch["weights"][:, 1].reshape(-1)
    expected = vocabulary.sampled_cross_entropy(top, softmax["embedding"], softmax["bias"], targets, weights, *drawn)
    assert value(objective, train) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_is_half_of_each_direction_times_the_scale(made):
    objective = made[1]
    assert objective.loss == {"forward": 10.0, "backward": 10.0}
    assert dataclasses.replace(objective, scale=1.0).loss == {"forward": 0.5, "backward": 0.5}


def test_flops_count_the_samples_or_the_vocabulary(made):
    model, objective, batch, _, _ = made
    base = model.flops({name: leaf.shape for name, leaf in batch["inputs"].items()})
    assert objective.flops(model, batch) == base + 2 * 48 * 8 * 31
    sampled = dataclasses.replace(objective, samples=10).flops(model, batch)
    assert sampled == pytest.approx(base + 2 * 48 * 8 * 11)
