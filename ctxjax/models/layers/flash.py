"""Attention on TPUs without an array of scores: JAX's own Pallas kernel, on each device's rows and heads.

The compiler cannot split a kernel over a mesh, so that is done here: rows over data and fsdp, heads over tensor, as
`ctxjax/sharding.py` has them, each as far as it divides. The mesh is the one that is traced for (`sharding.on`).
Which keys a query sees is said twice: what is known beforehand (causal, window) lets whole blocks be left out, numbers
of texts and padding are compared within a block.

Compiled for a v5e slice and run by the interpreter, forward and backward, in the tests; on a TPU it was never run.

Reference: Dao et al. 2022, "FlashAttention"; jax.experimental.pallas.ops.tpu.splash_attention.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from ctxjax.sharding import ROWS

LANES = 128  # the kernel's blocks are multiples of it
BLOCKS = (512, 256, LANES)  # queries and keys of a block, the largest that divides
NOBODY = -1  # the number of keys that no query sees


def flash(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    pack_ids: Int[Array, "B T"] | None = None,
    key_pack_ids: Int[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """What `attention` gives but for queries that see nothing real, whose output is finite and of no meaning.

    Args:
      mask, pack_ids, key_pack_ids, causal, window: as in `attention`.
      interpret: run the kernel's program step by step, on any device.
    """
    (rows, length, heads, width), keys = query.shape, key.shape[1]
    ids = None
    padded = [-(-size // LANES) * LANES for size in (length, keys)]
    if mask is not None or pack_ids is not None or padded[1] != keys:
        theirs = jnp.zeros((rows, length), jnp.int32) if pack_ids is None else pack_ids
        given = pack_ids if key_pack_ids is None else key_pack_ids
        ours = jnp.zeros((rows, keys), jnp.int32) if given is None else given
        ours = ours if mask is None else jnp.where(mask, ours, NOBODY)
        ids = tuple(_filled(leaf, size, NOBODY) for leaf, size in zip((theirs, ours), padded))
    scaled = (query.astype(jnp.float32) * width**-0.5).astype(query.dtype)  # the kernel does not scale
    leaves = [_filled(leaf, size, 0) for leaf, size in zip((scaled, key, value), (padded[0], padded[1], padded[1]))]
    run = functools.partial(_local, causal=causal, window=window, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return run(*leaves, ids)[:, :length]
    across, over = _dividing(mesh, ROWS, rows), _dividing(mesh, ("tensor",), heads)
    spec = P(across, None, over, None)
    split = jax.shard_map(run, mesh=mesh, in_specs=(spec, spec, spec, P(across, None)), out_specs=spec, check_vma=False)
    return split(*leaves, ids)[:, :length]


def _local(query: Array, key: Array, value: Array, ids: Any, *, causal: bool, window: int | None, interpret: bool):
    """The kernel on the rows and heads of one device."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (query.shape[1], key.shape[1])
    if window is not None:
        one = masks.LocalMask(shape, (window, 0 if causal else window), 0)
    else:
        one = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    queries, keys = (next(block for block in BLOCKS if size % block == 0) for size in shape)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * query.shape[2]),
        block_sizes=kernels.BlockSizes(queries, keys, keys, queries, keys, keys, queries, keys),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    heads_first = [leaf.swapaxes(1, 2) for leaf in (query, key, value)]
    numbers = None if ids is None else kernels.SegmentIds(*ids)
    return jax.vmap(kernel)(*heads_first, numbers).swapaxes(1, 2)


def _filled(leaf: Array, size: int, value: int) -> Array:
    """An array filled up along axis 1."""
    return jnp.pad(leaf, [(0, size - leaf.shape[1] if axis == 1 else 0) for axis in range(leaf.ndim)], "constant",
                   constant_values=value)  # fmt: skip


def _dividing(mesh: Any, axes: Sequence[str], size: int) -> tuple[str, ...] | None:
    """The axes of the mesh over which an array axis of that size is split, None where they do not divide it."""
    there = tuple(name for name in axes if name in mesh.shape)
    count = 1
    for name in there:
        count *= mesh.shape[name]
    return there if there and size % count == 0 else None
