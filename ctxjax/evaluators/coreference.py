"""Clusters of mentions that a model tells of every document of a split, by MUC, B-cubed, CEAF and their mean.

Reference: Pradhan et al. 2012, "CoNLL-2012 Shared Task", section 4.5; Lee et al. 2017, section 6, for how links become
clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ctxjax.data.tasks.conll2012 import Mention
from ctxjax.evaluators import clusters
from ctxjax.evaluators.rows import Rows
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

        def rank(forward: Forward, batch: Any) -> Any:
            return tuple(forward.head("coreference", *words_of(forward(batch["inputs"]).hidden[-1], batch)))

        self._rows = Rows(rank, "documents", batch_size, model=model, mesh=mesh, train_batch_size=train_batch_size)

    def told(self, params: Any) -> list[list[list[Mention]]]:
        """The clusters of every document, in the order of the files."""
        found: list[list[list[Mention]]] = [[] for _ in self.source.documents]
        for numbers, ranked in self._rows(params, self.source):
            for number, one in zip(numbers.tolist(), zip(*ranked)):
                found[number] = linked(*one)
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
