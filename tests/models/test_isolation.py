"""Texts that share a row do not see one another: by gradient, exactly, and each is what it is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models import bert, gpt, gpt2, modernbert
from ctxjax.objectives import causal_lm
from ctxjax.step import Forward

MODELS = {"bert": bert, "modernbert": modernbert, "gpt": gpt, "gpt2": gpt2}
COUNTS = (4, 7, 5)  # texts of a row, and two places of padding behind them
LENGTH = 18
KEY = jax.random.key(0)
PACKS = np.pad(np.repeat(np.arange(1, 4), COUNTS), (0, 2))
PLACES = np.concatenate([np.arange(count) for count in COUNTS] + [[0, 0]])


def packed():
    tokens = np.where(PACKS > 0, np.random.default_rng(0).integers(1, 53, LENGTH), 0)
    inputs = {"tokens": tokens, "pack_ids": PACKS, "positions": PLACES}
    mask = {"mask": jnp.array(PACKS > 0)[None]}
    return {name: jnp.asarray(leaf[None], jnp.int32) for name, leaf in inputs.items()} | mask


def made(name, **fields):
    model = MODELS[name].tiny().clone(**fields)
    params = model.init(KEY, packed(), method="touch")["params"]
    noise = lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)
    return model, jax.tree.map(noise, params)


def table(params):
    """The node that holds the rows of words."""
    return params["embed"]["tokens"]["embedding"]


@pytest.mark.parametrize("implementation", [None, "einsum"])
@pytest.mark.parametrize("name", MODELS)
def test_a_word_has_no_gradient_on_another_text(name, implementation):
    """Exactly zero, not small; and not zero within its own."""
    model, params = made(name, attention_implementation=implementation)
    inputs = packed()
    inputs["tokens"] = jnp.arange(LENGTH, dtype=jnp.int32)[None]  # every place has a row of the table to itself
    weights = jax.random.normal(KEY, (LENGTH, model.width))

    def outputs(embedding):
        given = {**params, "embed": {**params["embed"], "tokens": {"embedding": embedding}}}
        hidden = model.apply({"params": given}, inputs).hidden[-1][0]
        return (hidden * weights).sum(axis=1)

    reach = np.abs(np.asarray(jax.jit(jax.jacrev(outputs))(table(params)))[:, :LENGTH]).max(axis=2)
    same = PACKS[:, None] == PACKS[None, :]
    if name.startswith("gpt"):
        same &= np.tri(LENGTH, dtype=bool)
    assert not reach[~same].any()
    real = PACKS > 0
    assert (reach[real][:, real] > 0)[same[real][:, real]].all()


@pytest.mark.parametrize("name", MODELS)
def test_a_text_in_a_row_is_the_text_alone(name):
    model, params = made(name)
    together = model.apply({"params": params}, packed()).hidden
    for number in (1, 2, 3):
        here = PACKS == number
        alone = model.apply({"params": params}, {"tokens": packed()["tokens"][:, here]}).hidden
        for left, right in zip(together, alone):
            np.testing.assert_allclose(left[:, here], right, atol=2e-6)


def test_the_loss_of_isolated_documents_is_that_of_each_alone():
    model, params = made("gpt2")
    inputs = {**packed(), "mask": jnp.ones((1, LENGTH), bool)}
    targets, inside = jnp.roll(inputs["tokens"], -1, axis=1), np.append(PACKS[1:] == PACKS[:-1], False) & (PACKS > 0)
    batch = {"inputs": inputs, "targets": targets, "weights": jnp.asarray(inside[None], jnp.float32)}
    forward, objective = Forward(model, params, KEY, train=False), causal_lm.Objective()
    together, total = objective(forward, batch)[0]["lm"], 0.0
    assert float(together.weight) == sum(COUNTS) - len(COUNTS)
    for number in (1, 2, 3):
        tokens = inputs["tokens"][:, PACKS == number]
        alone = {"inputs": {"tokens": tokens[:, :-1]}, "targets": tokens[:, 1:]}
        alone["weights"] = jnp.ones(alone["targets"].shape)
        total += float(objective(forward, alone)[0]["lm"].total)
    assert float(together.total) == pytest.approx(total, rel=2e-6)


def test_a_cache_holds_one_text_a_row():
    model, params = made("gpt2")
    with pytest.raises(ValueError, match=r"inputs\.pack_ids do not go with a cache"):
        model.apply({"params": params}, packed(), model.init_carry(1, 20))
