"""What a model tells of the rows of a source, each once, whatever the batches and the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.data.shuffled import Shuffled
from ctxjax.evaluators import reading
from ctxjax.step import Forward

Numbers = Int[np.ndarray, " N"]


class Rows:
    """Runs a function of a model over rows of a source that are named by number.

    Args:
      told: `(forward, batch) -> tree` of arrays with a row for each row of the batch.
      what: the word for a row in the bar.
      batch_size: rows at once; 0 is that of training.
      model, mesh, train_batch_size: given by the run.

    Raises:
      ConfigError: a batch that does not divide over the devices.
    """

    def __init__(
        self,
        told: Callable[[Forward, Any], Any],
        what: str,
        batch_size: int,
        *,
        model: Any,
        mesh: Any,
        train_batch_size: int,
    ):
        self.batch_size, self.what, self.mesh = batch_size or train_batch_size, what, mesh
        if self.batch_size % sharding.row_shards(mesh):
            raise ConfigError(
                f"an evaluation batch of {self.batch_size} does not divide over {sharding.row_shards(mesh)} devices"
            )

        def run(params: Any, batch: Any) -> Any:
            return told(Forward(model, params, jax.random.key(0), train=False), batch)

        self._run = jax.jit(sharding.on(mesh, run), out_shardings=sharding.replicated(mesh))

    def __call__(self, params: Any, source: Shuffled) -> Iterator[tuple[Numbers, Any]]:
        """The numbers of a batch after the other, and what was told of each, in NumPy; on every process all of them.

        Long rows come first, so that batches are no wider than they have to be.

        Args:
          params: what the model is run with.
          source: whose rows are read.
        """
        index, processes = sharding.process_rows(self.mesh)
        low, high = (self.batch_size * place // processes for place in (index, index + 1))
        order = np.argsort(-source.lengths, kind="stable")
        for part in reading.with_bar(range(len(order)), self.what, self.batch_size):
            numbers = order[np.minimum(np.arange(part[0], part[0] + self.batch_size), len(order) - 1)]
            batch = sharding.put(source.take(numbers[low:high], source.width_of(numbers)), self.mesh)
            told = jax.device_get(self._run(params, batch))
            yield numbers[: len(part)], _first(told, len(part))


def _first(tree: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], tree)
