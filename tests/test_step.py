"""The train step: accumulation is exact, a bad step leaves no trace, one program serves all steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import tree
from ctxjax.objectives import bilm, masked_lm
from ctxjax.step import init_state, make_eval_step, make_train_step

STILL = {"masked_lm": {"dropout": 0.0, "attention_dropout": 0.0}, "bilm": {"dropout": 0.0}}


def setup(module, train_dropout=False):
    model, objective, batch = module.example()
    if not train_dropout:
        model = model.clone(**STILL[module.__name__.rpartition(".")[2]])
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    rows = len(jax.tree.leaves(batch)[0])
    return model, objective, batch, tx, init_state(model, tx, batch["inputs"], jax.random.key(0), carry_rows=rows)


@pytest.mark.parametrize("module", [masked_lm, pytest.param(bilm, marks=pytest.mark.slow)])
def test_accumulation_in_1_2_4_parts_is_one_step(module):
    """The rows hold different numbers of targets, so an average of micro-batch means would differ."""
    model, objective, batch, tx, state = setup(module)
    counts = np.asarray(batch["weights"]).reshape(4, -1).sum(1)
    assert len(set(counts.tolist())) > 1
    results = [
        jax.jit(make_train_step(model, objective, tx, parts))(state, batch, jax.random.key(3)) for parts in (1, 2, 4)
    ]
    for after, metrics in results[1:]:
        np.testing.assert_allclose(metrics["loss"], results[0][1]["loss"], rtol=2e-6)
        np.testing.assert_allclose(metrics["grad_norm"], results[0][1]["grad_norm"], rtol=2e-5)
        for left, right in zip(jax.tree.leaves(after.params), jax.tree.leaves(results[0][0].params)):
            np.testing.assert_allclose(left, right, atol=2e-5)
        for left, right in zip(jax.tree.leaves(after.carry), jax.tree.leaves(results[0][0].carry)):
            np.testing.assert_allclose(left, right, atol=2e-6)


def test_what_is_frozen_has_no_backward_pass():
    """The others get the same gradient; the norm is of theirs alone, and the program does less."""
    model, objective, batch, _, _ = setup(masked_lm)
    tx, key = optax.sgd(1.0), jax.random.key(0)
    state = init_state(model, tx, batch["inputs"], key)
    found, flops = {}, {}
    for frozen in ("", "^(embed|layer_)"):
        step = jax.jit(make_train_step(model, objective, tx, frozen=frozen)).lower(state, batch, key).compile()
        after, metrics = step(state, batch, key)
        moved = tree.flatten(jax.tree.map(jnp.subtract, state.params, after.params))
        found[frozen], flops[frozen] = (moved, float(metrics["grad_norm"])), step.cost_analysis()["flops"]
    (free, _), (held, norm) = found.values()
    still = [name for name in free if name.startswith(("embed/", "layer_"))]
    assert still and all(np.abs(free[name]).max() > 0 and not np.abs(held[name]).any() for name in still)
    for name in set(free) - set(still):
        np.testing.assert_allclose(held[name], free[name], atol=1e-6)
    assert norm == pytest.approx(float(optax.tree.norm([free[name] for name in set(free) - set(still)])), rel=1e-5)
    assert flops["^(embed|layer_)"] < 0.6 * flops[""]


def test_negatives_do_not_depend_on_how_the_batch_is_split():
    model, _, batch, tx, state = setup(bilm)
    objective = bilm.Objective(samples=11, scale=1.0)
    losses = [
        float(jax.jit(make_train_step(model, objective, tx, parts))(state, batch, jax.random.key(3))[1]["loss"])
        for parts in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-6)


def test_the_mean_of_micro_batch_means_would_be_wrong():
    """The trap that the step avoids is there in this very batch."""
    model, objective, batch, _, state = setup(masked_lm)
    evaluate = make_eval_step(model, objective)

    def mean(start, stop):
        rows = jax.tree.map(lambda leaf: leaf[start:stop], batch)
        return evaluate(state.params, rows, (), jax.random.key(0))[0]["mlm"].compute()

    assert abs(np.mean([mean(row, row + 1) for row in range(4)]) - mean(0, 4)) > 1e-4


@pytest.mark.parametrize("module", [masked_lm, bilm])
def test_a_step_that_is_not_finite_changes_nothing(module):
    model, objective, batch, tx, state = setup(module, train_dropout=True)
    step = jax.jit(make_train_step(model, objective, tx))
    state, metrics = step(state, batch, jax.random.key(0))
    assert float(metrics["skipped"]) == 0.0
    bad = dict(batch, weights=batch["weights"].at[0].set(jnp.nan))
    after, metrics = step(state, bad, jax.random.key(0))
    assert float(metrics["skipped"]) == 1.0 and int(after.step) == int(state.step) + 1
    before = state.replace(step=after.step)
    for left, right in zip(jax.tree.leaves(after), jax.tree.leaves(before)):
        np.testing.assert_array_equal(left, right)
    again, metrics = step(after, batch, jax.random.key(0))
    assert float(metrics["skipped"]) == 0.0
    assert any(
        (left != right).any() for left, right in zip(jax.tree.leaves(again.params), jax.tree.leaves(after.params))
    )


def test_one_trace_and_the_step_is_a_function_of_its_arguments():
    model, objective, batch, tx, state = setup(masked_lm, train_dropout=True)
    traces = []

    def counted(*args):
        traces.append(1)
        return make_train_step(model, objective, tx)(*args)

    step = jax.jit(counted)
    one, first = step(state, batch, jax.random.key(0))
    _, same = step(state, batch, jax.random.key(0))
    _, other = step(one.replace(params=state.params, opt_state=state.opt_state), batch, jax.random.key(0))
    assert len(traces) == 1
    assert float(first["loss"]) == float(same["loss"])
    assert float(first["loss"]) != float(other["loss"])  # dropout is drawn by the step number


def test_dropout_differs_between_micro_batches():
    model, objective, batch, _, _ = setup(masked_lm, train_dropout=True)
    model = model.clone(dropout=0.5, attention_dropout=0.5)
    twice = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 2, axis=0), batch)
    step = jax.jit(make_train_step(model, objective, optax.sgd(0.0), 2))
    one = jax.jit(make_train_step(model, objective, optax.sgd(0.0), 1))
    alone = jax.tree.map(lambda leaf: leaf[:1], twice)
    state = init_state(model, optax.sgd(0.0), alone["inputs"], jax.random.key(0))
    losses = [
        float(one(state, alone, jax.random.key(5))[1]["loss"]),
        float(step(state, twice, jax.random.key(5))[1]["loss"]),
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
