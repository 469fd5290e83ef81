"""The objective of a classifier: cross-entropy of a text's label given the text's one vector.

Reference: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification", equation 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Softmax over the readout of `pooled`.

    Attributes:
      scale: the loss is multiplied by it. The original steps after every text: the texts of a batch make it their sum.
    """

    scale: float = 1.0
    perplexity = ()
    sums = True  # `scale` makes the mean over a batch its sum

    @property
    def loss(self) -> Mapping[str, float]:
        return {"labels": self.scale}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of texts."""
        return {"labels": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms labels (minimised) and labels_accuracy."""
        outputs = forward(batch["inputs"], carry)
        if outputs.pooled is None:
            raise ValueError("the model gives no vector of a text (pooled), which the objective 'labels' classifies")
        rows, table, bias = forward.readout(outputs.pooled[:, 0])
        weights = batch["weights"].astype(jnp.float32)
        total, hits = vocabulary.cross_entropy(rows, table, bias, batch["targets"], weights)
        count = weights.sum()
        return {"labels": Mean(total, count), "labels_accuracy": Mean(hits, count)}, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the model, and a softmax a text."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(batch["targets"].shape[0])


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
