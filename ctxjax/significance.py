"""How much of a difference is chance: mean and deviation over seeds, and the paired bootstrap over examples.

Reference: Berg-Kirkpatrick et al. 2012, "An Empirical Investigation of Statistical Significance in NLP", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

Figures = Mapping[str, float]


def spread(rows: Iterable[Figures]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample deviation (of n - 1; NaN of a single run) of each figure over the runs that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(float(value))
    means = {name: float(np.mean(found)) for name, found in values.items()}
    deviations = {name: float(np.std(found, ddof=1)) if len(found) > 1 else np.nan for name, found in values.items()}
    return means, deviations


class Difference(NamedTuple):
    """Of system A over system B on one set of examples.

    Attributes:
      a, b: the figure of each on all examples.
      low, high: 95 % of the differences on resampled examples lie between them.
      p: the share of resampled differences that are more than twice the one there is, on whichever side that is: how
        often a system that is no better would seem to be as much better by the choice of examples.
    """

    a: float
    b: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a: Callable[[np.ndarray], float],
    b: Callable[[np.ndarray], float],
    examples: int,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two systems on the same examples, drawn again and again with replacement, the same for both.

    Args:
      a, b: numbers of examples `[N]`, some of them several times -> the figure of that system on these.
      examples: how many there are.
      resamples: how often they are drawn.
      seed: of the draws.
    """
    everything = np.arange(examples)
    whole_a, whole_b = a(everything), b(everything)
    rng = np.random.default_rng(seed)
    gains = np.empty(resamples)
    for place in range(resamples):
        drawn = rng.integers(0, examples, examples)
        gains[place] = a(drawn) - b(drawn)
    gain = whole_a - whole_b
    side = 1.0 if gain >= 0 else -1.0
    low, high = np.quantile(gains, (0.025, 0.975)).tolist()
    twice = side * gains > 2 * side * gain + 1e-9  # exactly twice is not more, whatever the rounding
    return Difference(whole_a, whole_b, low, high, float(np.mean(twice)))
