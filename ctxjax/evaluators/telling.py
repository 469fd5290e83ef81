"""The tags that a tagger tells all words of a split, each once, whatever the batches and the windows."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import Any

import jax

from ctxjax import paths
from ctxjax.config import ConfigError
from ctxjax.evaluators.rows import Rows
from ctxjax.step import Forward


class Telling:
    """Tags every sentence of a split by the model's head "tags".

    Args:
      split: the split of the source.
      batch_size: sentences at once; 0 is that of training.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    of_spans = False  # whether the tags have to say spans

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
        if self.of_spans and not getattr(self.source, "scheme", ""):
            raise ConfigError("config.evals: entities needs a source whose tags say spans: set config.source.scheme")

        def tell(forward: Forward, batch: Any) -> Any:
            counted = batch["weights"] > 0
            return forward.head("tags", forward(batch["inputs"]).hidden[-1], counted), counted

        self._rows = Rows(tell, "sentences", batch_size, model=model, mesh=mesh, train_batch_size=train_batch_size)

    def predict(self, params: Any, folder: str | os.PathLike[str]) -> os.PathLike[str]:
        """Write what conlleval reads: a line a word with its tag and the told one, a blank line behind a sentence.

        Returns:
          the file, named by the split, as in test.predictions.txt; process 0 writes it.
        """
        path = paths.at(folder) / f"{self.source.split}.predictions.txt"
        told = self.told(params)
        if jax.process_index() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines: list[str] = []
            for one, ours in zip(self.source.sentences, told, strict=True):
                lines += (f"{word} {tag} {mine}\n" for word, tag, mine in zip(one.words, one.tags, ours))
                lines.append("\n")
            paths.write_text(path, "".join(lines))
        return path

    def always(self) -> list[list[str]]:
        """The tag that is most frequent in training, of every word."""
        tags = collections.Counter(tag for one in self.source.training for tag in one.tags)
        return [[tags.most_common(1)[0][0]] * len(one.words) for one in self.source.sentences]

    def told(self, params: Any) -> list[list[str]]:
        """The tags of every sentence, in the order of the file; of one that was cut, its rows put together."""
        owners, labels = self.source.owners, self.source.labels
        rows: list[list[str]] = [[] for _ in owners]
        for numbers, told in self._rows(params, self.source):
            for number, tags, counted in zip(numbers.tolist(), *told):
                rows[number] = [labels[tag] for tag in tags[counted].tolist()]
        found: list[list[str]] = [[] for _ in self.source.sentences]
        for owner, tags in zip(owners, rows, strict=True):
            found[owner] += tags
        return found
