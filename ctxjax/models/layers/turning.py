"""Rows turned round within their own lengths, so that a recurrent layer reads them from their end."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def turned_places(length: int, mask: Bool[Array, "B T"] | None, rows: int) -> Int[Array, "B T"]:
    """Where each place of a row turned round within its own length comes from; padding stays. Its own inverse."""
    places = jnp.arange(length)[None, :]
    if mask is None:
        return jnp.broadcast_to(length - 1 - places, (rows, length))
    last = mask.sum(axis=1, keepdims=True) - 1
    return jnp.where(places <= last, last - places, places)


def pick(x: Float[Array, "B T D"], places: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The values at some places of every row."""
    return jnp.take_along_axis(x, places[:, :, None], axis=1)
