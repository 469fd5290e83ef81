"""Random keys as a function of (root, step, name): nothing random is ever stored, so resuming needs no key state."""

from __future__ import annotations

import zlib

import jax
from jaxtyping import Array


def root_key(seed: int) -> Array:
    """The one key of a run."""
    return jax.random.key(seed)


def named_key(key: Array, name: str) -> Array:
    """A key for one purpose; the same name gives the same key in every process and version (CRC-32 of the name)."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(root: Array, step: Array | int, name: str) -> Array:
    """The key of one purpose at one step."""
    return named_key(jax.random.fold_in(root, step), name)
