"""Clusters of mentions compared: MUC, B-cubed and CEAF with phi4, summed over documents, and the mean of their F1.

Reference: Vilain et al. 1995 (MUC); Bagga and Baldwin 1998 (B-cubed); Luo 2005 (CEAF); Pradhan et al. 2012 (the mean);
Pradhan et al. 2014, "Scoring Coreference Partitions of Predicted Mentions", for mentions that one side alone has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Clusters = Sequence[Sequence[Any]]  # of mentions, none of which is in two of them


class Ratio(NamedTuple):
    """Numerators and denominators of recall and precision, which add up over documents."""

    recalled: float = 0.0
    there: float = 0.0
    right: float = 0.0
    told: float = 0.0

    def __add__(self, other: Ratio) -> Ratio:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Ratio(*(one + two for one, two in zip(self, other)))

    @property
    def recall(self) -> float:
        return self.recalled / self.there if self.there else 0.0

    @property
    def precision(self) -> float:
        return self.right / self.told if self.told else 0.0

    @property
    def f1(self) -> float:
        both = self.recall + self.precision
        return 2 * self.recall * self.precision / both if both else 0.0


def muc(told: Clusters, there: Clusters) -> Ratio:
    """Links: of a cluster of n mentions n - 1, less one for each further part that the other side cuts it into."""
    return Ratio(*_links(there, told), *_links(told, there))


def _links(ours: Clusters, theirs: Clusters) -> tuple[float, float]:
    owner = {mention: number for number, cluster in enumerate(theirs) for mention in cluster}
    found = links = 0
    for cluster in ours:
        alone = sum(mention not in owner for mention in cluster)
        parts = {owner[mention] for mention in cluster if mention in owner}
        found += len(cluster) - alone - len(parts)
        links += len(cluster) - 1
    return float(found), float(links)


def b_cubed(told: Clusters, there: Clusters) -> Ratio:
    """Mentions: of each the share of its cluster that is in its cluster of the other side, too."""
    common = np.square(_common(there, told))
    ours, theirs = _sizes(there), _sizes(told)
    return Ratio((common.sum(1) / ours).sum(), ours.sum(), (common.sum(0) / theirs).sum(), theirs.sum())


def ceaf(told: Clusters, there: Clusters) -> Ratio:
    """Entities: the best pairing of both sides' clusters by phi4, `2 |K and R| / (|K| + |R|)`."""
    from scipy.optimize import linear_sum_assignment

    alike = 2.0 * _common(there, told) / (_sizes(there)[:, None] + _sizes(told)[None, :])
    best = float(alike[linear_sum_assignment(alike, maximize=True)].sum())
    return Ratio(best, float(len(there)), best, float(len(told)))


def _common(ours: Clusters, theirs: Clusters) -> np.ndarray:
    sets = [set(cluster) for cluster in theirs]
    rows = [[len(set(cluster) & one) for one in sets] for cluster in ours]
    return np.array(rows, np.float64).reshape(len(ours), len(sets))


def _sizes(clusters: Clusters) -> np.ndarray:
    return np.array([len(cluster) for cluster in clusters], np.float64)


MEASURES = {"muc": muc, "b_cubed": b_cubed, "ceaf": ceaf}


def scores(documents: Iterable[tuple[Clusters, Clusters]]) -> dict[str, float]:
    """Recall, precision and F1 of each measure, 0 to 100, and `f1`, the mean of the three.

    Args:
      documents: clusters that were told and those that there are.
    """
    sums = dict.fromkeys(MEASURES, Ratio())
    for told, there in documents:
        for name, measure in MEASURES.items():
            sums[name] += measure(told, there)
    figures = {
        f"{name}_{part}": 100.0 * getattr(ratio, part)
        for name, ratio in sums.items()
        for part in ("recall", "precision", "f1")
    }
    return {"f1": sum(100.0 * ratio.f1 for ratio in sums.values()) / len(sums), **figures}
