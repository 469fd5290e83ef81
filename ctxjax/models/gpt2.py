"""GPT-2, a left-to-right Transformer that normalises before each block and once more at the end; tied softmax.

Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; openai/gpt-2 src/model.py.
The paper's names: L = depth, d_model = width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.causal import EPSILON, Causal, Tables
from ctxjax.models.layers.core import LayerNorm
from ctxjax.models.layers.dropout import Stream, dropout
from ctxjax.models.layers.transformer import MLP, Attention, Cache


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
        pack_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        mixed, cache = self.attention(self.attention_norm(x), mask, rng, cache, pack_ids)
        x = x + dropout(mixed, self.dropout, rng, "attention_out")
        return x + dropout(self.mlp(self.mlp_norm(x)), self.dropout, rng, "mlp_out"), cache


class Model(Causal):
    """GPT-2 of any size; the defaults are the smallest, of 124 M parameters.

    Attributes:
      dropout, attention_dropout: the released code, which only samples, has none; 0.1 as in GPT.
      scaled_residuals: start the last product of every block smaller by the root of the number of blocks, as the paper
        says; the released code does not.
    """

    vocab_size: int = 50257
    max_len: int = 1024
    scaled_residuals: bool = True

    def setup(self) -> None:
        self.embed = Tables(self.vocab_size, self.width, self.max_len, 0.01, self.param_dtype)
        self.make_layers(Layer, out_deviation=0.02 / math.sqrt(2 * self.depth) if self.scaled_residuals else 0.02)
        self.norm = LayerNorm(self.width, EPSILON, self.dtype, self.param_dtype)

    def first(self, x: Float[Array, "B T D"], rng: Stream | None) -> Float[Array, "B T D"]:
        """Dropout of the sum."""
        return dropout(x, self.dropout, rng, "embed")

    def last(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The norm behind the last layer."""
        return self.norm(x)


def tiny() -> Model:
    """A test-sized GPT-2."""
    return Model(vocab_size=53, width=16, depth=2, num_heads=2, mlp_dim=32, max_len=24)
