"""A small train state whose every number follows from its step, for the checkpoint tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ctxjax import sharding
from ctxjax.step import TrainState


def state_of(step: int, rows: int = 64, width: int = 32) -> TrainState:
    """Parameters, Adam slots and a carry of several shapes and dtypes."""
    rng = np.random.default_rng(step)

    def draw(*shape, dtype=np.float32):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    params = {
        "embed": {"tokens": {"embedding": draw(rows, width)}},
        "layer_0": {"mlp": {"in": {"kernel": draw(width, 2 * width), "bias": draw(2 * width)}}},
        "head": {"scale": draw(), "half": draw(8, 4, dtype=jnp.bfloat16)},
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt_state = jax.tree.map(
        lambda leaf: draw(*leaf.shape) if leaf.ndim else leaf + step,
        tx.init(params),
    )
    return TrainState(jnp.asarray(step, jnp.int32), params, opt_state, carry=(draw(8, 2, 3), draw(8, 5)))


def place(state: TrainState, mesh) -> TrainState:
    shardings, _ = sharding.state_shardings(mesh, state)
    return jax.device_put(state, shardings)


def abstract_on(state: TrainState, mesh) -> TrainState:
    shardings, _ = sharding.state_shardings(mesh, state)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, shardings
    )


def same(one, other) -> bool:
    """Equal structure, shapes, dtypes and bits."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
