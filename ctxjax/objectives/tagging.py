"""The objective of a tagger: `-log p(tags of a sentence)` under its CRF, or cross-entropy word by word.

Reference: Peters et al. 2017, "Semi-supervised sequence tagging with bidirectional language models", section 2.2;
Lafferty et al. 2001, "Conditional Random Fields"; Devlin et al. 2019, section 5.3, for words apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """The model's head "crf", or "scores", over the words that weigh something.

    Attributes:
      crf: the mean over sentences of `-log p(tags)`; without it the mean over words of the cross-entropy.
      mix_l2: times the squared raw weights of the model's scalar mixes is added (ELMo's lambda).
    """

    crf: bool = True
    mix_l2: float = 0.0
    perplexity = ()

    @property
    def loss(self) -> Mapping[str, float]:
        return {"crf" if self.crf else "word": 1.0} | ({"mix": self.mix_l2} if self.mix_l2 else {})

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of sentences with a word, or of words; the penalty goes with the same."""
        counted = batch["weights"] > 0
        weight = (counted.any(axis=1) if self.crf else counted).astype(jnp.float32).sum()
        return {name: weight for name in self.loss}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms crf and crf_word, the same a word, or word; mix (the penalty); in evaluation words_accuracy."""
        outputs = forward(batch["inputs"], carry)
        top, counted, targets = outputs.hidden[-1], batch["weights"] > 0, batch["targets"]
        words, weights = counted.sum().astype(jnp.float32), self.weights(batch)
        if self.crf:
            total = forward.head("crf", top, counted, targets).sum()
            terms = {"crf": Mean(total, weights["crf"]), "crf_word": Mean(total, words)}
        else:
            logs = jax.nn.log_softmax(forward.head("scores", top).astype(jnp.float32))
            told = jnp.take_along_axis(logs, targets[:, :, None], axis=-1)[:, :, 0]
            terms = {"word": Mean(-jnp.where(counted, told, 0.0).sum(), words)}
        if self.mix_l2:  # as a sum over what the batch has, so that its parts add up
            penalty = jnp.square(forward.head("mix").astype(jnp.float32)).sum()
            terms["mix"] = Mean(penalty * weights["mix"], weights["mix"])
        if not forward.train:
            right = (forward.head("tags", top, counted) == targets) & counted
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
