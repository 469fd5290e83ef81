"""LAMBADA: the last word of a passage, which only what is far before it tells.

Reference: Paperno et al. 2016, "The LAMBADA dataset"; Radford et al. 2019 for the untokenised text. A word is right
where each of its pieces is the most probable one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.evaluators import reading


class Evaluator:
    """Accuracy and perplexity of last words.

    Args:
      texts: a `.jsonl` with one passage in `text` a record; relative to `CTXJAX_DATA`.
      limit: only the first so many; 0 for all (5,153).
    """

    needs = "score_next"

    def __init__(self, texts: str, limit: int = 0):
        path = reading.existing("evals.texts", texts)
        self.passages = [text.strip().rsplit(maxsplit=1) for text in reading.texts(path)][: limit or None]
        if any(len(parts) != 2 for parts in self.passages):
            raise ConfigError(f"{path} has a passage of one word, and the last is told from those before it")

    def run(self, model: Any) -> dict[str, int | float]:
        """accuracy, perplexity (of last words, whole), passages."""
        right, log_prob = 0, 0.0
        for part in reading.with_bar(self.passages, "LAMBADA", 64):
            values, best = model.score_next([context for context, _ in part], [word for _, word in part])
            right, log_prob = right + int(best.sum()), log_prob + float(values.sum())
        count = len(self.passages)
        return {"accuracy": right / count, "perplexity": float(np.exp(-log_prob / count)), "passages": count}
