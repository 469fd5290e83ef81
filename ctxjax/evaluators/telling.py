"""The tags that a tagger tells all words of a split, each once, whatever the batches and the windows."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.step import Forward


class Telling:
    """Tags every sentence of a split by the model's head "tags".

    Args:
      split: the split of the source.
      batch_size: sentences at once; 0 is that of training.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    of_spans = False  # whether the tags have to say spans

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
        if self.of_spans and not getattr(self.source, "scheme", ""):
            raise ConfigError("config.evals: entities needs a source whose tags say spans: set config.source.scheme")
        self.batch_size, self.mesh = batch_size or train_batch_size, mesh
        if self.batch_size % sharding.row_shards(mesh):
            raise ConfigError(
                f"an evaluation batch of {self.batch_size} does not divide over {sharding.row_shards(mesh)} devices"
            )

        def best(params: Any, batch: Any) -> Any:
            forward = Forward(model, params, jax.random.key(0), train=False)
            return forward.head("tags", forward(batch["inputs"]).hidden[-1], batch["weights"] > 0)

        self._best = jax.jit(best, out_shardings=sharding.replicated(mesh))

    def predict(self, params: Any, folder: str | os.PathLike[str]) -> pathlib.Path:
        """Write what conlleval reads: a line a word with its tag and the told one, a blank line behind a sentence.

        Returns:
          the file, named by the split, as in test.predictions.txt; process 0 writes it.
        """
        path = pathlib.Path(folder) / f"{self.source.split}.predictions.txt"
        told = self.told(params)
        if jax.process_index() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                for one, ours in zip(self.source.sentences, told, strict=True):
                    file.writelines(f"{word} {tag} {mine}\n" for word, tag, mine in zip(one.words, one.tags, ours))
                    file.write("\n")
        return path

    def told(self, params: Any) -> list[list[str]]:
        """The tags of every sentence, in the order of the file; of one that was cut, its rows put together."""
        owners, labels = self.source.owners, self.source.labels
        index, processes = sharding.process_rows(self.mesh)
        low, high = (self.batch_size * place // processes for place in (index, index + 1))
        found: list[list[str]] = [[] for _ in self.source.sentences]
        for first in range(0, len(owners), self.batch_size):
            numbers = np.minimum(np.arange(first, first + self.batch_size), len(owners) - 1)
            rows = self.source.take(numbers)
            mine = jax.tree.map(lambda leaf: leaf[low:high], rows)
            best = np.asarray(jax.device_get(self._best(params, sharding.put(mine, self.mesh))))
            for row, number in enumerate(range(first, min(first + self.batch_size, len(owners)))):
                told = best[row][rows["weights"][row] > 0]
                found[owners[number]] += [labels[tag] for tag in told.tolist()]
        return found
