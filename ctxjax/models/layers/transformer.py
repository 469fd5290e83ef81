"""Attention and the two-layer MLP of a Transformer block, as all Transformers here share them, and the order of norms,
dropout and residual sums that BERT and GPT have; that of other models is their own.

Reference: Vaswani et al. 2017, "Attention Is All You Need".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.attention import attention
from ctxjax.models.layers.core import Dense, LayerNorm, affine, truncated_normal
from ctxjax.models.layers.dropout import Stream, dropout
from ctxjax.models.layers.rotary import rotate

Initializer = jax.nn.initializers.Initializer


class Cache(NamedTuple):
    """Keys and values of the tokens so far, and how many there are in each row; M is the most there can be.

    Places at and behind `used` hold nothing that is ever attended to.
    """

    key: Float[Array, "B M H K"]
    value: Float[Array, "B M H K"]
    used: Int[Array, " B"]


Memory = tuple[Float[Array, "B S H K"], Float[Array, "B S H K"]]  # keys and values of another sequence


class Attention(nn.Module):
    """Multi-head attention, among the tokens of one sequence (`__call__`) or from them to another's (`over`).

    Query, key and value are three parameters; among themselves they are one product.

    Attributes:
      causal: a token attends to itself and to those before it.
      init, out_init: of the kernels of query, key and value, and of the last product.
      use_bias: of all four products.
      window: a token attends to so many on each side alone; None for all.
    """

    width: int
    num_heads: int
    dropout: float
    implementation: str | None
    kinds: Mapping[str, Any]
    causal: bool = False
    init: Initializer = truncated_normal(0.02)
    out_init: Initializer = truncated_normal(0.02)
    use_bias: bool = True
    window: int | None = None

    def setup(self) -> None:
        kinds = {**self.kinds, "use_bias": self.use_bias}
        self.query = Dense(self.width, self.width, self.init, **kinds)
        self.key = Dense(self.width, self.width, self.init, **kinds)
        self.value = Dense(self.width, self.width, self.init, **kinds)
        self.out = Dense(self.width, self.width, self.out_init, **kinds)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        rng: Stream | None,
        cache: Cache | None = None,
        pack_ids: Int[Array, "B T"] | None = None,
        angle: Float[Array, "B T K2"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Attend among the tokens given, or among those of a cache and then these, which it takes in.

        Args:
          pack_ids: the number of each token's text; it sees those of its own alone. Without a cache.
          angle: by which query and key are turned (`layers/rotary.py`), the places of the tokens; None turns nothing.
        """
        query, key, value = self._project(x, (self.query, self.key, self.value))
        if angle is not None:
            query, key = rotate(query, angle), rotate(key, angle)
        options = {"rate": self.dropout, "rng": rng, "implementation": self.implementation}
        if cache is None:
            mixed = attention(
                query, key, value, mask, pack_ids=pack_ids, causal=self.causal, window=self.window, **options
            )
        else:
            cache, places = _extend(cache, key, value, mask)
            visible = jnp.arange(cache.key.shape[1])[None, None, :] <= places[:, :, None]
            kept = (leaf.astype(query.dtype) for leaf in (cache.key, cache.value))
            mixed = attention(query, *kept, visible=visible, **options)
        return self.out(mixed.reshape(x.shape)), cache

    def memory(self, x: Float[Array, "B S D"]) -> Memory:
        """Keys and values of a sequence that others attend to."""
        key, value = self._project(x, (self.key, self.value))
        return key, value

    def over(
        self,
        x: Float[Array, "B T D"],
        memory: Memory,
        mask: Bool[Array, "B S"] | None,
        rng: Stream | None,
        pack_ids: Int[Array, "B T"] | None = None,
        memory_pack_ids: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Attend from these tokens to those of a memory, of which `mask` says what is real; of packed rows to those
        of the same number."""
        (query,) = self._project(x, (self.query,))
        kept = (leaf.astype(query.dtype) for leaf in memory)
        packs = {"pack_ids": pack_ids, "key_pack_ids": memory_pack_ids}
        options = {"rate": self.dropout, "rng": rng, "implementation": self.implementation}
        return self.out(attention(query, *kept, mask, **packs, **options).reshape(x.shape))

    def _project(self, x: Float[Array, "B T D"], parts: Sequence[Dense]) -> list[Float[Array, "B T H K"]]:
        """Several products of one input as one."""
        kernel = jnp.concatenate([part.kernel for part in parts], axis=1)
        bias = jnp.concatenate([part.bias for part in parts]) if self.use_bias else None
        fused = affine(x, kernel, bias, self.kinds["dtype"])
        heads = (self.num_heads, self.width // self.num_heads)
        return [part.reshape(*x.shape[:2], *heads) for part in jnp.split(fused, len(parts), axis=-1)]


def _extend(cache: Cache, key: Array, value: Array, mask: Array | None) -> tuple[Cache, Int[Array, "B T"]]:
    """The cache with the new tokens behind the old ones, and their places. Padding is behind a row's tokens."""
    rows, length = key.shape[:2]
    places = cache.used[:, None] + jnp.arange(length)[None, :]
    count = jnp.full((rows,), length) if mask is None else mask.sum(axis=1)
    where = (jnp.arange(rows)[:, None], places)
    keys = cache.key.at[where].set(key.astype(cache.key.dtype), mode="drop")
    values = cache.value.at[where].set(value.astype(cache.value.dtype), mode="drop")
    return Cache(keys, values, cache.used + count.astype(cache.used.dtype)), places


def activate(x: Float[Array, "... D"], activation: str) -> Float[Array, "... D"]:
    """ReLU ("relu"), or `gelu` of its two kinds."""
    return jax.nn.relu(x) if activation == "relu" else gelu(x, activation)


def gelu(x: Float[Array, "... D"], activation: str) -> Float[Array, "... D"]:
    """The published tanh approximation ("gelu_tanh"), or the exact GELU ("gelu") of weights trained elsewhere."""
    return jax.nn.gelu(x, approximate=activation == "gelu_tanh")


class MLP(nn.Module):
    """Two dense layers with an activation between them, and dropout behind that where the model has it."""

    width: int
    mlp_dim: int
    activation: str
    kinds: Mapping[str, Any]
    init: Initializer = truncated_normal(0.02)
    out_init: Initializer = truncated_normal(0.02)
    dropout: float = 0.0

    def setup(self) -> None:
        setattr(self, "in", Dense(self.width, self.mlp_dim, self.init, **self.kinds))
        self.out = Dense(self.mlp_dim, self.width, self.out_init, **self.kinds)

    def __call__(self, x: Float[Array, "B T D"], rng: Stream | None = None) -> Float[Array, "B T D"]:
        inner = activate(getattr(self, "in")(x), self.activation)
        return self.out(dropout(inner, self.dropout, rng, "mlp_in"))


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
        pack_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        mixed, cache = self.attention(x, mask, rng, cache, pack_ids)
        x = self.attention_norm(x + dropout(mixed, self.dropout, rng, "attention_out"))
        return self.mlp_norm(x + dropout(self.mlp(x), self.dropout, rng, "mlp_out")), cache
