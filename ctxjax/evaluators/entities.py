"""Precision, recall and F1 of the spans that a tagger tells, over a whole split, as conlleval counts them.

    python -m ctxjax.evaluate --workdir runs/names --config experiments/taglm/tag.py --config.source.corpus=DIR \
        --only spans --config.evals.spans.split=test

Reference: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.step import Forward
from ctxjax.text import tags


class Evaluator:
    """Tags every sentence of a split by Viterbi.

    Args:
      split: the split of the source.
      batch_size: sentences at once; 0 is that of training.
      by_kind: F1 of every kind of span, too.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batch_size: int = 0,
        by_kind: bool = False,
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective
        self.source = open_source(split)
        if not getattr(self.source, "scheme", ""):
            raise ConfigError("config.evals: entities needs a source whose tags say spans: set config.source.scheme")
        self.batch_size, self.by_kind, self.mesh = batch_size or train_batch_size, by_kind, mesh
        if self.batch_size % sharding.row_shards(mesh):
            raise ConfigError(
                f"an evaluation batch of {self.batch_size} does not divide over {sharding.row_shards(mesh)} devices"
            )

        def best(params: Any, batch: Any) -> Any:
            forward = Forward(model, params, jax.random.key(0), train=False)
            return forward.head("tags", forward(batch["inputs"]).hidden[-1], batch["weights"] > 0)

        self._best = jax.jit(best, out_shardings=sharding.replicated(mesh))

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

    def run(self, params: Any) -> dict[str, float]:
        """`precision`, `recall` and `f1`, 0 to 100."""
        counts = tags.compare(self.told(params), [one.tags for one in self.source.sentences])
        whole = counts.pop("")
        scores = {name: 100.0 * getattr(whole, name) for name in ("precision", "recall", "f1")}
        if self.by_kind:
            scores |= {f"f1_{kind}": 100.0 * found.f1 for kind, found in sorted(counts.items())}
        return scores
