"""The official figures of a task on whole texts, over a whole split, and the official file of its predictions.

python -m ctxjax.predict --workdir runs/rte --split test --output predictions
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ctxjax import paths
from ctxjax.config import ConfigError
from ctxjax.evaluators.rows import Rows
from ctxjax.evaluators.scores import scores
from ctxjax.objectives.classification import told
from ctxjax.step import Forward
from ctxjax.text.tokenizer import write_files


class Evaluator:
    """Tells every example of a split once.

    Args:
      split: of the source.
      batch_size: examples at once; 0 is that of training.
      baseline: also give the official figure of telling always what is most frequent in training, or the mean.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batch_size: int = 0,
        baseline: bool = True,
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective
        self.source, self.split = open_source(split), split
        if not hasattr(self.source, "examples"):
            raise ConfigError("config.evals: task needs the source 'examples'")
        self.training = open_source("train") if baseline else None
        if split.startswith("heldout"):
            self._right()  # a run would not know before its first evaluation

        def tell(forward: Forward, batch: Any) -> Any:
            return told(forward, forward(batch["inputs"]), model.task)

        self._rows = Rows(tell, "examples", batch_size, model=model, mesh=mesh, train_batch_size=train_batch_size)

    def scores(self, params: Any) -> Float[np.ndarray, "N ..."]:
        """What the model gives every example, in the order of the file: scores of labels or choices, or a number."""
        found: list[Any] = [None] * self.source.count
        for numbers, values in self._rows(params, self.source):
            for number, value in zip(numbers.tolist(), values):
                found[number] = value
        return np.stack(found)

    def told(self, params: Any) -> Shaped[np.ndarray, " N"]:
        """The number of a label, of a choice, or the number, of every example."""
        values = self.scores(params)
        return values.astype(np.float64) if self.source.task.kind == "regress" else values.argmax(-1)

    def _right(self) -> Shaped[np.ndarray, " N"]:
        right = self.source.targets()
        if right is None:
            raise ConfigError(
                f"config.evals: {self.source.place(self.split)} says no labels; write what the model tells of it with "
                f"python -m ctxjax.predict --split {self.split}"
            )
        return right

    def run(self, params: Any) -> dict[str, float]:
        """The figures of the task, and `majority_NAME`, the official one of the baseline."""
        task, right = self.source.task, self._right()
        positive = self.source.labels.index(task.positive) if task.positive else 1
        figures = scores(task.metrics, self.told(params), right, positive)
        if self.training is not None:
            common = _commonest(self.training.targets(), task.kind)
            always = np.full(len(right), common)
            official = task.metrics[0]
            figures[f"majority_{official}"] = scores((official,), always, right, positive)[official]
        return figures

    def predictions(self, params: Any) -> list[str | int | float]:
        """A label, the number of a choice, or a number within its bounds, of every example."""
        task, values = self.source.task, self.told(params)
        if len(self.source.examples) != len(values):
            raise ValueError(f"{len(values)} predictions of {len(self.source.examples)} examples")
        if task.kind == "regress":
            return np.clip(values, *(task.bounds or (-np.inf, np.inf))).tolist()
        return [self.source.labels[value] if self.source.labels else value for value in values.tolist()]

    def examples(self, params: Any) -> list[dict[str, Any]]:
        """What is right and what was told of every example, for `ctxjax.compare`."""
        pairs = zip(self.source.examples, self.predictions(params))
        return [{"id": one.id, "target": one.target, "prediction": prediction} for one, prediction in pairs]

    def predict(self, params: Any, folder: str | os.PathLike[str]) -> os.PathLike[str]:
        """Write what the model tells, in the official layout: a line an example, its number and a prediction."""
        told = self.predictions(params)
        spelled = [f"{each:.3f}" if isinstance(each, float) else str(each) for each in told]
        lines = [f"{one.id}\t{prediction}\n" for one, prediction in zip(self.source.examples, spelled)]
        name = self.source.task.submissions.get(self.split, f"{self.split}.tsv")
        write_files(folder, {name: "".join(["index\tprediction\n", *lines])})
        return paths.at(folder) / name


def _commonest(right: Any, kind: str) -> int | float:
    """What is right most often, or the mean."""
    return float(right.mean()) if kind == "regress" else int(np.bincount(right).argmax())
