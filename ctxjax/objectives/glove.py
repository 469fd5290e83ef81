"""GloVe's objective: weighted least squares of the logarithms of co-occurrence counts.

Reference: Pennington et al. 2014, equations 8 and 9; stanfordnlp/GloVe src/glove.c.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """`f(x) (w c + b + b' - log x)^2 / 2`, f(x) = min(1, (x / x_max)^alpha), a mean over pairs.

    Attributes:
      x_max: from where on a count has its full weight (published: 100; the released demonstration 10).
      alpha: the power beneath.
      scale: the loss is multiplied by it. The original steps after every pair: the pairs of a batch make it their sum.
    """

    x_max: float = 100.0
    alpha: float = 0.75
    scale: float = 1.0
    perplexity = ()
    sums = True  # `scale` makes the mean over a batch its sum

    @property
    def loss(self) -> Mapping[str, float]:
        return {"glove": self.scale}

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of pairs."""
        return {"glove": batch["weights"].astype(jnp.float32).sum()}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Term glove (minimised): half the weighted square, as the original reports it."""
        weights = batch["weights"].astype(jnp.float32)
        found = forward.head("pairs", batch["inputs"]["tokens"], batch["targets"])
        share = jnp.minimum(1.0, (batch["counts"] / self.x_max) ** self.alpha)
        costs = 0.5 * share * jnp.square(found - jnp.log(batch["counts"]))
        return {"glove": Mean((weights * costs).sum(), weights.sum())}, carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: a product of two vectors a pair."""
        return 2.0 * math.prod(batch["targets"].shape) * model.width


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny GloVe, the objective, and a batch of four rows of pairs, one of them short."""
    from ctxjax.models import glove

    model, keys = glove.tiny(), jax.random.split(jax.random.key(0), 3)
    tokens, targets = (jax.random.randint(key, (4, 6), 3, model.vocab_size) for key in keys[:2])
    counts = jnp.exp(2.0 * jax.random.normal(keys[2], (4, 6)))
    weights = (jnp.arange(6)[None, :] < jnp.array([6, 4, 6, 6])[:, None]).astype(jnp.float32)
    return model, Objective(), {"inputs": {"tokens": tokens}, "targets": targets, "counts": counts, "weights": weights}
