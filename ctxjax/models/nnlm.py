"""The neural probabilistic language model: the next word from the vectors of the few words before it, side by side.

    x = (C(w_{t-1}), ..., C(w_{t-n+1}))        y = b + W x + U tanh(d + H x)        p(w_t) = softmax(y)

Reference: Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2, equation 1. The paper's names: m =
width, h = mlp_dim, n = context + 1; W are the direct connections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.core import Dense, Embed, Softmax, uniform
from ctxjax.types import Carry, Inputs, Outputs

FEW = 0.1  # embeddings and products start within +-0.1


class Embeddings(nn.Module):
    """The shared table C."""

    vocab_size: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        self.tokens = Embed(self.vocab_size, self.width, uniform(FEW), param_dtype=self.param_dtype)


class Hidden(nn.Module):
    """`tanh(d + H x)`."""

    inputs: int
    mlp_dim: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init = uniform(1.0 / math.sqrt(self.inputs))
        setattr(self, "in", Dense(self.inputs, self.mlp_dim, init, **self.kinds))

    def __call__(self, x: Float[Array, "B T X"]) -> Float[Array, "B T F"]:
        return jnp.tanh(getattr(self, "in")(x))


class Heads(nn.Module):
    """The head of the objective."""

    vocab_size: int
    inputs: int
    param_dtype: str

    def setup(self) -> None:
        init = uniform(1.0 / math.sqrt(self.inputs))
        self.softmax = Softmax(self.vocab_size, self.inputs, init, self.param_dtype)  # U beside W, a row a word


class Model(nn.Module):
    """The model with `context` words; the defaults are the larger of the paper's for the Brown corpus.

    Attributes:
      context: how many words before are read.
      direct: connect their vectors to the softmax, too.
    """

    vocab_size: int = 16_383
    width: int = 30
    mlp_dim: int = 100
    context: int = 4
    direct: bool = True
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    depth = 1
    predicts = "next"

    def setup(self) -> None:
        if self.context < 1:
            raise ValueError(f"model.context={self.context} is not at least 1")
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed = Embeddings(self.vocab_size, self.width, self.param_dtype)
        self.layer_0 = Hidden(self.context * self.width, self.mlp_dim, kinds)
        self.heads = Heads(self.vocab_size, self.widths()[-1], self.param_dtype, name="head")

    def widths(self) -> tuple[int, ...]:
        """Features of each layer: C, and what the softmax reads."""
        return (self.width, self.mlp_dim + (self.context * self.width if self.direct else 0))

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Encode `tokens [B T]`, with `mask` where rows are padded behind.

        Returns:
          hidden: the vectors of the words, and `tanh(d + H x)` of each with those before it, x beside it where there
          are direct connections. carry: the last words of each row, `[B context]`; the first in a text have word 0
          before them, which is the sentence mark of a word vocabulary.
        """
        del train
        tokens = inputs["tokens"]
        state = carry["tokens"] if carry else jnp.zeros((tokens.shape[0], self.context), tokens.dtype)
        text = jnp.concatenate([state, tokens], axis=1)
        vectors = self.embed.tokens(text).astype(self.dtype)
        length = tokens.shape[1]
        # What predicts the word behind place t are the words t, t - 1, ..., the nearest first.
        before = [vectors[:, self.context - back : self.context - back + length] for back in range(self.context)]
        x = jnp.concatenate(before, axis=-1)
        top = self.layer_0(x)
        hidden = (vectors[:, self.context :], jnp.concatenate([top, x], axis=-1) if self.direct else top)
        return Outputs(hidden, None, {"tokens": _last(text, inputs.get("mask"), self.context)} if carry else ())

    def readout(self, rows: Float[Array, "N X"]) -> tuple[Array, Array, Array]:
        """The rows, the table (U beside W) and the bias."""
        return rows, self.heads.softmax.embedding, self.heads.softmax.bias

    def head(self, name: str, *features: Array) -> Any:
        """The model has no head beside its softmax."""
        raise ValueError(f"this NNLM has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int, max_len: int = 0) -> Carry:
        """Word 0, `context` times, before every row."""
        del max_len
        return {"tokens": jnp.zeros((batch_size, self.context), jnp.int32)}

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the hidden layer, two for each multiply-add."""
        rows, length = shapes["tokens"]
        return 2.0 * rows * length * self.context * self.width * self.mlp_dim

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.widths()[-1] * self.vocab_size


def _last(text: Int[Array, "B X"], mask: Bool[Array, "B T"] | None, count: int) -> Int[Array, "B C"]:
    """The last `count` words of each row, those before it included and its padding not."""
    if mask is None:
        return text[:, text.shape[1] - count :].astype(jnp.int32)
    places = mask.sum(axis=1)[:, None] + jnp.arange(count)[None]
    return jnp.take_along_axis(text, places, axis=1).astype(jnp.int32)


def tiny() -> Model:
    """A test-sized NNLM."""
    return Model(vocab_size=53, width=6, mlp_dim=10, context=3)
