"""Scaled dot-product attention behind one function, with BERT's additive mask of keys and the GPTs' causal one.

Keys that are no real tokens get -10000 added to their score, in f32 and for every query: padded queries attend too,
which changes nothing that is ever read (google-research/bert modeling.py). Keys behind a query have no weight at all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.models.layers.dropout import Stream, dropout

MASKED = -10000.0
HIDDEN = -1e10  # openai/gpt-2 model.py


def attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
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
      causal: query t sees the keys 0 to t alone.
      visible: which keys each query sees, beside what `causal` leaves.
      window: query t sees the keys t - window to t + window alone.
      rate: dropout on the probabilities, where `rng` is given.
      implementation: None or "xla", "cudnn" (`jax.nn.dot_product_attention`'s), or "einsum", the plain reference.
        Dropout on the probabilities always takes the einsum path: no fused kernel of JAX has it.
    """
    bias = None if mask is None else jnp.where(mask, 0.0, MASKED).astype(jnp.float32)[:, None, None, :]
    dropping = rng is not None and rate > 0.0
    if not dropping and implementation != "einsum":
        seen = None if visible is None else visible[:, None]
        return jax.nn.dot_product_attention(
            query, key, value, bias=bias, mask=seen, is_causal=causal, local_window_size=window,
            implementation=implementation,
        )  # fmt: skip
    scores = jnp.einsum("bthk,bshk->bhts", query, key, preferred_element_type=jnp.float32)
    scores = scores * (query.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores + jnp.broadcast_to(bias, scores.shape)
    if causal:
        before = jnp.tril(jnp.ones((1, *scores.shape[2:]), bool))
        visible = before if visible is None else jnp.broadcast_to(before, visible.shape) & visible
    if window is not None:
        distance = jnp.arange(scores.shape[2])[:, None] - jnp.arange(scores.shape[3])[None, :]
        near = (jnp.abs(distance) <= window)[None]
        visible = near if visible is None else jnp.broadcast_to(near, visible.shape) & visible
    if visible is not None:
        scores = jnp.where(visible[:, None], scores, HIDDEN)
    probabilities = dropout(jax.nn.softmax(scores), rate, rng, "attention")
    return jnp.einsum("bhts,bshk->bthk", probabilities.astype(value.dtype), value)
