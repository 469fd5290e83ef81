"""GloVe: a table for words and one for the words beside them, each with biases; a word's vector is the sum of its two.

Reference: Pennington et al. 2014, "GloVe: Global Vectors for Word Representation"; stanfordnlp/GloVe src/glove.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ctxjax.types import Carry, Inputs, Outputs

MARKS = 3  # <S>, </S> and <UNK>, which are in no pair


class Table(nn.Module):
    """Vectors and biases from U(-0.5, 0.5) / width; the marks' are zeros."""

    rows: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -0.5 / self.width, 0.5 / self.width).at[:MARKS].set(0.0)

        self.embedding = self.param("embedding", init, (self.rows, self.width), self.param_dtype)
        self.bias = self.param("bias", init, (self.rows,), self.param_dtype)


class Embeddings(nn.Module):
    """`embed/tokens/...` and `embed/context/...`."""

    rows: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        self.tokens = Table(self.rows, self.width, self.param_dtype)
        self.context = Table(self.rows, self.width, self.param_dtype)


class Model(nn.Module):
    """Two tables with biases.

    Attributes:
      vocab_size: words.
      width: of a vector (published default: 50).
      rare: words outside the vocabulary have the mean vector of so many words at the end of it, the rarest.
      depth: 0, as nothing lies between the tables.
    """

    vocab_size: int
    width: int = 50
    rare: int = 100
    depth: int = 0
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "context"

    def setup(self) -> None:
        if self.depth or self.dropout:
            raise ValueError("model.depth and model.dropout of glove are 0: there is nothing between its tables")
        self.embed = Embeddings(self.vocab_size, self.width, self.param_dtype)

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """The vectors of `tokens [B T]`: the sum of a word's two; `hidden` has one entry."""
        del carry, train
        tokens, context = self.embed.tokens.embedding, self.embed.context.embedding
        rows = tokens[inputs["tokens"]] + context[inputs["tokens"]]
        unknown = (tokens[-self.rare :] + context[-self.rare :]).mean(0)
        is_unknown = (inputs["tokens"] == MARKS - 1)[..., None]
        return Outputs((jnp.where(is_unknown, jnp.broadcast_to(unknown, rows.shape), rows).astype(self.dtype),))

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, the context table and its biases."""
        return rows.astype(self.dtype), self.embed.context.embedding, self.embed.context.bias

    def head(self, name: str, *features: Array) -> Any:
        """ "pairs": what the model takes for the logarithm of the counts of pairs of words, two arrays of one shape."""
        if name != "pairs":
            raise ValueError(f"glove has no head {name!r}")
        return self._pairs(*features)

    def _pairs(self, words: Int[Array, "*B"], others: Int[Array, "*B"]) -> Float[Array, "*B"]:
        tokens, context = self.embed.tokens, self.embed.context
        products = jnp.einsum("...d,...d->...", tokens.embedding[words], context.embedding[others])
        return products + tokens.bias[words] + context.bias[others]

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        self.readout(self(inputs).hidden[-1].reshape(-1, self.width))
        return self.head("pairs", inputs["tokens"], inputs["tokens"])

    def init_carry(self, batch_size: int) -> Carry:
        """No state."""
        del batch_size
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """A look-up multiplies nothing."""
        del shapes
        return 0.0

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the scores of all words for `rows` rows."""
        return 2.0 * rows * self.width * self.vocab_size


def tiny() -> Model:
    """A test-sized GloVe."""
    return Model(vocab_size=31, width=8, rare=5)
