"""The objective of left-to-right language models: the mean negative log-likelihood of the next token.

Reference: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of `targets [B T]` given the hidden states of the same places.

    Attributes:
      chunk: rows of logits held at once; 0 chooses by device.
    """

    chunk: int = 0
    perplexity = ("lm",)
    loss = {"lm": 1.0}  # noqa: RUF012 - a constant of the class, not a field

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of targets."""
        return {"lm": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms lm (minimised) and lm_accuracy."""
        outputs = forward(batch["inputs"], carry)
        top = outputs.hidden[-1]
        rows, table, bias = forward.readout(top.reshape(-1, top.shape[-1]))
        weights = batch["weights"].astype(jnp.float32).reshape(-1)
        total, hits = vocabulary.cross_entropy(rows, table, bias, batch["targets"].reshape(-1), weights, self.chunk)
        count = weights.sum()
        return {"lm": Mean(total, count), "lm_accuracy": Mean(hits, count)}, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the layers, and the softmax of every position."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(math.prod(batch["targets"].shape))


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny GPT-2, the objective, and a batch of four rows of unequal length."""
    from ctxjax.models import gpt2

    model = gpt2.tiny()
    tokens = jax.random.randint(jax.random.key(0), (4, 13), 0, model.vocab_size)
    mask = jnp.arange(12)[None] < jnp.array([12, 9, 12, 7])[:, None]
    batch = {
        "inputs": {"tokens": tokens[:, :-1], "mask": mask},
        "targets": tokens[:, 1:],
        "weights": mask.astype(jnp.float32),
    }
    return model, Objective(), batch
