"""The objective of left-to-right models, of language and of translation: the mean negative log-likelihood of the next
token, with or without label smoothing.

Reference: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.1; Vaswani et
al. 2017, "Attention Is All You Need", section 5.4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.config import ConfigError
from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of `targets [B T]` given the hidden states of the same places.

    Attributes:
      chunk: rows of logits held at once; 0 chooses by device.
      label_smoothing: the share of a label that other words get (Transformer: 0.1). The divergence from such labels,
        `smoothed`, is then minimised; `lm` and its perplexity stay the plain ones.
      spared: a word that smoothing gives nothing, as the annotated Transformer's padding; -1 for none, as published.
    """

    chunk: int = 0
    label_smoothing: float = 0.0
    spared: int = -1
    perplexity = ("lm",)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"config.objective.label_smoothing={self.label_smoothing} is not at least 0 and below 1")

    @property
    def loss(self) -> Mapping[str, float]:
        """The term that is minimised."""
        return {"smoothed" if self.label_smoothing else "lm": 1.0}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of targets."""
        return {name: batch["weights"].astype(jnp.float32).sum() for name in self.loss}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms lm, lm_accuracy, and smoothed where labels are."""
        outputs = forward(batch["inputs"], carry)
        top = outputs.hidden[-1]
        rows, table, bias = forward.readout(top.reshape(-1, top.shape[-1]))
        weights = batch["weights"].astype(jnp.float32).reshape(-1)
        targets, count = batch["targets"].reshape(-1), weights.sum()
        total, hits = vocabulary.cross_entropy(rows, table, bias, targets, weights, self.chunk)
        terms = {"lm": Mean(total, count), "lm_accuracy": Mean(hits, count)}
        if self.label_smoothing:
            more = vocabulary.smoothing(rows, table, bias, targets, weights, self.label_smoothing, self.spared)
            terms["smoothed"] = Mean(total + more, count)
        return terms, outputs.carry

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
