"""Scaled dot-product attention behind one function: which keys a query sees, and how it is computed on which device.

Keys that are no real tokens get -10000 added to their score, in f32 and for every query: padded queries attend too,
which changes nothing that is ever read (google-research/bert modeling.py). Keys behind a query, outside of its window
or of another text have no weight at all.

| implementation | what it is | where |
|---|---|---|
| "einsum" | the formula, scores in f32, all of them at once; what the others are tested against | anywhere |
| "xla" | `jax.nn.dot_product_attention`, which holds all scores too | anywhere |
| "cudnn" | cuDNN's flash attention, of bf16 and f16 | an NVIDIA GPU |
| "flash" | `flash.py` | a TPU |

None takes "cudnn" on a GPU where it has what is asked for, "flash" on a TPU from `FLASH_FROM` places on, and "xla"
elsewhere. The device is that of the mesh which is traced for (`sharding.platform`): a step that is compiled on a CPU
machine for a TPU slice has to be the TPU's. `jax.lax.platform_dependent` would settle it later, at lowering, but it
traces every branch everywhere: that of cuDNN cannot be where there is no GPU, and scan keeps what each branch needs
for the backward pass, so the kernel would save nothing.

Dropout on the probabilities has no fused kernel in JAX's public functions. From `BLOCKED_FROM` queries on it goes
through them block by block, and computes each block again in the backward pass, so all scores are never held.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.models.layers.dropout import Part, Stream, dropout
from ctxjax.models.layers.flash import flash

MASKED = -10000.0
HIDDEN = -1e10  # openai/gpt-2 model.py
DEVICES = {"xla": "", "einsum": "", "cudnn": "gpu", "flash": "tpu"}
FLASH_FROM = 512  # places; judged, not measured: below it the scores are small
BLOCKED_FROM, BLOCK = 512, 128  # queries


class Limits(NamedTuple):
    """Which keys a query sees; see `attention`. `queries` are the places of the queries, `packs` the ids of both."""

    mask: Bool[Array, "B S"] | None
    packs: tuple[Int[Array, "B T"], Int[Array, "B S"]] | None
    visible: Bool[Array, "B T S"] | None
    causal: bool
    window: int | None

    def seen(self, queries: Int[Array, " T"], keys: int) -> Bool[Array, "_ T S"] | None:
        """Beside `mask`; None where that is all keys."""
        found = [] if self.visible is None else [self.visible]
        if self.packs is not None:
            found.append(self.packs[0][:, :, None] == self.packs[1][:, None, :])
        distance = queries[:, None] - jnp.arange(keys)[None, :]
        if self.causal:
            found.append((distance >= 0)[None])
        if self.window is not None:
            found.append((jnp.abs(distance) <= self.window)[None])
        if not found:
            return None
        shape = jnp.broadcast_shapes(*(one.shape for one in found))
        whole = jnp.broadcast_to(found[0], shape)
        for one in found[1:]:
            whole = whole & jnp.broadcast_to(one, shape)
        return whole


def attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    pack_ids: Int[Array, "B T"] | None = None,
    key_pack_ids: Int[Array, "B S"] | None = None,
    causal: bool = False,
    visible: Bool[Array, "B T S"] | None = None,
    window: int | None = None,
    rate: float = 0.0,
    rng: Stream | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T H K"]:
    """`softmax(query key^T / sqrt(K) + mask) value`, the softmax in f32.

    Args:
      mask: True where a key may be attended to.
      pack_ids: the number of each query's text among those of its row; it sees the keys of that number alone.
      key_pack_ids: of the keys, where they are not the queries' own.
      causal: query t sees the keys 0 to t alone.
      visible: which keys each query sees, beside all of this; it has no fused kernel.
      window: query t sees the keys t - window to t + window alone.
      rate: dropout on the probabilities, where `rng` is given. Then there is one way whatever `implementation` says:
        block by block, or with "einsum" all at once; the draws are the same.
      implementation: see the top of this file.

    Raises:
      ConfigError: an implementation that is none, or that the device lacks.
    """
    packs = None if pack_ids is None else (pack_ids, pack_ids if key_pack_ids is None else key_pack_ids)
    limits = Limits(mask, packs, visible, causal, window)
    chosen = choose(implementation, query, key, limits)
    if rng is not None and rate > 0.0:
        at_once = chosen == "einsum" or query.shape[1] < BLOCKED_FROM
        return (_at_once if at_once else _in_blocks)(query, key, value, limits, rate, rng)
    if chosen == "einsum":
        return _at_once(query, key, value, limits)
    if chosen == "flash":
        return flash(query, key, value, mask, pack_ids, key_pack_ids, causal=causal, window=window)
    if chosen == "cudnn":
        return _cudnn(query, key, value, limits)
    added = None if mask is None else jnp.where(mask, 0.0, MASKED).astype(jnp.float32)[:, None, None, :]
    seen = limits._replace(causal=False, window=None).seen(jnp.arange(query.shape[1]), key.shape[1])
    return jax.nn.dot_product_attention(
        query, key, value, bias=added, mask=None if seen is None else seen[:, None], is_causal=causal,
        local_window_size=window, implementation="xla",
    )  # fmt: skip


def choose(implementation: str | None, query: Array, key: Array, limits: Limits) -> str:
    """The implementation that is asked for, or by device and shapes."""
    platform, (length, keys) = sharding.platform(), (query.shape[1], key.shape[1])
    if implementation is None:
        if platform == "tpu" and min(length, keys) >= FLASH_FROM and limits.visible is None and _splits():
            return "flash"
        return "cudnn" if platform == "gpu" and _cudnn_has(query, key, limits) else "xla"
    if implementation not in DEVICES:
        raise ConfigError(f"model.attention_implementation={implementation!r} is not one of {', '.join(DEVICES)}")
    if DEVICES[implementation] not in ("", platform):
        raise ConfigError(
            f"model.attention_implementation={implementation!r} needs a {DEVICES[implementation].upper()}, and this is "
            f"a {platform.upper()}: leave it empty, or set 'xla'"
        )
    return "xla" if implementation == "flash" and limits.visible is not None else implementation


def _splits() -> bool:
    """Whether it is known how arrays lie on the devices, which a kernel has to be told."""
    return not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1


def _at_once(
    query: Array, key: Array, value: Array, limits: Limits, rate: float = 0.0, rng: Stream | None = None,
    part: Part | None = None,
) -> Array:  # fmt: skip
    """The formula, for all queries or for a part of them."""
    places = jnp.arange(query.shape[1]) + (0 if part is None else part.start)
    scores = jnp.einsum("bthk,bshk->bhts", query, key, preferred_element_type=jnp.float32)
    scores = scores * (query.shape[-1] ** -0.5)
    if limits.mask is not None:
        added = jnp.where(limits.mask, 0.0, MASKED).astype(jnp.float32)[:, None, None, :]
        scores = scores + jnp.broadcast_to(added, scores.shape)
    if (seen := limits.seen(places, key.shape[1])) is not None:
        scores = jnp.where(seen[:, None], scores, HIDDEN)
    probabilities = dropout(jax.nn.softmax(scores), rate, rng, "attention", part)
    return jnp.einsum("bhts,bshk->bthk", probabilities.astype(value.dtype), value)


def _in_blocks(query: Array, key: Array, value: Array, limits: Limits, rate: float, rng: Stream) -> Array:
    """The same with the scores of `BLOCK` queries at a time, which the backward pass computes again."""
    length = query.shape[1]
    count = -(-length // BLOCK)

    def blocked(leaf: Array | None) -> Array | None:
        if leaf is None:
            return None
        filled = jnp.pad(leaf, [(0, count * BLOCK - length if axis == 1 else 0) for axis in range(leaf.ndim)])
        return jnp.moveaxis(filled.reshape(leaf.shape[0], count, BLOCK, *leaf.shape[2:]), 1, 0)

    def of_block(_: None, block: tuple[Array, Array, Array | None, Array | None]) -> tuple[None, Array]:
        start, queries, ids, visible = block
        packs = None if limits.packs is None or ids is None else (ids, limits.packs[1])
        here = limits._replace(packs=packs, visible=visible)
        return None, _at_once(queries, key, value, here, rate, rng, Part(2, start, length))

    ids = None if limits.packs is None else limits.packs[0]
    blocks = (jnp.arange(count) * BLOCK, blocked(query), blocked(ids), blocked(limits.visible))
    _, out = jax.lax.scan(jax.checkpoint(of_block, prevent_cse=False), None, blocks)
    return jnp.moveaxis(out, 0, 1).reshape(query.shape[0], count * BLOCK, *query.shape[2:])[:, :length]


def _cudnn_has(query: Array, key: Array, limits: Limits) -> bool:
    """Whether cuDNN's flash attention takes these arrays, as JAX 0.10 checks it; it never does more than that."""
    major = str(getattr(jax.devices()[0], "compute_capability", "")).partition(".")[0]  # ROCm's is a name
    width, even = query.shape[-1], query.shape[1] % 2 == key.shape[1] % 2 == 0
    masked = limits._replace(causal=False, window=None if limits.causal else limits.window)
    plain = masked == Limits(None, None, None, False, None)
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and major.isdigit()
        and int(major) >= 8
        and width % 8 == 0
        and width <= (256 if int(major) >= 9 else 128)
        and (plain or even)
    )


def _cudnn(query: Array, key: Array, value: Array, limits: Limits) -> Array:
    """cuDNN's, which has a causal mask and a window to the left; everything else is one mask of all heads."""
    inside = limits.window if limits.causal else None
    rest = limits._replace(causal=False, window=None if limits.causal else limits.window)
    seen = rest.seen(jnp.arange(query.shape[1]), key.shape[1])
    if limits.mask is not None:
        shape = (query.shape[0], query.shape[1], key.shape[1])
        real = jnp.broadcast_to(limits.mask[:, None, :], shape)
        seen = real if seen is None else real & jnp.broadcast_to(seen, shape)
    return jax.nn.dot_product_attention(
        query, key, value, mask=None if seen is None else seen[:, None], is_causal=limits.causal,
        local_window_size=None if inside is None else (inside, 0), implementation="cudnn",
    )  # fmt: skip
