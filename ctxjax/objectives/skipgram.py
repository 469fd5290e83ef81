"""Skip-gram: each word of a window predicts the word in its middle, against negatives or down a Huffman tree.

The paper predicts the context from the middle word; its code, and this, predict the middle word from each of its
context, which is the same pairs with the windows drawn at the other end.

Reference: Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import logistic
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """The cost of all pairs of running words, a mean over words.

    Attributes:
      negatives: words that each pair is set against; of those that its block shares, as many count by their weight. One
        that is the target itself counts for nothing.
      hierarchical: go down the Huffman tree instead; the source gives the paths with `tree=True`.
      window_of: whose drawn window decides a pair: the "target" (word2vec) or the "input" (fastText).
      outside, limit: see `logistic.cost`; a Huffman tree is published with "skip".
      scale: the loss is multiplied by it. The originals step along the sum over words: the words of a batch, rows times
        their length, make it that.
    """

    negatives: int = 5
    hierarchical: bool = False
    window_of: str = "target"
    outside: str = "saturate"
    limit: float = 6.0
    scale: float = 1.0
    perplexity = ()
    sums = True  # `scale` makes the mean over a batch its sum

    def __post_init__(self) -> None:
        check(self)
        if self.window_of not in ("target", "input"):
            raise ValueError(f"objective.window_of={self.window_of!r} is neither 'target' nor 'input'")

    @property
    def loss(self) -> Mapping[str, float]:
        return {"skipgram": self.scale}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of words."""
        return {"skipgram": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Term skipgram (minimised): summed over the pairs of a word and their negatives."""
        outputs = forward(batch["inputs"], carry)
        inputs = outputs.hidden[0]
        _, table, _ = forward.readout(inputs.reshape(-1, inputs.shape[-1]))
        given, window, block = logistic.fields(batch, inputs)
        around = {name: logistic.reaching(value, block, window) for name, value in given.items()}
        inside = {name: logistic.blocks_of(value, block) for name, value in given.items()}
        if self.hierarchical:
            nodes, turns = (logistic.blocks_of(batch[name], block) for name in ("nodes", "turns"))
            floats = (logistic.reaching(inputs, block, window), table[jnp.maximum(nodes, 0)])
            total = logistic.over_blocks(self._tree, floats, (inside, around, turns))
        else:
            chosen = table[jnp.concatenate([batch["targets"], batch["negatives"].reshape(len(inputs), -1)], axis=1)]
            targets, negatives = jnp.split(chosen, [inputs.shape[1]], axis=1)
            negatives = negatives.reshape(-1, *batch["negatives"].shape[2:], inputs.shape[-1])
            drawn = batch["negatives"].reshape(-1, batch["negatives"].shape[2])
            floats = (logistic.blocks_of(inputs, block), logistic.reaching(targets, block, window), negatives)
            total = logistic.over_blocks(self._negatives, floats, (inside, around, drawn))
        return {"skipgram": Mean(total, given["weights"].sum())}, outputs.carry

    def _negatives(self, inputs, targets, negatives, inside, around, drawn):
        """One block of inputs with the targets in reach of it."""
        window = (targets.shape[0] - inputs.shape[0]) // 2
        reach = around["reach"][None, :] if self.window_of == "target" else inside["reach"][:, None]
        pairs = _pairs(reach, inside, around, window).astype(inputs.dtype)
        others = (around["targets"][:, None] != drawn[None, :]).astype(inputs.dtype)
        share = (pairs @ others) * (self.negatives / negatives.shape[0])
        true = pairs * logistic.cost(inputs @ targets.T, self.outside, self.limit)
        return true.sum() + (share * logistic.cost(-(inputs @ negatives.T), self.outside, self.limit)).sum()

    def _tree(self, inputs, nodes, inside, around, turns):
        """One block of targets' paths with the inputs in reach of it."""
        block = nodes.shape[0]
        window = (inputs.shape[0] - block) // 2
        reach = inside["reach"][:, None] if self.window_of == "target" else around["reach"][None, :]
        pairs = _pairs(reach, inside, around, window).astype(inputs.dtype)
        places = jnp.arange(block)[:, None] + jnp.arange(2 * window + 1)[None, :]
        pairs = jnp.take_along_axis(pairs, places, axis=1)
        scores = jnp.einsum("kod,kld->kol", inputs[places], nodes)
        signs = jnp.where(turns == 0, 1.0, -1.0)[:, None, :]
        costs = logistic.cost(scores * jnp.broadcast_to(signs, scores.shape), self.outside, self.limit)
        return (pairs[:, :, None] * (turns >= 0)[:, None, :] * costs).sum()

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: scores against what is in reach of a block, and against its negatives."""
        rows, length = batch["targets"].shape
        window, width = batch["reach"].shape[-1], model.width
        if self.hierarchical:
            return 2.0 * rows * length * (2 * window + 1) * batch["nodes"].shape[-1] * width
        blocks, shared = batch["negatives"].shape[1:]
        around = length // blocks + 2 * window
        return 2.0 * rows * length * (width * (around + shared) + around * shared)


def _pairs(reach: Array, inside: Mapping[str, Array], around: Mapping[str, Array], window: int) -> Array:
    both = [(inside[name], around[name]) for name in ("sentences", "weights")]
    return logistic.within(reach, both[0], both[1], window)


def check(objective: Any) -> None:
    """The fields that skip-gram and CBOW share."""
    if objective.outside not in logistic.OUTSIDE:
        raise ValueError(f"objective.outside={objective.outside!r} is not one of {', '.join(logistic.OUTSIDE)}")
    if objective.negatives < 1:
        raise ValueError(f"objective.negatives={objective.negatives} is not at least 1")


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """Tiny tables, the objective, and a batch of four rows of some sentences, one of them short."""
    from ctxjax.models import word2vec

    model = word2vec.tiny()
    return model, Objective(), example_batch(model.vocab_size)


def example_batch(vocab_size: int) -> dict[str, Any]:
    """Four rows of 24 words in blocks of 12."""
    keys = jax.random.split(jax.random.key(0), 4)
    rows, length, window = 4, 24, 3
    tokens = jax.random.randint(keys[0], (rows, length), 3, vocab_size)
    places = jnp.arange(length)[None, :]
    windows = jax.random.randint(keys[1], (rows, length, 1), 1, window + 1)
    return {
        "inputs": {"tokens": tokens},
        "targets": tokens,
        "weights": (places < jnp.array([length, 17, length, length])[:, None]).astype(jnp.float32),
        "sentences": jnp.broadcast_to(places // 7, (rows, length)),
        "reach": (windows > jnp.arange(window)[None, None, :]).astype(jnp.int32),
        "negatives": jax.random.randint(keys[2], (rows, 2, math.ceil(length / 4)), 3, vocab_size),
    }
