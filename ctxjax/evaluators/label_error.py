"""The share of texts of a split that a classifier labels wrongly, each told once.

python -m ctxjax.evaluate --workdir runs/trec6 --only test
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ctxjax.config import ConfigError
from ctxjax.evaluators.rows import Rows
from ctxjax.evaluators.scores import scores
from ctxjax.step import Forward


class Evaluator:
    """Labels every text of a split.

    Args:
      split: the split of the source, which has `count`, `lengths`, `targets` and `take`.
      batch_size: texts at once, of similar length; 0 is that of training.
      metrics: more figures, names in `scores.py`, as "matthews"; the labels are numbered in the order of the alphabet.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batch_size: int = 0,
        metrics: Sequence[str] = (),
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective
        self.source, self.metrics = open_source(split), tuple(metrics)

        def tell(forward: Forward, batch: Any) -> Any:
            pooled = forward(batch["inputs"]).pooled
            if pooled is None:
                raise ConfigError("config.evals: label_error needs a model that gives one vector of a text (pooled)")
            return jax.nn.softmax(forward.head("classify", pooled[:, 0]))

        self._rows = Rows(tell, "texts", batch_size, model=model, mesh=mesh, train_batch_size=train_batch_size)

    def probabilities(self, params: Any) -> Float[np.ndarray, "N C"]:
        """The probability of every label for every text, in the order of the file."""
        found = list(self._rows(params, self.source))
        told = np.empty((self.source.count, found[0][1].shape[1]), np.float32)
        for numbers, rows in found:
            told[numbers] = rows
        return told

    def run(self, params: Any) -> dict[str, float]:
        """`error`, 0 to 100, `accuracy`, its complement, and what else was asked for."""
        told, right = self.probabilities(params).argmax(-1), self.source.targets
        wrong = 100.0 * float((told != right).mean())
        return {"error": wrong, "accuracy": 100.0 - wrong, **scores(self.metrics, told, right)}
