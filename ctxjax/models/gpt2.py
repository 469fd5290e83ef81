"""GPT-2, a left-to-right Transformer that normalises before each block and once more at the end; tied softmax.

Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; openai/gpt-2 src/model.py.
The paper's names: L = depth, d_model = width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.models.layers.core import Embed, LayerNorm
from ctxjax.models.layers.dropout import Stream, dropout, stream, substream
from ctxjax.models.layers.transformer import MLP, Attention, Cache
from ctxjax.types import Carry, Inputs, Outputs

EPSILON = 1e-5


class Embeddings(nn.Module):
    """The parameters of the token and the position table."""

    vocab_size: int
    width: int
    max_len: int
    param_dtype: str

    def setup(self) -> None:
        tokens, positions = nn.initializers.normal(0.02), nn.initializers.normal(0.01)
        self.tokens = Embed(self.vocab_size, self.width, tokens, param_dtype=self.param_dtype)
        self.positions = Embed(self.max_len, self.width, positions, param_dtype=self.param_dtype)


class Layer(nn.Module):
    """LayerNorm and attention, LayerNorm and MLP, each with dropout added to what came in."""

    width: int
    num_heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    implementation: str | None
    out_deviation: float
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init, out = nn.initializers.normal(0.02), nn.initializers.normal(self.out_deviation)
        self.attention_norm = LayerNorm(self.width, EPSILON, **self.kinds)
        self.attention = Attention(
            self.width, self.num_heads, self.attention_dropout, self.implementation, self.kinds, True, init, out
        )
        self.mlp_norm = LayerNorm(self.width, EPSILON, **self.kinds)
        self.mlp = MLP(self.width, self.mlp_dim, "gelu_tanh", self.kinds, init, out)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        rng: Stream | None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        mixed, cache = self.attention(self.attention_norm(x), mask, rng, cache)
        x = x + dropout(mixed, self.dropout, rng, "attention_out")
        return x + dropout(self.mlp(self.mlp_norm(x)), self.dropout, rng, "mlp_out"), cache


class Model(nn.Module):
    """GPT-2 of any size; the defaults are the smallest, of 124 M parameters.

    Attributes:
      scaled_residuals: start the last product of every block smaller by the root of the number of blocks, as the paper
        says; the released code does not.
      remat: compute each layer again in the backward pass instead of keeping its activations.
      dropout, attention_dropout: the released code, which only samples, has none; 0.1 as in GPT.
      attention_implementation: see `layers/attention.py`.
    """

    vocab_size: int = 50257
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    max_len: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    scaled_residuals: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: bool = False
    attention_implementation: str | None = None
    predicts = "next"

    def setup(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"model.width={self.width} is not a multiple of model.num_heads={self.num_heads}")
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed = Embeddings(self.vocab_size, self.width, self.max_len, self.param_dtype)
        deviation = 0.02 / math.sqrt(2 * self.depth) if self.scaled_residuals else 0.02
        make_layer = nn.remat(Layer) if self.remat else Layer
        for index in range(self.depth):
            layer = make_layer(
                self.width,
                self.num_heads,
                self.mlp_dim,
                self.dropout,
                self.attention_dropout,
                self.attention_implementation,
                deviation,
                kinds,
            )
            setattr(self, f"layer_{index}", layer)
        self.norm = LayerNorm(self.width, EPSILON, **kinds)

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]`, with `mask` (padding behind the tokens) and `positions` where they are given.

        Args:
          carry: `init_carry(batch, max_len)`, or what the last call gave: these tokens follow those.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the embedding first; the last is normalised. carry: the cache, if any.
        """
        tokens = inputs["tokens"]
        start = carry["used"][:, None] if carry else 0
        length = carry["key"].shape[2] if carry else tokens.shape[1]
        if length > self.max_len:
            raise ValueError(f"{length} tokens a row are more than model.max_len={self.max_len}")
        x = self.embed.tokens(tokens)
        if "positions" in inputs:
            x = x + self.embed.positions(inputs["positions"])
        elif carry:
            x = x + self.embed.positions(start + jnp.arange(tokens.shape[1])[None])
        else:
            x = x + jnp.broadcast_to(self.embed.positions.embedding[None, : tokens.shape[1]], x.shape)
        rng = stream(self.make_rng("dropout")) if train else None
        x = dropout(x.astype(self.dtype), self.dropout, rng, "embed")
        hidden, caches = [x], []
        mask = inputs["mask"] if "mask" in inputs else None
        for index in range(self.depth):
            cache = Cache(carry["key"][:, index], carry["value"][:, index], carry["used"]) if carry else None
            below = None if rng is None else substream(rng, f"layer_{index}")
            x, cache = getattr(self, f"layer_{index}")(x, mask, below, cache)
            hidden.append(x)
            caches.append(cache)
        hidden[-1] = self.norm(x)
        if not carry:
            return Outputs(tuple(hidden), None, ())
        keys, values = (jnp.stack([cache[part] for cache in caches], axis=1) for part in (0, 1))
        return Outputs(tuple(hidden), None, {"key": keys, "value": values, "used": caches[-1].used})

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows, the token table tied to the embedding, and no bias (zeros)."""
        table = self.embed.tokens.embedding
        return rows, table, jnp.zeros((self.vocab_size,), table.dtype)

    def head(self, name: str, *features: Array) -> Any:
        """GPT-2 has no head beside its softmax."""
        raise ValueError(f"this GPT-2 has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int, max_len: int = 0) -> Carry:
        """`()` for training; with `max_len` an empty cache of keys and values, `[B L M H K]`, for generation."""
        if not max_len:
            return ()
        shape = (batch_size, self.depth, max_len, self.num_heads, self.width // self.num_heads)
        key, value = (jnp.zeros(shape, self.dtype) for _ in range(2))
        return {"key": key, "value": value, "used": jnp.zeros((batch_size,), jnp.int32)}

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the layers: products alone, every query with every key, two for each multiply-add."""
        rows, length = shapes["tokens"]
        dense = 4 * self.width**2 + 2 * self.width * self.mlp_dim
        return 2.0 * self.depth * rows * length * (dense + 2 * length * self.width)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.width * self.vocab_size


def tiny() -> Model:
    """A test-sized GPT-2."""
    return Model(vocab_size=53, width=16, depth=2, num_heads=2, mlp_dim=32, max_len=24)
