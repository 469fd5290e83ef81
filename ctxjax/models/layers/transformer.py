"""Self-attention and the two-layer MLP of a Transformer block, as BERT and the GPTs share them, and the order of norms,
dropout and residual sums that BERT and GPT have; GPT-2's is its own.

Reference: Vaswani et al. 2017, "Attention Is All You Need".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.attention import attention
from ctxjax.models.layers.core import Dense, LayerNorm, affine, truncated_normal
from ctxjax.models.layers.dropout import Stream, dropout

Initializer = jax.nn.initializers.Initializer


class Cache(NamedTuple):
    """Keys and values of the tokens so far, and how many there are in each row; M is the most there can be.

    Places at and behind `used` hold nothing that is ever attended to.
    """

    key: Float[Array, "B M H K"]
    value: Float[Array, "B M H K"]
    used: Int[Array, " B"]


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value are three parameters and one product.

    Attributes:
      causal: a token attends to itself and to those before it.
      init, out_init: of the kernels of query, key and value, and of the last product.
    """

    width: int
    num_heads: int
    dropout: float
    implementation: str | None
    kinds: Mapping[str, Any]
    causal: bool = False
    init: Initializer = truncated_normal(0.02)
    out_init: Initializer = truncated_normal(0.02)

    def setup(self) -> None:
        self.query = Dense(self.width, self.width, self.init, **self.kinds)
        self.key = Dense(self.width, self.width, self.init, **self.kinds)
        self.value = Dense(self.width, self.width, self.init, **self.kinds)
        self.out = Dense(self.width, self.width, self.out_init, **self.kinds)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        rng: Stream | None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Attend among the tokens given, or among those of a cache and then these, which it takes in."""
        parts = (self.query, self.key, self.value)
        kernel = jnp.concatenate([part.kernel for part in parts], axis=1)
        bias = jnp.concatenate([part.bias for part in parts])
        fused = affine(x, kernel, bias, self.kinds["dtype"])
        heads = (self.num_heads, self.width // self.num_heads)
        query, key, value = (part.reshape(*x.shape[:2], *heads) for part in jnp.split(fused, 3, axis=-1))
        options = {"rate": self.dropout, "rng": rng, "implementation": self.implementation}
        if cache is None:
            mixed = attention(query, key, value, mask, causal=self.causal, **options)
        else:
            cache, places = _extend(cache, key, value, mask)
            visible = jnp.arange(cache.key.shape[1])[None, None, :] <= places[:, :, None]
            kept = (leaf.astype(query.dtype) for leaf in (cache.key, cache.value))
            mixed = attention(query, *kept, visible=visible, **options)
        return self.out(mixed.reshape(x.shape)), cache


def _extend(cache: Cache, key: Array, value: Array, mask: Array | None) -> tuple[Cache, Int[Array, "B T"]]:
    """The cache with the new tokens behind the old ones, and their places. Padding is behind a row's tokens."""
    rows, length = key.shape[:2]
    places = cache.used[:, None] + jnp.arange(length)[None, :]
    count = jnp.full((rows,), length) if mask is None else mask.sum(axis=1)
    where = (jnp.arange(rows)[:, None], places)
    keys = cache.key.at[where].set(key.astype(cache.key.dtype), mode="drop")
    values = cache.value.at[where].set(value.astype(cache.value.dtype), mode="drop")
    return Cache(keys, values, cache.used + count.astype(cache.used.dtype)), places


def gelu(x: Float[Array, "... D"], activation: str) -> Float[Array, "... D"]:
    """The published tanh approximation ("gelu_tanh"), or the exact GELU ("gelu") of weights trained elsewhere."""
    return jax.nn.gelu(x, approximate=activation == "gelu_tanh")


class MLP(nn.Module):
    """Two dense layers with a GELU between them."""

    width: int
    mlp_dim: int
    activation: str
    kinds: Mapping[str, Any]
    init: Initializer = truncated_normal(0.02)
    out_init: Initializer = truncated_normal(0.02)

    def setup(self) -> None:
        setattr(self, "in", Dense(self.width, self.mlp_dim, self.init, **self.kinds))
        self.out = Dense(self.mlp_dim, self.width, self.out_init, **self.kinds)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.out(gelu(getattr(self, "in")(x), self.activation))


class PostNorm(nn.Module):
    """Attention and MLP, each followed by dropout, the residual sum and LayerNorm."""

    width: int
    num_heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    implementation: str | None
    kinds: Mapping[str, Any]
    activation: str = "gelu_tanh"
    causal: bool = False
    init: Initializer = truncated_normal(0.02)
    epsilon: float = 1e-12

    def setup(self) -> None:
        self.attention = Attention(
            self.width,
            self.num_heads,
            self.attention_dropout,
            self.implementation,
            self.kinds,
            self.causal,
            self.init,
            self.init,
        )
        self.attention_norm = LayerNorm(self.width, self.epsilon, **self.kinds)
        self.mlp = MLP(self.width, self.mlp_dim, self.activation, self.kinds, self.init, self.init)
        self.mlp_norm = LayerNorm(self.width, self.epsilon, **self.kinds)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        rng: Stream | None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        mixed, cache = self.attention(x, mask, rng, cache)
        x = self.attention_norm(x + dropout(mixed, self.dropout, rng, "attention_out"))
        return self.mlp_norm(x + dropout(self.mlp(x), self.dropout, rng, "mlp_out")), cache
