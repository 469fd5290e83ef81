"""Unigram and bigram baselines on a prepared corpus: what counting alone knows about the held-out text.

The bigram is interpolated Kneser-Ney with one absolute discount (Kneser and Ney 1995; Chen and Goodman 1999, section
2.7), the unigram is add-one smoothed maximum likelihood. Every sentence is scored with its end mark, as the models do.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ctxjax.data.corpus import Corpus


@dataclasses.dataclass(frozen=True)
class Score:
    """Nats a token and the share of tokens guessed right by the most probable one."""

    nll: float
    accuracy: float


def token_pairs(corpus: Corpus, boundary: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(previous, next)` for every token of the corpus; sentences begin and end with the id `boundary`."""
    tokens, _ = corpus.read(0, corpus.num_sentences)
    ends = corpus.sentence_tokens[1:]
    stream = np.insert(tokens.astype(np.int64), ends, boundary)
    return np.concatenate([[boundary], stream[:-1]]), stream


class Bigram:
    """Counts of a training split; `boundary` is an id that no token has (the size of the vocabulary)."""

    def __init__(self, corpus: Corpus):
        self.boundary = len(corpus.tokenizer)
        self.size = self.boundary + 1
        previous, following = token_pairs(corpus, self.boundary)
        self.unigram_counts = np.bincount(following, minlength=self.size)
        codes, counts = np.unique(previous * self.size + following, return_counts=True)
        self._codes, self._counts = codes, counts
        first, second = codes // self.size, codes % self.size
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        self._discount = ones / (ones + 2 * twos) if ones else 0.5  # nothing rare to estimate it from
        self._context = np.bincount(first, weights=counts, minlength=self.size)
        self._followers = np.bincount(first, minlength=self.size)
        continuation = np.bincount(second, minlength=self.size).astype(np.float64)
        # One more count spread evenly: a token never seen in training still has a probability.
        self._continuation = (continuation + 1.0 / self.size) / (continuation.sum() + 1.0)

    def unigram(self, corpus: Corpus, ends: bool) -> Score:
        """The unigram's score on another split; `ends` says whether sentence ends are predicted too."""
        _, following = token_pairs(corpus, self.boundary)
        counts = self.unigram_counts + 1.0
        if not ends:
            counts[self.boundary] = 0.0
            following = following[following != self.boundary]
        probability = counts[following] / counts.sum()
        return Score(nll=float(-np.log(probability).mean()), accuracy=float((following == counts.argmax()).mean()))

    def bigram(self, corpus: Corpus, ends: bool) -> Score:
        """The bigram's score on another split; without `ends` its probabilities are renormalised over the tokens."""
        previous, following = token_pairs(corpus, self.boundary)
        if not ends:
            inside = following != self.boundary
            previous, following = previous[inside], following[inside]
        probability = self._probability(previous, following)
        if not ends:
            probability /= 1.0 - self._probability(previous, np.full_like(previous, self.boundary))
        guessed = self._guesses(ends)[previous] == following
        return Score(nll=float(-np.log(probability).mean()), accuracy=float(guessed.mean()))

    def _guesses(self, ends: bool) -> NDArray[np.int64]:
        """The most frequent follower of every token."""
        first, second = self._codes // self.size, self._codes % self.size
        allowed = np.ones(len(first), bool) if ends else second != self.boundary
        first, second, counts = first[allowed], second[allowed], self._counts[allowed]
        order = np.lexsort((-counts, first))
        head = np.concatenate([[True], first[order][1:] != first[order][:-1]])
        best = np.full(self.size, int(self.unigram_counts[: None if ends else self.boundary].argmax()))
        best[first[order][head]] = second[order][head]
        return best

    def _probability(self, previous: NDArray[np.int64], following: NDArray[np.int64]) -> NDArray[np.float64]:
        codes = previous * self.size + following
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        seen = np.where(self._codes[place] == codes, self._counts[place], 0)
        context = np.maximum(self._context[previous], 1e-9)
        known = np.maximum(seen - self._discount, 0.0) / context
        backoff = np.where(self._context[previous] > 0, self._discount * self._followers[previous] / context, 1.0)
        return known + backoff * self._continuation[following]
