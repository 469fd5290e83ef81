"""Rotary positions: each pair of features of a query or key is turned by an angle that grows with its position, so that
their product depends on the distance alone.

Reference: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding"; features are paired across
the halves of a head, as GPT-NeoX and its successors pair them.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def angles(positions: Int[Array, "B T"], head_width: int, base: float) -> Float[Array, "B T K2"]:
    """The angle of each pair of features at each position, `position * base**(-2 i / K)`."""
    frequencies = base ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    return positions.astype(jnp.float32)[:, :, None] * frequencies[None, None, :]


def rotate(x: Float[Array, "B T H K"], angle: Float[Array, "B T K2"]) -> Float[Array, "B T H K"]:
    """Turn the pairs `(x[i], x[i + K / 2])`; in f32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = (jnp.broadcast_to(f(angle)[:, :, None, :], first.shape) for f in (jnp.cos, jnp.sin))
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
