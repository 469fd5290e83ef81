"""What holds for every objective file, found by itself: its terms split exactly, and its loss can be learned."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ctxjax.objectives
from ctxjax.step import Forward, init_state, make_train_step, weighted_loss
from ctxjax.types import Objective

MODULES = [
    importlib.import_module(f"ctxjax.objectives.{found.name}")
    for found in pkgutil.iter_modules(ctxjax.objectives.__path__)
]
NAMES = [module.__name__.rpartition(".")[2] for module in MODULES if hasattr(module, "Objective")]


@pytest.fixture(scope="module", params=NAMES)
def made(request):
    model, objective, batch = importlib.import_module(f"ctxjax.objectives.{request.param}").example()
    rows = len(jax.tree.leaves(batch)[0])
    state = init_state(model, optax.sgd(0.1), batch["inputs"], jax.random.key(0), carry_rows=rows)
    return model, objective, batch, state


def terms_of(model, objective, params, batch, carry):
    return objective(Forward(model, params, jax.random.key(1), train=False), batch, carry)


def test_terms_and_weights(made):
    model, objective, batch, state = made
    assert isinstance(objective, Objective)
    terms, carry = terms_of(model, objective, state.params, batch, state.carry)
    assert set(objective.loss) <= set(terms) and set(objective.weights(batch)) == set(objective.loss)
    assert jax.tree.structure(carry) == jax.tree.structure(state.carry)
    for name, mean in terms.items():
        assert mean.total.shape == mean.weight.shape == () and np.isfinite(float(mean.total)), name
    for name, weight in objective.weights(batch).items():
        assert float(weight) == pytest.approx(float(terms[name].weight), abs=1e-4)
    assert set(objective.perplexity) <= set(terms)
    assert float(objective.flops(model, batch)) > 0


def test_splitting_the_batch_changes_nothing(made):
    model, objective, batch, state = made
    whole, carry = terms_of(model, objective, state.params, batch, state.carry)

    def of_rows(start, stop):
        piece = jax.tree.map(lambda leaf: leaf[start:stop], (batch, state.carry))
        return terms_of(model, objective, state.params, *piece)

    (first, first_carry), (rest, rest_carry) = of_rows(0, 1), of_rows(1, 4)
    for name in whole:
        total = first[name] + rest[name]
        np.testing.assert_allclose(total.total, whole[name].total, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(total.weight, whole[name].weight, rtol=1e-6)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), first_carry, rest_carry)
    for left, right in zip(jax.tree.leaves(joined), jax.tree.leaves(carry)):
        np.testing.assert_allclose(left, right, atol=2e-6)


def test_positions_without_weight_do_not_matter(made):
    model, objective, batch, state = made
    silent = batch["weights"] == 0
    assert silent.any()
    other = dict(batch, targets=jnp.where(silent, (batch["targets"] + 1) % model.vocab_size, batch["targets"]))
    one, two = (terms_of(model, objective, state.params, which, state.carry)[0] for which in (batch, other))
    for name in one:
        np.testing.assert_allclose(one[name].total, two[name].total, rtol=1e-6)


def test_the_loss_falls_on_one_repeated_batch(made):
    model, objective, batch, state = made
    model = model.clone(dropout=0.0, **({"attention_dropout": 0.0} if hasattr(model, "attention_dropout") else {}))
    tx = optax.adam(1e-2)
    state = state.replace(opt_state=tx.init(state.params))
    step = jax.jit(make_train_step(model, objective, tx))
    losses = []
    for _ in range(60):
        state, metrics = step(state.replace(carry=jax.tree.map(jnp.zeros_like, state.carry)), batch, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0], losses[::10]


def test_the_loss_is_the_weighted_sum_of_its_terms(made):
    model, objective, batch, state = made
    terms, _ = terms_of(model, objective, state.params, batch, state.carry)
    expected = sum(
        scale * float(terms[name].total / objective.weights(batch)[name]) for name, scale in objective.loss.items()
    )
    assert float(weighted_loss(objective, terms, objective.weights(batch))) == pytest.approx(expected, rel=1e-6)
