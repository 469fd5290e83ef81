"""BERT's objective: masked words and, beside it with equal weight, whether the second segment truly follows.

Reference: Devlin et al. 2019, section 3.1; google-research/bert run_pretraining.py.
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
    """Cross-entropy of the masked positions plus cross-entropy of the next-sentence label.

    Only the gathered positions pass through the vocabulary: `target_positions [B P]` of the last hidden layer.

    Attributes:
      next_sentence: add the next-sentence term, from `is_random [B]` (0 = the true next segment, 1 = a random one).
      epsilon: added to the number of masked positions that the loss is divided by, as published.
      chunk: rows of logits held at once; 0 chooses by device.
    """

    next_sentence: bool = True
    epsilon: float = 1e-5
    chunk: int = 0
    perplexity = ("mlm",)

    @property
    def loss(self) -> Mapping[str, float]:
        return {"mlm": 1.0, "nsp": 1.0} if self.next_sentence else {"mlm": 1.0}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The denominators: masked positions + epsilon, and rows."""
        weights = {"mlm": batch["weights"].astype(jnp.float32).sum() + self.epsilon}
        if self.next_sentence:
            weights["nsp"] = jnp.asarray(batch["is_random"].shape[0], jnp.float32)
        return weights

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms mlm, nsp (minimised), mlm_accuracy and nsp_accuracy."""
        outputs = forward(batch["inputs"], carry)
        gathered = jnp.take_along_axis(outputs.hidden[-1], batch["target_positions"][:, :, None], axis=1)
        rows, table, bias = forward.readout(gathered.reshape(-1, gathered.shape[-1]))
        targets = batch["targets"].reshape(-1)
        weights = batch["weights"].astype(jnp.float32).reshape(-1)
        total, hits = vocabulary.cross_entropy(rows, table, bias, targets, weights, self.chunk)
        terms = {"mlm": Mean(total, weights.sum()), "mlm_accuracy": Mean(hits, weights.sum())}
        if self.next_sentence:
            logits = forward.head("nsp", outputs.pooled)[:, 0]
            labels = batch["is_random"]
            nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            count = jnp.asarray(labels.shape[0], jnp.float32)
            right = (logits.argmax(-1) == labels).astype(jnp.float32)
            terms |= {"nsp": Mean(nll.sum(), count), "nsp_accuracy": Mean(right.sum(), count)}
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the encoder, and the readout of the gathered positions alone."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(math.prod(batch["targets"].shape))


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny BERT, the objective, and a batch of four rows with unequal numbers of masked positions."""
    from ctxjax.models import bert

    model = bert.tiny()
    keys = jax.random.split(jax.random.key(0), 4)
    rows, length, slots = 4, 12, 3
    lengths = jnp.array([12, 9, 12, 7])
    mask = jnp.arange(length)[None] < lengths[:, None]
    tokens = jnp.where(mask, jax.random.randint(keys[0], (rows, length), 5, model.vocab_size), 0)
    batch = {
        "inputs": {
            "tokens": tokens,
            "segment_ids": ((jnp.arange(length)[None] >= 5) & mask).astype(jnp.int32),
            "mask": mask,
            "cls_positions": jnp.zeros((rows, 1), jnp.int32),
        },
        "target_positions": jax.random.randint(keys[1], (rows, slots), 1, 7),
        "targets": jax.random.randint(keys[2], (rows, slots), 5, model.vocab_size),
        "weights": jnp.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], jnp.float32),
        "is_random": jax.random.randint(keys[3], (rows,), 0, 2),
    }
    return model, Objective(), batch
