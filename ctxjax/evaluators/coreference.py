"""Clusters of mentions that a model tells of every document of a split, by MUC, B-cubed, CEAF and their mean.

Reference: Pradhan et al. 2012, "CoNLL-2012 Shared Task", section 4.5; Lee et al. 2017, section 6, for how links become
clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.data.tasks.conll2012 import Mention
from ctxjax.evaluators import clusters, reading
from ctxjax.objectives.coreference import words_of
from ctxjax.step import Forward


class Evaluator:
    """Links every span to its best antecedent.

    Args:
      split: the split of the source.
      batch_size: documents at once; 0 is that of training.
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

        def ranked(params: Any, batch: Any) -> Any:
            forward = Forward(model, params, jax.random.key(0), train=False)
            return tuple(forward.head("coreference", *words_of(forward(batch["inputs"]).hidden[-1], batch)))

        self._ranked = jax.jit(ranked, out_shardings=sharding.replicated(mesh))

    def told(self, params: Any) -> list[list[list[Mention]]]:
        """The clusters of every document, in the order of the files."""
        count = len(self.source.documents)
        index, processes = sharding.process_rows(self.mesh)
        low, high = (self.batch_size * place // processes for place in (index, index + 1))
        found: list[list[list[Mention]]] = []
        for part in reading.with_bar(range(count), "documents", self.batch_size):
            numbers = np.minimum(np.arange(part[0], part[0] + self.batch_size), count - 1)
            batch = sharding.put(self.source.take(numbers[low:high]), self.mesh)
            ranked = [np.asarray(leaf) for leaf in jax.device_get(self._ranked(params, batch))]
            found += [linked(*(leaf[row] for leaf in ranked)) for row in range(len(part))]
        return found

    def run(self, params: Any) -> dict[str, float]:
        """`f1`, the mean of the three, and recall, precision and F1 of each (`muc_recall`, ...), 0 to 100."""
        there = [one.clusters for one in self.source.documents]
        return clusters.scores(zip(self.told(params), there, strict=True))


def linked(
    starts: Int[np.ndarray, " M"],
    stops: Int[np.ndarray, " M"],
    valid: Bool[np.ndarray, " M"],
    antecedents: Int[np.ndarray, "M K"],
    scores: Float[np.ndarray, "M K1"],
) -> list[list[Mention]]:
    """Clusters of two mentions or more: every span joins its best antecedent, unless none is better."""
    owner: dict[int, list[Mention]] = {}
    spans: Sequence[Mention] = list(zip(starts.tolist(), stops.tolist()))
    for span, best in enumerate(scores.argmax(axis=1).tolist()):
        owner[span] = [spans[span]]
        if valid[span] and best > 0:
            owner[span] = owner[int(antecedents[span, best - 1])]
            owner[span].append(spans[span])
    distinct = {id(cluster): cluster for cluster in owner.values()}
    return [cluster for cluster in distinct.values() if len(cluster) > 1]
