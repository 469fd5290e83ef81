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
from jaxtyping import Array, Float, Int

from ctxjax.objectives import vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of the masked positions plus cross-entropy of the next-sentence label.

    Only the gathered positions pass through the vocabulary: `target_positions [B P]` of the last hidden layer.

    Attributes:
      next_sentence: add the next-sentence term, from `is_random [B]` (0 = the true next segment, 1 = a random one).
        Rows that hold several examples have a label for each of S slots, `is_random [B S]`, and `pair_weights [B S]`,
        0 where a slot is empty; the vectors are those at `inputs.cls_positions [B S]`.
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
        """The denominators: masked positions + epsilon, and examples."""
        weights = {"mlm": batch["weights"].astype(jnp.float32).sum() + self.epsilon}
        if self.next_sentence:
            weights["nsp"] = _pairs(batch)[1].sum()
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
            logits = forward.head("nsp", outputs.pooled)
            labels, real = _pairs(batch)
            nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, :, None], axis=2)[:, :, 0]
            right = (logits.argmax(-1) == labels).astype(jnp.float32)
            count = real.sum()
            terms |= {"nsp": Mean((nll * real).sum(), count), "nsp_accuracy": Mean((right * real).sum(), count)}
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the encoder, and the readout of the gathered positions alone."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(math.prod(batch["targets"].shape))


def _pairs(batch: Batch) -> tuple[Int[Array, "B S"], Float[Array, "B S"]]:
    """Labels of next sentences, and which of them are real; a row without `pair_weights` is one example."""
    labels = batch["is_random"]
    if "pair_weights" in batch:
        return labels, batch["pair_weights"].astype(jnp.float32)
    return labels[:, None], jnp.ones((labels.shape[0], 1), jnp.float32)


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny BERT, the objective, and a batch of four rows that hold one or two examples, masked unequally often."""
    from ctxjax.models import bert

    model = bert.tiny()
    keys = jax.random.split(jax.random.key(0), 4)
    rows, length, slots = 4, 12, 3
    firsts, lengths = (jnp.array(sizes)[:, None] for sizes in ([7, 9, 6, 7], [12, 9, 12, 7]))  # of rows two end early
    place = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
    mask, second = place < lengths, place >= firsts
    within = jnp.where(second, place - firsts, place)
    tokens = jnp.where(mask, jax.random.randint(keys[0], (rows, length), 5, model.vocab_size), 0)
    two = lengths > firsts
    batch = {
        "inputs": {
            "tokens": tokens,
            "segment_ids": ((within >= 3) & mask).astype(jnp.int32),
            "pack_ids": jnp.where(mask, 1 + second, 0),
            "positions": jnp.where(mask, within, 0),
            "mask": mask,
            "cls_positions": jnp.concatenate([jnp.zeros_like(firsts), jnp.where(two, firsts, 0)], axis=1),
        },
        "target_positions": jax.random.randint(keys[1], (rows, slots), 1, 7),
        "targets": jax.random.randint(keys[2], (rows, slots), 5, model.vocab_size),
        "weights": jnp.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], jnp.float32),
        "is_random": jax.random.randint(keys[3], (rows, 2), 0, 2),
        "pair_weights": jnp.concatenate([jnp.ones_like(two), two], axis=1).astype(jnp.float32),
    }
    return model, Objective(), batch
