"""The biLM's objective: half the mean negative log-likelihood of the next word plus half that of the word before.

In training over a sampled softmax whose negatives both directions and all rows share, in evaluation over all words.

Reference: Peters et al. 2018, section 3.1; allenai/bilm-tf bilm/training.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import lanes, vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms

DIRECTIONS = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of each direction of a stream `[B 2 T]`; perplexity is `exp` of a term's mean.

    Attributes:
      samples: words drawn without replacement for the sampled softmax (see `vocabulary.draw`), which presumes a
        vocabulary sorted by falling frequency; 0, or not fewer than there are words, takes the full softmax.
      scale: the loss is multiplied by it before the gradient. The published code multiplies by the unroll length, 20,
        which matters beside its global-norm clip and Adagrad's first accumulator. The terms stay plain means.
      chunk: rows of logits held at once by the full softmax; 0 chooses by device.
    """

    samples: int = 8192
    scale: float = 20.0
    chunk: int = 0
    perplexity = DIRECTIONS

    @property
    def loss(self) -> Mapping[str, float]:
        return dict.fromkeys(DIRECTIONS, 0.5 * self.scale)

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of targets of each direction."""
        sums = batch["weights"].astype(jnp.float32).sum(axis=(0, 2))
        return {name: sums[index] for index, name in enumerate(DIRECTIONS)}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms forward and backward (both minimised). Lanes with `is_first` start from a carry of zeros."""
        outputs = forward(batch["inputs"], lanes.restart(carry, batch["is_first"]))
        top, weights = outputs.hidden[-1], batch["weights"].astype(jnp.float32)
        terms, drawn = {}, None
        for index, name in enumerate(DIRECTIONS):
            rows, table, bias = forward.readout(top[:, index].reshape(-1, top.shape[-1]))
            targets, counts = batch["targets"][:, index].reshape(-1), weights[:, index].reshape(-1)
            if forward.train and 0 < self.samples < forward.vocab_size:
                if drawn is None:
                    drawn = vocabulary.draw(forward.key("negatives"), forward.vocab_size, self.samples)
                total = vocabulary.sampled_cross_entropy(rows, table, bias, targets, counts, *drawn)
            else:
                total, _ = vocabulary.cross_entropy(rows, table, bias, targets, counts, self.chunk)
            terms[name] = Mean(total, counts.sum())
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one training batch: encoder, and the sampled or full softmax of every position."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        readout = model.readout_flops(math.prod(batch["targets"].shape))
        vocab_size = getattr(model, "vocab_size", 0)
        if 0 < self.samples < vocab_size:
            readout *= (self.samples + 1) / vocab_size
        return model.flops(shapes) + readout


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny biLM, the objective with its full softmax, and a batch of four lanes with repeated words."""
    from ctxjax.models import bilm

    model = bilm.tiny()
    keys = jax.random.split(jax.random.key(0), 4)
    rows, length = 4, 6
    spelling = jax.random.randint(keys[0], (model.vocab_size, model.max_chars), 0, 256)
    lengths = jax.random.randint(keys[1], (model.vocab_size, 1), 1, model.max_chars)
    spelling = jnp.where(jnp.arange(model.max_chars)[None, :] < lengths, spelling, model.num_chars - 1)
    tokens = jax.random.randint(keys[2], (rows, 2, length), 0, model.vocab_size)
    batch = {
        "inputs": {"tokens": tokens, "chars": spelling[tokens]},
        "targets": jax.random.randint(keys[3], (rows, 2, length), 0, model.vocab_size),
        "weights": jnp.ones((rows, 2, length), jnp.float32).at[1, :, 4:].set(0.0).at[2, 0, 2:].set(0.0),
        "is_first": jnp.array([True, True, False, True]),
    }
    return model, Objective(samples=0), batch
