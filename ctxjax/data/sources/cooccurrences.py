"""Rows for GloVe: pairs of words that stand near one another in the corpus, in shuffled order, with their counts.

Reference: Pennington et al. 2014, "GloVe: Global Vectors for Word Representation"; stanfordnlp/GloVe.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index
from ctxjax.data.transforms import cooccurrence

_VERSION = 1  # of the index; part of its key


class Source(CorpusSource):
    """Non-zero co-occurrences of a prepared corpus of words, both orders of each pair.

    Row (P = `length`): inputs {tokens [P]}, the words; targets [P], the words beside them; counts [P], float32; weights
    [P], 0 for the few places that fill up a pass.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 1024,
        window: int = 15,
        verify: bool = False,
    ):
        """Open the corpus; its co-occurrences are counted when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote, with a word vocabulary.
          split: "train" or "heldout".
          length: pairs of a row.
          window: words to either side (published: 15), each counting for one over its distance.
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, one that was not made for words, or an impossible field.
        """
        if min(length, window) < 1:
            raise ConfigError("config.source needs length and window >= 1")
        super().__init__(corpus, split, verify, "words")
        self.length, self.window = length, window

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return self.fingerprint_of("length", "window")

    @property
    def tokens_per_row(self) -> int:
        """Pairs of a row."""
        return self.length

    @functools.cached_property
    def _pairs(self) -> dict[str, np.ndarray]:
        key = {"index": "cooccurrences", "version": _VERSION, "corpus": self.corpus.fingerprint, "window": self.window}
        build = functools.partial(cooccurrence.write_cooccurrences, corpus=self.corpus, window=self.window)
        return open_index(self.corpus.folder, key, build)

    @functools.cached_property
    def _unequal(self) -> int:
        """Pairs of two words; those of a word and itself stand behind them and have one order."""
        first, second = self._pairs["first"], self._pairs["second"]
        low, high = 0, len(first)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if first[middle] != second[middle] else (low, middle)
        return low

    @property
    def pairs(self) -> int:
        """Non-zero entries of the symmetric matrix."""
        return len(self._pairs["first"]) + self._unequal

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every pair was read once; what is left of a pass is in the first batch of the next."""
        return max(1, -(-self.pairs // self.length) // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        rows_per_pass = -(-self.pairs // self.length)
        tokens, targets = np.zeros((2, len(elements), self.length), np.int32)
        counts, weights = np.ones((2, len(elements), self.length), np.float32)
        numbers, places = np.divmod(elements, rows_per_pass)
        for row, (number, place) in enumerate(zip(numbers.tolist(), places.tolist())):
            at = np.arange(place * self.length, min((place + 1) * self.length, self.pairs))
            at = draws.permute(draws.key("pairs", seed, number), at, self.pairs)
            turned = at >= len(self._pairs["first"])
            at = np.where(turned, at - len(self._pairs["first"]), at)
            first, second = self._pairs["first"][at], self._pairs["second"][at]
            tokens[row, : len(at)] = np.where(turned, second, first)
            targets[row, : len(at)] = np.where(turned, first, second)
            counts[row, : len(at)] = self._pairs["counts"][at]
            weights[row, len(at) :] = 0.0
        return {"inputs": {"tokens": tokens}, "targets": targets, "counts": counts, "weights": weights}


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("words"), length=32, window=5)
