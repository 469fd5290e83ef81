"""Static word vectors: the vector of a word, the nearest words, and fastText's labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.pretrained.embedding import Embedding
from ctxjax.pretrained.opened import texts_of
from ctxjax.reading import Text
from ctxjax.text import subwords

WORDS_AT_ONCE = 4096  # of a vocabulary


class Lookup(Embedding):
    """Models whose vector of a word is one, whatever is around it."""

    def vector(self, word: str) -> np.ndarray:
        """The vector of one word of a model of static word vectors, float32 [width].

        Raises:
          ConfigError: a word outside the vocabulary, where it has no n-grams to make a vector of either.
        """
        self.need("vector")
        unknown = self.tokenizer.id_of(word) == self.tokenizer.unk_id
        if unknown and not self.config.get("buckets"):
            raise ConfigError(f"{word!r} is not among the {len(self.tokenizer):,} words of {self.path}")
        return self.embed([[word]])[0].layers[0, 0]

    def nearest(self, word: str | np.ndarray, count: int = 10) -> list[tuple[str, float]]:
        """The words of the vocabulary whose vectors are nearest to that of a word, or to a given vector.

        Returns:
          `(word, cosine)` by falling cosine, without the word itself.
        """
        self.need("nearest")
        target = self.vector(word) if isinstance(word, str) else np.asarray(word, np.float32)
        cosines = self._directions @ (target / max(float(np.linalg.norm(target)), 1e-30))
        if isinstance(word, str) and (own := self.tokenizer.id_of(word)) != self.tokenizer.unk_id:
            cosines[own] = -np.inf
        cosines[: self.tokenizer.unk_id + 1] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(count, int(np.isfinite(cosines).sum()))]
        return [(self.tokenizer.pieces[i], float(cosines[i])) for i in best]

    @functools.cached_property
    def _directions(self) -> np.ndarray:
        """The vectors of all words at length 1."""
        pieces = self.tokenizer.pieces
        parts = [pieces[start : start + WORDS_AT_ONCE] for start in range(0, len(pieces), WORDS_AT_ONCE)]
        table = np.concatenate([one.layers[0] for one in self.embed(parts)])
        return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-30)

    def classify(self, texts: Text | Sequence[Text], count: int = 1) -> list[list[tuple[str, float]]]:
        """The most probable labels of texts, by a classifier of fastText.

        Returns:
          for each text `(label, probability)` by falling probability.
        """
        self.need("classify")
        rows = [subwords.text_rows(self.tokenizer, text, self.config) for text in texts_of(texts)]
        found = self.runner.label_probs(rows)
        labels = self.config["labels"]
        best = [np.argsort(-one, kind="stable")[:count] for one in found]
        return [[(labels[i], float(one[i])) for i in order] for one, order in zip(found, best)]
