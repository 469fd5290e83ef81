"""Word similarity: the rank correlation of cosines with human judgements; pairs with an unknown word are counted.

Reference: Finkelstein et al. 2001 (WordSim-353); Hill et al. 2015 (SimLex-999); Luong et al. 2013 (rare words).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.evaluators import reading, words


class Evaluator:
    """Spearman's correlation on one set of pairs.

    Args:
      pairs: a file of lines `word<TAB>word<TAB>score`; relative to `CTXJAX_DATA`.
      layer: of a contextual model, which reads each word alone; 0 is the token layer.
    """

    needs = "embed"

    def __init__(self, pairs: str, layer: int = 0):
        path = reading.existing("evals.pairs", pairs)
        self.layer, self.pairs = layer, []
        for number, line in reading.lines(path):
            fields = line.split("\t")
            try:
                self.pairs.append((fields[0].strip(), fields[1].strip(), float(fields[2])))
            except (IndexError, ValueError):
                raise ConfigError(
                    f"{path}, line {number}: expected two words and a number, with tabs between"
                ) from None
        if len(self.pairs) < 3:
            raise ConfigError(f"{path} has {len(self.pairs)} pairs, too few to correlate")

    def run(self, model: Any) -> dict[str, int | float]:
        """spearman over the pairs of known words (NaN for fewer than three), pairs, unknown (pairs left out)."""
        from scipy.stats import spearmanr

        found = words.vectors(model, [word for one, two, _ in self.pairs for word in (one, two)], self.layer)
        kept = [(found[one], found[two], score) for one, two, score in self.pairs if one in found and two in found]
        correlation = float("nan")
        if len(kept) > 2:
            left, right = (words.unit(np.stack([pair[side] for pair in kept])) for side in (0, 1))
            cosines = (left * right).sum(axis=1)
            if np.ptp(cosines) > 0:
                correlation = float(spearmanr(cosines, [score for _, _, score in kept]).statistic)
        return {"spearman": correlation, "pairs": len(self.pairs), "unknown": len(self.pairs) - len(kept)}
