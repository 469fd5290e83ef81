"""An n-gram model in use: log-probabilities of texts by the chain rule, and sampling.

Reference: Jurafsky and Martin, "Speech and Language Processing", chapter 3; for back-off, Katz 1987.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ctxjax.ngrams import smoothing as smoothings
from ctxjax.ngrams.trie import NONE


class NGrams:
    """Tables and how to read them.

    Args:
      tables: as `smoothing.estimate` makes them, by path name.
      vocab_size, order: of the model.
      bos, eos: ids of the marks round a sentence.
      smoothing: "kneser_ney" (or any back-off model, as one from an ARPA file), "add_k" or "ml".
      k: of add-k.
    """

    def __init__(
        self,
        tables: Mapping[str, np.ndarray],
        vocab_size: int,
        order: int,
        bos: int,
        eos: int,
        smoothing: str = "kneser_ney",
        k: float = 1.0,
    ):
        self.vocab_size, self.order, self.bos, self.eos = vocab_size, order, bos, eos
        self.trie = smoothings.tables_to_trie(tables, vocab_size, order)
        self.ratio = smoothing != "kneser_ney"
        self.k = k if smoothing == "add_k" else 0.0

        def each(name: str, upto: int) -> list[np.ndarray]:
            return [np.asarray(tables[f"order_{n}/{name}"]) for n in range(1, upto + 1)]

        if self.ratio:
            self._counts = [count.astype(np.float64) for count in each("count", order)]
            self._counts[0][bos] = 0.0
            sizes = [1, *self.trie.sizes]
            parents = [np.zeros(vocab_size, np.int64), *(self.trie.parent(n) for n in range(2, order + 1))]
            self._totals = [np.bincount(p, c, size) for p, c, size in zip(parents, self._counts, sizes)]
        else:
            self._log_probs, self._backoffs = each("log_prob", order), each("backoff", order - 1)

    @property
    def sizes(self) -> list[int]:
        """n-grams of each order."""
        return self.trie.sizes

    def log_probs(self, sentences: Sequence[Int[np.ndarray, " _"]]) -> list[Float[np.ndarray, " _"]]:
        """Natural log-probability of every word of some sentences and of the end of each; float64.

        Minus infinity is what the model holds for impossible (maximum likelihood: what it has not seen).
        """
        lengths = np.array([len(one) for one in sentences], np.int64)
        stream = np.concatenate([np.concatenate([[self.bos], one, [self.eos]]) for one in sentences] or [[]])
        stream = stream.astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths + 2)])[:-1]
        place = np.arange(len(stream)) - np.repeat(starts, lengths + 2)
        found = self._ratios(stream, place) if self.ratio else self._backed_off(stream, place)
        return [found[start + 1 : start + length + 2] for start, length in zip(starts, lengths)]

    def _nodes(self, stream: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
        """For each length k, the node of the k words up to every position, within its sentence; -1: none."""
        found = [stream]
        for k in range(2, self.order + 1):
            before = np.concatenate([[NONE], found[-1][:-1]])
            found.append(self.trie.child(k, np.where(place >= k - 1, before, NONE), stream))
        return found

    def _backed_off(self, stream: np.ndarray, place: np.ndarray) -> np.ndarray:
        nodes = self._nodes(stream, place)
        value = self._log_probs[0][stream].astype(np.float64)
        for k in range(2, self.order + 1):
            context = np.concatenate([[NONE], nodes[k - 2][:-1]])
            there, known = nodes[k - 1] != NONE, (context != NONE) & (place >= k - 1)
            penalty = np.where(known, self._backoffs[k - 2][np.where(known, context, 0)], 0.0)
            table = self._log_probs[k - 1]
            value = np.where(there, table[np.where(there, nodes[k - 1], 0)] if len(table) else 0.0, value + penalty)
        return value

    def _ratios(self, stream: np.ndarray, place: np.ndarray) -> np.ndarray:
        nodes = self._nodes(stream, place)
        value = np.full(len(stream), -np.inf)
        for k in range(1, self.order + 1):
            here = np.minimum(place + 1, self.order) == k  # the longest n-gram that fits into the sentence
            context = np.concatenate([[NONE], nodes[k - 2][:-1]]) if k > 1 else np.zeros(len(stream), np.int64)
            node = nodes[k - 1]
            count = np.where(node != NONE, self._counts[k - 1][np.maximum(node, 0)], 0.0) if self.sizes[k - 1] else 0.0
            total = np.where(context != NONE, self._totals[k - 1][np.maximum(context, 0)], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.log((count + self.k) / (total + self.k * (self.vocab_size - 1)))
            value = np.where(here, np.where(np.isnan(ratio), -np.inf, ratio), value)
        return value

    def next_log_probs(self, context: Sequence[int]) -> Float[np.ndarray, " V"]:
        """Natural log-probability of every word after `context`, which begins with the sentence mark; float64."""
        words = list(context)[-(self.order - 1) :] if self.order > 1 else []
        if self.ratio:
            node = self._context(words)
            total = self._totals[len(words)][node] if node is not None else 0.0
            count = np.zeros(self.vocab_size)
            if node is not None:
                children = self._children(len(words) + 1, node)
                count[self.trie.word(len(words) + 1)[children]] = self._counts[len(words)][children]
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.log((count + self.k) / (total + self.k * (self.vocab_size - 1)))
            value[self.bos] = -np.inf
            return np.where(np.isnan(value), -np.inf, value)
        value = self._log_probs[0].astype(np.float64)
        for k in range(2, len(words) + 2):
            node = self._context(words[len(words) - k + 1 :])
            if node is None:
                continue
            value = value + float(self._backoffs[k - 2][node])
            children = self._children(k, node)
            value[self.trie.word(k)[children]] = self._log_probs[k - 1][children]
        value[self.bos] = -np.inf
        return value

    def _context(self, words: Sequence[int]) -> int | None:
        """The node of a context; 0 for none at all."""
        if not words:
            return 0
        node = int(self.trie.find(np.array([words], np.int64))[0])
        return None if node == NONE else node

    def _children(self, order: int, node: int) -> slice:
        """The nodes of an order behind a node of the order below."""
        if order == 1:
            return slice(0, self.vocab_size)
        keys = self.trie.keys[order - 2]
        low, high = np.searchsorted(keys, [node * self.vocab_size, (node + 1) * self.vocab_size])
        return slice(int(low), int(high))

    def sample(self, context: Sequence[int], length: int, rng: np.random.Generator, temperature: float = 1.0):
        """Words after a context until the end of the sentence, or `length` of them; temperature 0 takes the likeliest.

        Raises:
          ValueError: nothing can follow, which only maximum likelihood says.
        """
        words, made = [self.bos, *context], []
        while len(made) < length:
            value = self.next_log_probs(words)
            if np.isneginf(value).all():
                raise ValueError("nothing was ever seen behind these words")
            if temperature == 0:
                word = int(value.argmax())
            else:
                weight = np.exp((value - value.max()) / temperature)
                word = int(rng.choice(self.vocab_size, p=weight / weight.sum()))
            if word == self.eos:
                break
            words.append(word)
            made.append(word)
        return made
