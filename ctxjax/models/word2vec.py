"""word2vec: one table of vectors for words as they are read, another for words as they are predicted.

There is no layer between them, so `hidden` is the token layer alone. What is minimised, skip-gram or CBOW, over
negatives or a Huffman tree, is the objective's matter.

Reference: Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space"; tmikolov/word2vec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers.core import Embed, uniform
from ctxjax.types import Carry, Inputs, Outputs

MARKS = 3  # <S>, </S> and <UNK>


def drawn_words(limit: float) -> Any:
    """U(-limit, limit), but zeros for a vocabulary's marks, which are never read in training."""
    return lambda *args: uniform(limit)(*args).at[:MARKS].set(0.0)


class Embeddings(nn.Module):
    """The place of the input table in the parameter tree: `embed/tokens/embedding`."""

    rows: int
    width: int
    limit: float
    param_dtype: str

    def setup(self) -> None:
        self.tokens = Embed(self.rows, self.width, drawn_words(self.limit), param_dtype=self.param_dtype)


class Heads(nn.Module):
    """The place of the output table in the parameter tree: `head/output/embedding`."""

    rows: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        self.output = Embed(self.rows, self.width, nn.initializers.zeros, param_dtype=self.param_dtype)


class Model(nn.Module):
    """Two tables.

    Attributes:
      vocab_size: words. The output table has as many rows with a Huffman tree, whose inner nodes are one fewer.
      width: of a vector.
      depth: 0, as nothing lies between the tables.
    """

    vocab_size: int
    width: int = 100
    depth: int = 0
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "context"

    def setup(self) -> None:
        if self.depth or self.dropout:
            raise ValueError("model.depth and model.dropout of word2vec are 0: there is nothing between its tables")
        self.embed = Embeddings(self.vocab_size, self.width, 0.5 / self.width, self.param_dtype)
        self.heads = Heads(self.vocab_size, self.width, self.param_dtype, name="head")

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """The vectors of `tokens [B T]`; `hidden` has one entry."""
        del carry, train
        return Outputs((self.embed.tokens.embedding[inputs["tokens"]].astype(self.dtype),))

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, the output table, and no bias."""
        return rows.astype(self.dtype), self.heads.output.embedding, jnp.zeros(self.vocab_size, self.dtype)

    def head(self, name: str, *features: Array) -> Any:
        """word2vec has no head beside its output table."""
        raise ValueError(f"word2vec has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1].reshape(-1, self.width))

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
    """A test-sized pair of tables."""
    return Model(vocab_size=31, width=8)
