"""The share of texts of a split that a classifier labels wrongly, each told once.

python -m ctxjax.evaluate --workdir runs/trec6 --only test
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.step import Forward


class Evaluator:
    """Labels every text of a split.

    Args:
      split: the split of the source, which has `count`, `lengths`, `targets` and `take`.
      batch_size: texts at once, of similar length; 0 is that of training.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batch_size: int = 0,
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective
        self.source = open_source(split)
        self.batch_size, self.mesh = batch_size or train_batch_size, mesh
        if self.batch_size % sharding.row_shards(mesh):
            raise ConfigError(
                f"an evaluation batch of {self.batch_size} does not divide over {sharding.row_shards(mesh)} devices"
            )

        def told(params: Any, inputs: Any) -> Any:
            forward = Forward(model, params, jax.random.key(0), train=False)
            pooled = forward(inputs).pooled
            if pooled is None:
                raise ConfigError("config.evals: label_error needs a model that gives one vector of a text (pooled)")
            return jax.nn.softmax(forward.head("classify", pooled[:, 0]))

        self._told = jax.jit(told, out_shardings=sharding.replicated(mesh))

    def probabilities(self, params: Any) -> Float[np.ndarray, "N C"]:
        """The probability of every label for every text, in the order of the file."""
        order = np.argsort(-self.source.lengths, kind="stable")
        index, processes = sharding.process_rows(self.mesh)
        low, high = (self.batch_size * place // processes for place in (index, index + 1))
        found = []
        for first in range(0, len(order), self.batch_size):
            numbers = order[np.minimum(np.arange(first, first + self.batch_size), len(order) - 1)]
            inputs = sharding.put(self.source.take(numbers[low:high]), self.mesh)["inputs"]
            found.append(np.asarray(jax.device_get(self._told(params, inputs))))
        told = np.empty((len(order), found[0].shape[1]), np.float32)
        told[order] = np.concatenate(found)[: len(order)]
        return told

    def run(self, params: Any) -> dict[str, float]:
        """`error`, 0 to 100, and `accuracy`, its complement."""
        wrong = 100.0 * float((self.probabilities(params).argmax(-1) != self.source.targets).mean())
        return {"error": wrong, "accuracy": 100.0 - wrong}
