"""The objective of answers that are spans: cross-entropy of their first and of their last piece.

Reference: Devlin et al. 2019, section 4.2; google-research/bert run_squad.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """The mean of both cross-entropies by the model's head "span".

    Attributes:
      over_padding: as published, padded positions have a share in the softmax.
    """

    over_padding: bool = True
    loss: ClassVar[Mapping[str, float]] = {"span": 1.0}
    perplexity = ()

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of starts and ends."""
        return {"span": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms span (minimised), start_accuracy, end_accuracy and span_accuracy, of both at once."""
        outputs = forward(batch["inputs"], carry)
        scores = forward.head("span", outputs.hidden[-1]).astype(jnp.float32)
        if not self.over_padding and "mask" in batch["inputs"]:
            scores = jnp.where(batch["inputs"]["mask"][:, :, None], scores, jnp.finfo(jnp.float32).min)
        targets, weights = batch["targets"], batch["weights"].astype(jnp.float32)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(scores, axis=1), targets[:, None], axis=1)[:, 0]
        right = (scores.argmax(axis=1) == targets).astype(jnp.float32)
        terms = {"span": Mean((losses * weights).sum(), weights.sum())}
        for name, hits, counted in (
            ("start", right[:, 0], weights[:, 0]),
            ("end", right[:, 1], weights[:, 1]),
            ("span", right.prod(axis=1), weights.prod(axis=1)),
        ):
            terms[f"{name}_accuracy"] = Mean((hits * counted).sum(), counted.sum())
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the encoder, and two scores of every position."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        rows, length = shapes["tokens"]
        return model.flops(shapes) + model.readout_flops(rows * length)


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny BERT with the head, the objective, and four windows, one of which does not count."""
    from ctxjax.models import downstream

    model = downstream.tiny().clone(task="span", labels=(), dropout=0.0)
    tokens = jax.random.randint(jax.random.key(0), (4, 12), 5, model.vocab_size)
    mask = jnp.arange(12)[None] < jnp.array([12, 9, 12, 7])[:, None]
    batch = {
        "inputs": {
            "tokens": jnp.where(mask, tokens, 0),
            "segment_ids": ((jnp.arange(12)[None] >= 5) & mask).astype(jnp.int32),
            "mask": mask,
            "cls_positions": jnp.zeros((4, 1), jnp.int32),
        },
        "targets": jnp.array([[6, 8], [0, 0], [5, 5], [3, 6]]),
        "weights": jnp.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]),
    }
    return model, Objective(), batch
