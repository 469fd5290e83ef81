"""What is put on an encoder for a task: one vector of a text, a learned mix of layers, and the scores made of them.

A head is a class in `HEADS` under the name of its task, made with `(features, outcomes, kinds, **options)`. Called, it
gives its scores; `touch(outputs)` makes all its parameters, `readout(rows)` is that of the model, and `products(rows)`
are its multiply-adds for so many rows of scores. Whatever other methods it has, `forward.head("NAME", ...)` calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.core import Dense
from ctxjax.models.layers.coreference import Coreference
from ctxjax.models.layers.dropout import Stream, dropout, stream, substream
from ctxjax.models.layers.tag_head import Tags
from ctxjax.types import Outputs


def side_by_side(layers: Sequence[Float[Array, "B T _"]]) -> list[Float[Array, "B T D"]]:
    """Layers of one width, the narrower ones filled up with zeros."""
    widest = max(layer.shape[-1] for layer in layers)
    return [jnp.pad(layer, ((0, 0), (0, 0), (0, widest - layer.shape[-1]))) for layer in layers]


def at_positions(hidden: Float[Array, "B T D"], positions: Int[Array, "B S"] | None) -> Float[Array, "B S D"]:
    """The states at some positions, or the first one."""
    if positions is None:
        return hidden[:, :1]
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


def mean_pooled(hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B D"]:
    """The mean of what is not padding; zeros for a text without anything."""
    if mask is None:
        return hidden.mean(1)
    count = jnp.maximum(mask.sum(1, keepdims=True), 1).astype(hidden.dtype)
    return jnp.where(mask[:, :, None], hidden, 0.0).sum(1) / count


def max_pooled(hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B D"]:
    """The largest of what is not padding, number by number; zeros for a text without anything."""
    if mask is None:
        return hidden.max(1)
    best = jnp.where(mask[:, :, None], hidden, -jnp.inf).max(1)
    return jnp.where(mask.any(1)[:, None], best, 0.0)


POOLS = {"mean": mean_pooled, "max": max_pooled}


class Scores(nn.Module):
    """Scores of a text's vector: one product, behind dropout, and a layer between where there is one.

    Attributes:
      features: width of the vector. outcomes: scores of it.
      dropout: of the vector, and of the layer between.
      width: of a layer between, with ReLU; 0 for none.
      shared_dropout: the vectors of one row's choices lose the same features, as in GPT's released code.
    """

    features: int
    outcomes: int
    kinds: Mapping[str, Any]
    dropout: float = 0.1
    width: int = 0
    shared_dropout: bool = False

    def setup(self) -> None:
        if self.width:
            self.layer = Dense(self.features, self.width, **self.kinds)
        out = Dense(self.width or self.features, self.outcomes, **self.kinds)
        self.out = out
        nn.share_scope(self, out)

    def _dropped(self, x: Float[Array, "B S D"], rng: Stream | None, name: str) -> Float[Array, "B S D"]:
        if not self.shared_dropout or rng is None or not self.dropout:
            return dropout(x, self.dropout, rng, name)
        kept = dropout(jnp.ones((x.shape[0], x.shape[2]), x.dtype), self.dropout, rng, name)
        return x * kept[:, None]

    def hidden(self, vectors: Float[Array, "B S D"]) -> Float[Array, "B S H"]:
        """What the last product is given; in training, which has keys of a batch, with dropout."""
        rng = substream(stream(self.make_rng("dropout")), "task") if self.has_rng("shared") else None
        x = self._dropped(vectors, rng, "vector")
        return self._dropped(jax.nn.relu(self.layer(x)), rng, "layer") if self.width else x

    def __call__(self, vectors: Float[Array, "B S D"]) -> Float[Array, "B S N"]:
        """Scores, in f32."""
        return self.out(self.hidden(vectors)).astype(jnp.float32)

    def readout(self, rows: Float[Array, "R D"]) -> tuple[Array, Array, Array]:
        """Rows, one row an outcome, and the biases."""
        return self.hidden(rows[:, None])[:, 0], self.out.kernel.T, self.out.bias

    def touch(self, outputs: Outputs) -> Array:
        """Make every parameter."""
        return self(outputs.pooled)

    def products(self, rows: int) -> int:
        """Multiply-adds for so many vectors."""
        return rows * (self.features * self.width + (self.width or self.features) * self.outcomes)


class Spans(Scores):
    """Scores of every position: whether an answer begins there, and whether it ends there. BERT's have no dropout."""

    def touch(self, outputs: Outputs) -> Array:
        """Make every parameter."""
        return self(outputs.hidden[-1])


HEADS = {"classify": Scores, "regress": Scores, "choose": Scores, "span": Spans, "tag": Tags}
HEADS["coreference"] = Coreference
OUTCOMES = {"span": 2}  # of a head whose scores are not those of labels; else one
