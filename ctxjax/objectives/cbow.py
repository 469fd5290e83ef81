"""CBOW: the mean of a window's words predicts the word in its middle, against negatives or down a Huffman tree.

Reference: Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space", section 3.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.objectives import logistic, skipgram
from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """The cost of all windows of running words, a mean over words.

    Attributes:
      negatives, hierarchical, outside, limit, scale: as in `skipgram.Objective`.
      undivided: each word of a window takes the whole error of their mean (published: so does the released code), and
        not the n-th part that the derivative gives it.
    """

    negatives: int = 5
    hierarchical: bool = False
    undivided: bool = True
    outside: str = "saturate"
    limit: float = 6.0
    scale: float = 1.0
    perplexity = ()
    sums = True  # `scale` makes the mean over a batch its sum

    def __post_init__(self) -> None:
        skipgram.check(self)

    @property
    def loss(self) -> Mapping[str, float]:
        return {"cbow": self.scale}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of words."""
        return {"cbow": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Term cbow (minimised): summed over a word and its negatives."""
        outputs = forward(batch["inputs"], carry)
        inputs = outputs.hidden[0]
        _, table, _ = forward.readout(inputs.reshape(-1, inputs.shape[-1]))
        given, window, block = logistic.fields(batch, inputs)
        around = {name: logistic.reaching(value, block, window) for name, value in given.items()}
        inside = {name: logistic.blocks_of(value, block) for name, value in given.items()}
        reaching = logistic.reaching(inputs, block, window)
        if self.hierarchical:
            nodes, turns = (logistic.blocks_of(batch[name], block) for name in ("nodes", "turns"))
            floats = (reaching, table[jnp.maximum(nodes, 0)])
            total = logistic.over_blocks(self._tree, floats, (inside, around, turns))
        else:
            chosen = table[jnp.concatenate([batch["targets"], batch["negatives"].reshape(len(inputs), -1)], axis=1)]
            targets, negatives = jnp.split(chosen, [inputs.shape[1]], axis=1)
            negatives = negatives.reshape(-1, *batch["negatives"].shape[2:], inputs.shape[-1])
            drawn = batch["negatives"].reshape(-1, batch["negatives"].shape[2])
            floats = (reaching, logistic.blocks_of(targets, block), negatives)
            total = logistic.over_blocks(self._negatives, floats, (inside, around, drawn))
        return {"cbow": Mean(total, given["weights"].sum())}, outputs.carry

    def _middle(self, inputs: Array, inside: Any, around: Any) -> tuple[Array, Array]:
        """The mean of each window, and where there is one."""
        window = (inputs.shape[0] - inside["reach"].shape[0]) // 2
        both = [(inside[name], around[name]) for name in ("sentences", "weights")]
        pairs = logistic.within(inside["reach"][:, None], both[0], both[1], window).astype(inputs.dtype)
        count, sums = pairs.sum(-1, keepdims=True), pairs @ inputs
        means = sums / jnp.broadcast_to(jnp.maximum(count, 1.0), sums.shape)
        if self.undivided:  # the value of the mean with the derivative of the sum
            means = sums - jax.lax.stop_gradient(sums - means)
        return means, (count[:, 0] > 0).astype(inputs.dtype)

    def _negatives(self, inputs, targets, negatives, inside, around, drawn):
        """One block of targets with the inputs in reach of it."""
        means, there = self._middle(inputs, inside, around)
        others = (inside["targets"][:, None] != drawn[None, :]).astype(inputs.dtype)
        share = there[:, None] * others * (self.negatives / negatives.shape[0])
        true = there * logistic.cost(jnp.einsum("kd,kd->k", means, targets), self.outside, self.limit)
        return true.sum() + (share * logistic.cost(-(means @ negatives.T), self.outside, self.limit)).sum()

    def _tree(self, inputs, nodes, inside, around, turns):
        """One block of targets' paths with the inputs in reach of it."""
        means, there = self._middle(inputs, inside, around)
        scores = jnp.einsum("kd,kld->kl", means, nodes)
        costs = logistic.cost(jnp.where(turns == 0, scores, -scores), self.outside, self.limit)
        return (there[:, None] * (turns >= 0) * costs).sum()

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: sums of windows, and the scores of the targets and the negatives."""
        rows, length = batch["targets"].shape
        window, width = batch["reach"].shape[-1], model.width
        if self.hierarchical:
            block, scores = min(length, 64), batch["nodes"].shape[-1]
        else:
            block, scores = length // batch["negatives"].shape[1], batch["negatives"].shape[2] + 1
        return 2.0 * rows * length * width * (block + 2 * window + scores)


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """Tiny tables, the objective, and the batch of skip-gram's example."""
    from ctxjax.models import word2vec

    model = word2vec.tiny()
    return model, Objective(), skipgram.example_batch(model.vocab_size)
