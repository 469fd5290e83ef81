"""fastText: a word is the mean of its own row and the rows of its character n-grams, hashed into buckets.

The classifier of the same tool is a mean too, of the rows of a text's words and n-grams of words, under a softmax over
labels. Which rows those are is the matter of source and reader (`ctxjax/text/subwords.py`).

Reference: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information"; Joulin et al. 2017, "Bag of Tricks
for Efficient Text Classification"; facebookresearch/fastText.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.models.layers.core import Embed
from ctxjax.models.word2vec import Embeddings
from ctxjax.types import Carry, Inputs, Outputs


class Heads(nn.Module):
    """`head/output`, as many rows as words, or `head/labels`."""

    rows: int
    labels: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        zeros, kind = nn.initializers.zeros, self.param_dtype
        if self.labels:
            self.labels_table = Embed(self.labels, self.width, zeros, param_dtype=kind, name="labels")
        else:
            self.output = Embed(self.rows, self.width, zeros, param_dtype=kind)


class Model(nn.Module):
    """Tables of words and n-grams.

    Attributes:
      vocab_size: words.
      width: of a vector.
      buckets: rows for n-grams, behind those of the words.
      shortest, longest: characters of an n-gram; a longest of 0 is none.
      labels: what a text is classified as; empty for word vectors.
      undivided: in training each row of a word takes the whole error of their mean (published for word vectors), not
        the n-th part that the derivative gives it.
      word_ngrams: words of an n-gram of words at most, for the classifier.
      depth: 0, as nothing lies between the tables.
    """

    vocab_size: int
    width: int = 100
    buckets: int = 2_000_000
    shortest: int = 3
    longest: int = 6
    labels: tuple[str, ...] = ()
    word_ngrams: int = 1
    undivided: bool = True
    depth: int = 0
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "context"

    def setup(self) -> None:
        if self.depth or self.dropout:
            raise ValueError("model.depth and model.dropout of fasttext are 0: there is nothing between its tables")
        self.embed = Embeddings(self.vocab_size + self.buckets, self.width, 1.0 / self.width, self.param_dtype)
        self.heads = Heads(self.vocab_size, len(self.labels), self.width, self.param_dtype, name="head")

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Rows of the table, or means of them.

        `tokens [B T]` are rows of the table, of words or of n-grams. With `subwords [B T S]` beside them, rows of
        n-grams with -1 for none, `hidden` is the mean of all rows of each word. `pooled` is the mean of a text's rows.
        """
        del carry, train
        table = self.embed.tokens.embedding.astype(self.dtype)
        rows = table[inputs["tokens"]]
        if "subwords" in inputs:
            there = inputs["subwords"] >= 0
            sums = rows + masked_sum(table[jnp.maximum(inputs["subwords"], 0)], there)
            rows = sums / (1.0 + there.sum(-1, keepdims=True).astype(self.dtype))
            if self.undivided:  # the value of the mean with the derivative of the sum
                rows = sums - jax.lax.stop_gradient(sums - rows)
        mask = inputs.get("mask")
        if mask is None:
            return Outputs((rows,))
        count = jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(self.dtype)
        return Outputs((rows,), (masked_sum(rows, mask) / count)[:, None])

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, the table of words or labels, and no bias."""
        table = (self.heads.labels_table if self.labels else self.heads.output).embedding
        return rows.astype(self.dtype), table, jnp.zeros(table.shape[0], self.dtype)

    def head(self, name: str, *features: Array) -> Any:
        """fastText has no head beside its output table."""
        raise ValueError(f"fasttext has no head {name!r}")

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
        """Forward FLOPs of the scores of all words or labels for `rows` rows."""
        return 2.0 * rows * self.width * (len(self.labels) or self.vocab_size)


def masked_sum(values: Float[Array, "*B S D"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B D"]:
    """The sum of the values that a mask allows."""
    return jnp.where(mask[..., None], values, 0.0).sum(-2)


def tiny() -> Model:
    """A test-sized fastText."""
    return Model(vocab_size=31, width=8, buckets=40)
