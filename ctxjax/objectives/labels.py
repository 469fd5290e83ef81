"""The objective of a classifier: cross-entropy of a text's label given the text's one vector.

A recurrent classifier may have the two activation terms of its language model, `ar` and `tar`, over what it pools.

Reference: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification", equation 1; fastai 0.7, lm_rnn.py,
seq2seq_reg, for the activation terms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Softmax over the readout of `pooled`.

    Attributes:
      scale: the loss is multiplied by it. The original steps after every text: the texts of a batch make it their sum.
      ar, tar: coefficients of the activation terms of the model's last layer, means over features and over the places
        of a text that its head "kept" names; 2 and 1 in ULMFiT.
    """

    scale: float = 1.0
    ar: float = 0.0
    tar: float = 0.0
    perplexity = ()
    sums = True  # `scale` makes the mean over a batch its sum

    @property
    def loss(self) -> Mapping[str, float]:
        more = {name: scale for name, scale in (("ar", self.ar), ("tar", self.tar)) if scale}
        return {"labels": self.scale} | more

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of texts."""
        count = batch["weights"].astype(jnp.float32).sum()
        return {name: count for name in self.loss}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms labels (minimised) and labels_accuracy."""
        outputs = forward(batch["inputs"], carry)
        if outputs.pooled is None:
            raise ValueError("the model gives no vector of a text (pooled), which the objective 'labels' classifies")
        rows, table, bias = forward.readout(outputs.pooled[:, 0])
        weights = batch["weights"].astype(jnp.float32)
        total, hits = vocabulary.cross_entropy(rows, table, bias, batch["targets"], weights)
        count = weights.sum()
        terms = {"labels": Mean(total, count), "labels_accuracy": Mean(hits, count)}
        if self.ar or self.tar:
            top, kept = outputs.hidden[-1].astype(jnp.float32), forward.head("kept", batch["inputs"]["mask"])
            pairs = kept[:, 1:] & kept[:, :-1]
            if self.ar:
                terms["ar"] = Mean((_mean_square(top, kept) * weights).sum(), count)
            if self.tar:
                terms["tar"] = Mean((_mean_square(top[:, 1:] - top[:, :-1], pairs) * weights).sum(), count)
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the model, and a softmax a text."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(batch["targets"].shape[0])


def _mean_square(values: Float[Array, "B T D"], where: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """The mean over features and places of every row; 0 where it has no place."""
    squares = jnp.where(where, jnp.square(values).mean(-1), 0.0).sum(1)
    return squares / jnp.maximum(where.sum(1), 1)


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny fastText with labels, the objective, and a batch of four texts, one of which does not count."""
    from ctxjax.models import fasttext

    model = fasttext.tiny().clone(labels=("a", "b", "c", "d", "e"))
    keys = jax.random.split(jax.random.key(0), 2)
    batch = {
        "inputs": {
            "tokens": jax.random.randint(keys[0], (4, 7), 3, model.vocab_size + model.buckets),
            "mask": jnp.arange(7)[None, :] < jnp.array([7, 5, 6, 3])[:, None],
        },
        "targets": jnp.array([1, 4, 0, 2]),
        "weights": jnp.array([1.0, 1.0, 0.0, 1.0]),
    }
    return model, Objective(), batch
