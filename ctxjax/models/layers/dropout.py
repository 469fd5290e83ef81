"""Dropout whose mask is a hash of (key, row, place in the row): cheap, never stored, the same on any mesh.

A counter-based cipher such as threefry costs 6 ns an element on two CPU cores, more than the layers around it. Dropout
needs no cipher: three rounds of a 32-bit integer finaliser, each keyed anew, fuse into the multiplication (0.2 ns). The
backward pass computes the mask again instead of keeping it.
"""

from __future__ import annotations

import functools
import math
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

Stream = UInt32[Array, " 2"]  # what all masks of a call derive from


class Part(NamedTuple):
    """An array that is a piece of a larger one: from `start` on, of `size` places along `axis` (not that of the rows).

    Its draws are those that the larger one has there.
    """

    axis: int
    start: Int[Array, ""]
    size: int


def _round(x: Array, multiplier: int, shift: int) -> Array:
    x = x * jnp.uint32(multiplier)
    return x ^ (x >> jnp.uint32(shift))


def stream(key: Array) -> Stream:
    """The stream of a JAX key. Deriving more from it costs a few integer operations, a `fold_in` hundreds."""
    return jax.random.key_data(key).astype(jnp.uint32)[:2]


def substream(parent: Stream, name: str) -> Stream:
    """The stream of one purpose."""
    salt = zlib.crc32(name.encode())
    left = _round(_round((parent[0] ^ jnp.uint32(salt)) + parent[1], 0x7FEB352D, 15), 0x846CA68B, 16)
    right = _round(_round((parent[1] ^ left) + jnp.uint32(0x9E3779B9), 0x21F0AAAD, 15), 0x735A2D97, 15)
    return jnp.stack([left, right])


def keyed_bits(key: Stream, shape: tuple[int, ...], part: Part | None = None) -> UInt32[Array, " ..."]:
    """Uniform 32-bit words, a pure function of the key, the row (axis 0) and the place within the row.

    The row is hashed on its own, so arrays of more than 2**32 elements never repeat a pattern from row to row.

    Args:
      shape: of what is made. part: where that lies in the array whose places are counted.
    """
    row = jax.lax.broadcasted_iota(jnp.uint32, (shape[0],) + (1,) * (len(shape) - 1), 0)
    row = _round(_round((row ^ key[0]) * jnp.uint32(0x9E3779B9) + key[1], 0x21F0AAAD, 15), 0x735A2D97, 15)
    place, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(1, len(shape))):
        along, size = jax.lax.broadcasted_iota(jnp.uint32, shape, axis), shape[axis]
        if part is not None and axis == part.axis:
            along, size = along + part.start.astype(jnp.uint32), part.size
        place = place + along * jnp.uint32(stride)
        stride *= size
    x = place ^ jnp.broadcast_to(row, shape)
    x = _round(x ^ (x >> jnp.uint32(16)), 0x7FEB352D, 15)
    x = _round(x + key[0], 0x846CA68B, 16)
    return _round(x ^ key[1], 0x9E3779B1, 15)


def keep_mask(key: Stream, shape: tuple[int, ...], rate: float, part: Part | None = None) -> Bool[Array, " ..."]:
    """True with probability `1 - rate`, to 2**-32."""
    return keyed_bits(key, shape, part) >= jnp.uint32(min(2**32 - 1, round(rate * 2**32)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _dropout(x: Array, key: Array, start: Array | None, rate: float, where: tuple[int, int]) -> Array:
    part = None if start is None else Part(where[0], start, where[1])
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(keep_mask(key, x.shape, rate, part), x * scale, jnp.zeros((), x.dtype))


def _forward(x: Array, key: Array, start: Array | None, rate: float, where: tuple[int, int]):
    return _dropout(x, key, start, rate, where), (key, start)


def _backward(rate: float, where: tuple[int, int], kept: tuple[Array, Array | None], gradient: Array):
    return _dropout(gradient, *kept, rate, where), None, None


_dropout.defvjp(_forward, _backward)


def dropout(
    x: Float[Array, " ..."], rate: float, parent: Stream | None, name: str, part: Part | None = None
) -> Float[Array, " ..."]:
    """Zero each element with probability `rate` and scale the rest by `1 / (1 - rate)`.

    Args:
      x: axis 0 are the rows of the batch.
      rate: 0 <= rate < 1.
      parent: a stream, or None outside training.
      name: the purpose; one stream serves many layers under different names.
      part: of which array `x` is a piece; None where it is whole.
    """
    if parent is None or rate == 0.0 or math.prod(x.shape) == 0:
        return x
    start, where = (None, (0, 0)) if part is None else (part.start, (part.axis, part.size))
    return _dropout(x, substream(parent, name), start, rate, where)


def locked_dropout(x: Float[Array, "T B D"], rate: float, parent: Stream | None, name: str) -> Float[Array, "T B D"]:
    """Dropout whose mask is shared over time: a row of the batch loses the same features at every step.

    Reference: Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
    """
    if parent is None or rate == 0.0 or math.prod(x.shape) == 0:
        return x
    keep = keep_mask(substream(parent, name), x.shape[1:], rate)
    return x * jnp.where(keep, 1.0 / (1.0 - rate), 0.0).astype(x.dtype)[None]


def row_dropout(
    table: Float[Array, "V D"], ids: Int[Array, " ..."], rate: float, parent: Stream | None, name: str
) -> Float[Array, "... D"]:
    """Rows of a table, of which whole rows are zero for this call and the others scaled by `1 / (1 - rate)`."""
    if parent is None or rate == 0.0:
        return table[ids]
    keep = keep_mask(substream(parent, name), table.shape[:1], rate)
    return table[ids] * jnp.where(keep, 1.0 / (1.0 - rate), 0.0).astype(table.dtype)[ids][..., None]
