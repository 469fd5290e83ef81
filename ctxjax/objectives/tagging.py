"""The objective of a tagger: `-log p(tags of a sentence)` under its CRF, the mean over sentences.

Reference: Peters et al. 2017, "Semi-supervised sequence tagging with bidirectional language models", section 2.2;
Lafferty et al. 2001, "Conditional Random Fields".
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
    """The model's head "crf" over the words that weigh something."""

    loss: ClassVar[Mapping[str, float]] = {"crf": 1.0}
    perplexity = ()

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of sentences with a word."""
        return {"crf": (batch["weights"] > 0).any(axis=1).astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms crf (minimised), crf_word, the same a word, and in evaluation words_accuracy, of the best path."""
        outputs = forward(batch["inputs"], carry)
        top, counted, targets = outputs.hidden[-1], batch["weights"] > 0, batch["targets"]
        total = forward.head("crf", top, counted, targets).sum()
        words = counted.sum().astype(jnp.float32)
        terms = {"crf": Mean(total, self.weights(batch)["crf"]), "crf_word": Mean(total, words)}
        if not forward.train:
            right = (forward.head("viterbi", top, counted) == targets) & counted
            terms["words_accuracy"] = Mean(right.sum().astype(jnp.float32), words)
        return terms, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the model, and the scores of every word's tags; the chain only adds."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        rows, length = batch["targets"].shape
        return model.flops(shapes) + model.readout_flops(rows * length)


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny TagLM with vectors of a language model, the objective, and four sentences of different lengths."""
    from ctxjax.models import taglm

    model = taglm.tiny().clone(features=3)
    keys = jax.random.split(jax.random.key(0), 4)
    batch = {
        "inputs": {
            "tokens": jax.random.randint(keys[0], (4, 6), 3, model.vocab_size),
            "chars": jax.random.randint(keys[1], (4, 6, model.max_chars), 0, 256),
            "features": jax.random.normal(keys[2], (4, 6, 3)),
        },
        "targets": jax.random.randint(keys[3], (4, 6), 0, len(model.labels)),
        "weights": (jnp.arange(6)[None, :] < jnp.array([6, 4, 5, 1])[:, None]).astype(jnp.float32),
    }
    return model, Objective(), batch
