"""The objective of left-to-right models, of language and of translation: the mean negative log-likelihood of the next
token, with or without label smoothing.

Recurrent models may have two more terms on the activations h_t of their last layer, means over features and steps:
`ar` of h_t^2, and `tar` of (h_t - h_(t-1))^2, which want them small and slow. Both are of the steps that count.

Reference: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.1; Vaswani et
al. 2017, "Attention Is All You Need", section 5.4; Merity et al. 2017, "Revisiting Activation Regularization for
Language RNNs"; salesforce/awd-lstm-lm main.py.
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
from ctxjax.objectives import lanes, vocabulary
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms

AR_OF = ("dropped", "raw")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy of `targets [B T]` given the hidden states of the same places.

    Attributes:
      chunk: rows of logits held at once; 0 chooses by device.
      label_smoothing: the share of a label that other words get (Transformer: 0.1). The divergence from such labels,
        `smoothed`, is then minimised; `lm` and its perplexity stay the plain ones.
      spared: a word that smoothing gives nothing, as the annotated Transformer's padding; -1 for none, as published.
      ar, tar: coefficients of the activation terms; 2 and 1 in AWD-LSTM.
      ar_of: the activations of `ar`: "dropped" as the softmax sees them, as published, or "raw" as in fastai 0.7. `tar`
        is of raw ones in both.
      rate_length: multiply the learning rate of a step by the length of its windows over this number, as AWD-LSTM does
        (70) with windows of drawn length; 0 does not.
      split: the softmax in two stages, of a model with `splits`; there is no lm_accuracy then, and no label smoothing.
    """

    chunk: int = 0
    label_smoothing: float = 0.0
    spared: int = -1
    ar: float = 0.0
    tar: float = 0.0
    ar_of: str = "dropped"
    rate_length: int = 0
    split: bool = False
    perplexity = ("lm",)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"config.objective.label_smoothing={self.label_smoothing} is not at least 0 and below 1")
        if self.ar_of not in AR_OF:
            raise ConfigError(f"config.objective.ar_of={self.ar_of!r} is neither 'dropped' nor 'raw'")
        if self.split and self.label_smoothing:
            raise ConfigError("config.objective.split and label_smoothing do not go together; set one of them to 0")

    @property
    def loss(self) -> Mapping[str, float]:
        """The terms that are minimised."""
        more = {name: scale for name, scale in (("ar", self.ar), ("tar", self.tar)) if scale}
        return {"smoothed" if self.label_smoothing else "lm": 1.0} | more

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of targets, and for `tar` of pairs of neighbours."""
        weights = batch["weights"].astype(jnp.float32)
        pairs = (weights[:, 1:] * weights[:, :-1]).sum()
        return {name: pairs if name == "tar" else weights.sum() for name in self.loss}

    def rate(self, batch: Batch) -> Array | None:
        """What the learning rate of this step is multiplied by, if anything: see `rate_length`."""
        if not self.rate_length:
            return None
        weights = batch["weights"].astype(jnp.float32)
        return weights.sum() / (weights.shape[0] * self.rate_length)

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms lm and lm_accuracy; smoothed, ar and tar as far as they are asked for.

        Lanes with `is_first` start from a carry of zeros.
        """
        running = "is_first" in batch
        outputs = forward(batch["inputs"], lanes.restart(carry, batch["is_first"]) if running else carry)
        top, targets, weights = outputs.hidden[-1], batch["targets"], batch["weights"].astype(jnp.float32)
        count = weights.sum()
        terms = {}
        if self.ar:
            values = top if self.ar_of == "dropped" or outputs.raw is None else outputs.raw
            terms["ar"] = Mean(_squares(values, weights), count)
        if self.tar:
            values = top if outputs.raw is None else outputs.raw
            pairs = weights[:, 1:] * weights[:, :-1]
            terms["tar"] = Mean(_squares(values[:, 1:] - values[:, :-1], pairs), pairs.sum())
        if running:  # time before lanes: what is behind the end of the text stands together
            top, targets, weights = (leaf.swapaxes(0, 1) for leaf in (top, targets, weights))
        rows, table, bias = forward.readout(top.reshape(-1, top.shape[-1]))
        targets, weights = targets.reshape(-1), weights.reshape(-1)
        if self.split:
            tombstones, offsets, splits = forward.head("tombstones")
            total = vocabulary.split_cross_entropy(rows, table, bias, tombstones, offsets, targets, weights, splits)
            return {"lm": Mean(total, count)} | terms, outputs.carry
        total, hits = vocabulary.cross_entropy(rows, table, bias, targets, weights, self.chunk, skip=running)
        terms |= {"lm": Mean(total, count), "lm_accuracy": Mean(hits, count)}
        if self.label_smoothing:
            more = vocabulary.smoothing(rows, table, bias, targets, weights, self.label_smoothing, self.spared)
            terms["smoothed"] = Mean(total + more, count)
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the layers, and the softmax of every position."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        return model.flops(shapes) + model.readout_flops(math.prod(batch["targets"].shape))


def _squares(values: Array, weights: Array) -> Array:
    """Weighted sum over places of the mean square over features."""
    return (jnp.square(values.astype(jnp.float32)).mean(-1) * weights).sum()


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
