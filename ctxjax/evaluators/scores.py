"""The figures of tasks on whole texts, of what was told and what is right: pure functions, 0 to 100 where a share is.

A coefficient of what does not vary is 0, as for a model that gives every example the same.

Reference: Matthews 1975, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme"; Wang et
al. 2019 for which task has which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

Told = Shaped[np.ndarray, " N"]


def accuracy(told: Told, right: Told) -> float:
    """The share of equal ones."""
    return 100.0 * float((told == right).mean())


def f1(told: Told, right: Told, positive: int | float = 1) -> float:
    """The harmonic mean of precision and recall of one label; 0 where nobody tells it."""
    hits = float(((told == positive) & (right == positive)).sum())
    both = float((told == positive).sum() + (right == positive).sum())
    return 200.0 * hits / both if both else 0.0


def macro_f1(told: Told, right: Told) -> float:
    """The mean over all labels that are told or right."""
    labels = np.union1d(told, right).tolist()
    return sum(f1(told, right, label) for label in labels) / len(labels)


def matthews(told: Told, right: Told) -> float:
    """Matthews' correlation of two labellings, of any number of labels."""
    labels = np.union1d(told, right)
    ours, theirs = (values[:, None] == labels[None] for values in (told, right))
    return 100.0 * _correlation(ours.astype(np.float64), theirs.astype(np.float64))


def pearson(told: Told, right: Told) -> float:
    """Pearson's correlation."""
    return 100.0 * _correlation(told.astype(np.float64)[:, None], right.astype(np.float64)[:, None])


def spearman(told: Told, right: Told) -> float:
    """Pearson's correlation of the ranks, equal values having the mean of theirs."""
    return 100.0 * _correlation(_ranks(told)[:, None], _ranks(right)[:, None])


def squared_error(told: Told, right: Told) -> float:
    """The mean squared difference, which is no share."""
    return float(np.square(told.astype(np.float64) - right.astype(np.float64)).mean())


def _correlation(left: Float[np.ndarray, "N K"], right: Float[np.ndarray, "N K"]) -> float:
    left, right = left - left.mean(0), right - right.mean(0)
    scale = np.sqrt(np.square(left).sum() * np.square(right).sum())
    return float((left * right).sum() / scale) if scale else 0.0


def _ranks(values: Told) -> Float[np.ndarray, " N"]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts).astype(np.float64)
    return (ends - (counts - 1) / 2.0)[which]


SCORES: dict[str, Callable[..., float]] = {
    name.__name__: name for name in (accuracy, f1, macro_f1, matthews, pearson, spearman, squared_error)
}


def scores(names: Sequence[str], told: np.ndarray, right: np.ndarray, positive: int = 1) -> dict[str, float]:
    """Some figures by name.

    Args:
      names: keys of `SCORES`.
      told, right: one number an example: of its label, of its choice, or the number itself.
      positive: the label that `f1` counts.

    Raises:
      ValueError: not as many are told as there are examples, or there are none.
    """
    if len(told) != len(right) or not len(told):
        raise ValueError(f"{len(told)} predictions of {len(right)} examples")
    return {name: SCORES[name](told, right, *((positive,) if name == "f1" else ())) for name in names}
