"""Each distinct word once: which positions of a batch hold the same characters, found inside `jit` with static shapes.

About half the words of a batch are repeats. `distinct` sorts the rows by (length, hash of the characters), takes the
first of every run, and checks that all rows of a run are truly equal; if two different words ever meet under one hash,
every position of that group counts as its own word, so the result is exact whatever the hash.

Groups of rows are treated apart along a leading axis, so that a device finds the repeats among its own rows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32


class Distinct(NamedTuple):
    """The distinct words of each group, shortest first.

    Attributes:
      chars: `[G N C]`, of which the first `counts[g]` rows of group g are its distinct words; the rest repeat the last.
      slots: `[G N]`, the row of `chars` that holds each position's word.
      counts: `[G]`.
      lengths: `[G N]`, the length of each row of `chars`.
    """

    chars: Int[Array, "G N C"]
    slots: Int[Array, "G N"]
    counts: Int[Array, " G"]
    lengths: Int[Array, "G N"]


def word_hash(chars: Int[Array, "G N C"]) -> UInt32[Array, "G N"]:
    """A 32-bit hash of each row of characters."""
    size = chars.shape[-1]
    odd = np.random.default_rng(0x5EED).integers(0, 2**31, size, dtype=np.uint32) * 2 + 1
    mixed = (chars.astype(jnp.uint32) + jnp.uint32(1)) * jnp.asarray(odd)[None, None, :]
    mixed = mixed ^ (mixed >> jnp.uint32(15))
    return (mixed * jnp.uint32(0x846CA68B)).sum(-1, dtype=jnp.uint32)


def word_lengths(chars: Int[Array, "G N C"]) -> Int[Array, "G N"]:
    """Characters before the trailing run of one repeated id, whatever id stands for padding."""
    differs = chars != chars[..., -1:]
    return jnp.where(differs, jnp.arange(1, chars.shape[-1] + 1)[None, None, :], 0).max(-1).astype(jnp.int32)


def distinct(chars: Int[Array, "G N C"]) -> Distinct:
    """Find the distinct rows of each group."""
    groups, size, _ = chars.shape
    place = jax.lax.broadcasted_iota(jnp.int32, (groups, size), 1)
    lengths, keys, order = jax.lax.sort((word_lengths(chars), word_hash(chars), place), dimension=1, num_keys=2)
    rows = jnp.take_along_axis(chars, order[:, :, None], axis=1)
    same_key = (lengths[:, 1:] == lengths[:, :-1]) & (keys[:, 1:] == keys[:, :-1])
    same_word = (rows[:, 1:] == rows[:, :-1]).all(-1)
    collided = (same_key & ~same_word).any(1, keepdims=True)
    first = jnp.pad(~same_key | collided, ((0, 0), (1, 0)), constant_values=True)
    slot = jnp.cumsum(first.astype(jnp.int32), axis=1) - 1
    # Back to the order of positions, and to the sorted place of each slot, by sorting: no scatter.
    _, slots = jax.lax.sort((order, slot), dimension=1, num_keys=1)
    _, starts = jax.lax.sort((jnp.where(first, place, size), place), dimension=1, num_keys=1)
    counts = slot[:, -1] + 1
    starts = jnp.take_along_axis(starts, jnp.minimum(place, counts[:, None] - 1), axis=1)
    return Distinct(
        chars=jnp.take_along_axis(rows, starts[:, :, None], axis=1),
        slots=slots,
        counts=counts,
        lengths=jnp.take_along_axis(lengths, starts, axis=1),
    )
