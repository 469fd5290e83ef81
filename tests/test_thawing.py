"""Gradual unfreezing: the table of the paper and of the script by hand, and Adam with phases against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, tree
from ctxjax.config import ConfigError

NAMES = ("embed/tokens/embedding", "layer_0/lstm/kernel", "layer_1/lstm/kernel", "layer_2/lstm/kernel", "task/kernel")
CONSTANT = {"name": "constant"}
PAPER = (("^layer_2/", "1 epochs"), ("^layer_1/", "2 epochs"), ("^layer_0/", "3 epochs"), ("^embed/", "4 epochs"))
SCRIPT = (("^layer_2/", "1 epochs"), ("^(layer|embed)", "2 epochs"))
# Which groups move in which epoch (of three steps), from the head down.
TABLES = {
    "paper": (PAPER, ["....x", "...xx", "..xxx", ".xxxx", "xxxxx", "xxxxx"]),
    "script": (SCRIPT, ["....x", "...xx", "xxxxx", "xxxxx", "xxxxx", "xxxxx"]),
}


def gradients(step):
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal((2, 3)).astype(np.float32) * 3 for name in NAMES}


def run(steps=18, **fields):
    """The parameters after every update."""
    params = tree.unflatten({name: jnp.ones((2, 3)) for name in NAMES})
    options = {"name": "adamw", "lr": 0.1, "schedule": CONSTANT, "b1": 0.8, "b2": 0.99, "steps_per_epoch": 3}
    tx, _ = optim.make_optimizer(18, params, **(options | fields))
    state, update, seen = tx.init(params), jax.jit(tx.update), []
    for step in range(steps):
        updates, state = update(tree.unflatten(gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
        seen.append({name: np.asarray(leaf) for name, leaf in tree.flatten(params).items()})
    return seen


@pytest.mark.parametrize("recipe", TABLES)
def test_the_table_of_groups_by_hand(recipe):
    thaw, table = TABLES[recipe]
    before, moved = {name: np.ones((2, 3)) for name in NAMES}, []
    for after in run(thaw=thaw, weight_decay=0.1, decay_exclude=""):
        moved.append("".join("." if np.array_equal(after[name], before[name]) else "x" for name in NAMES))
        before = after
    assert moved == [row for row in table for _ in range(3)]


def test_adam_begins_anew_with_each_phase_and_the_clip_sees_what_is_trained():
    """NumPy: an optimiser for each phase, made at its start, of the parameters that it trains."""
    thaw, table = TABLES["script"]
    params = {name: np.ones((2, 3)) for name in NAMES}
    mine = run(thaw=thaw, clip=2.0)
    for epoch, row in enumerate(table):
        trained = [name for name, mark in zip(NAMES, row) if mark == "x"]
        if epoch < 3:
            moments, count = {name: (0.0, 0.0) for name in trained}, 0
        for step in range(3 * epoch, 3 * epoch + 3):
            made = {name: gradients(step)[name].astype(np.float64) for name in trained}
            norm = np.sqrt(sum((value**2).sum() for value in made.values()))
            count += 1
            for name in trained:
                gradient = made[name] * min(1.0, 2.0 / norm)
                m, v = moments[name]
                m, v = 0.8 * m + 0.2 * gradient, 0.99 * v + 0.01 * gradient**2
                moments[name] = m, v
                params[name] = params[name] - 0.1 * (m / (1 - 0.8**count)) / (np.sqrt(v / (1 - 0.99**count)) + 1e-8)
            for name in NAMES:
                np.testing.assert_allclose(mine[step][name], params[name], rtol=2e-5, atol=2e-6)


def test_mistakes_are_named():
    for thaw, message in (
        ((("^nothing", "1 epochs"),), "'\\^nothing' matches no parameter"),
        ((("^embed", "6 epochs"),), "the run has 18 steps"),
        (((".*", "1 epochs"),), "leaves no parameter to train"),
        ((("^embed", "soon"),), "config.optim.thaw='soon' is not a length"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(0, thaw=thaw)
    with pytest.raises(ConfigError, match="must be in steps or percent"):
        run(0, thaw=PAPER, steps_per_epoch=None)
