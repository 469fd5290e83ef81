"""What objectives of running text share: the state of a lane goes on from batch to batch, and starts anew."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ctxjax.types import Carry


def restart(carry: Carry, is_first: Bool[Array, " B"]) -> Carry:
    """The carry, zero in the lanes where text begins."""

    def one(leaf: Array) -> Array:
        first = is_first.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(first, jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(one, carry)
