"""n-grams as a trie in flat arrays: a node is a word behind a node of the order below, found by bisection."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Integer

NONE = -1  # no such node


class Trie:
    """Nodes of orders 1 to n. Order 1 is the whole vocabulary, a node's number being the word's id.

    Attributes:
      keys: for each order above 1, int64 [M] rising: (node of the words before the last) * vocab_size + last word.
    """

    def __init__(self, vocab_size: int, keys: list[Int[np.ndarray, " _"]]):
        self.vocab_size, self.keys = vocab_size, keys

    @property
    def order(self) -> int:
        """The highest order."""
        return len(self.keys) + 1

    @property
    def sizes(self) -> list[int]:
        """Nodes of each order."""
        return [self.vocab_size, *map(len, self.keys)]

    def child(
        self, order: int, parents: Integer[np.ndarray, " q"], words: Integer[np.ndarray, " q"]
    ) -> Int[np.ndarray, " q"]:
        """The nodes of an order (2 or more) that hold `words` behind nodes of the order below; -1: none."""
        keys = self.keys[order - 2]
        wanted = parents.astype(np.int64) * self.vocab_size + words
        if not len(keys):
            return np.full(len(wanted), NONE)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((parents >= 0) & (keys[at] == wanted), at, NONE)

    def find(self, words: Integer[np.ndarray, "q k"]) -> Int[np.ndarray, " q"]:
        """The nodes of n-grams of one length; -1 where there is none."""
        nodes = words[:, 0].astype(np.int64)
        for place in range(1, words.shape[1]):
            nodes = self.child(place + 1, nodes, words[:, place])
        return nodes

    def parent(self, order: int) -> Int[np.ndarray, " M"]:
        """The node of the order below, of every node of an order."""
        return self.keys[order - 2] // self.vocab_size

    def word(self, order: int) -> Int[np.ndarray, " M"]:
        """The last word of every node of an order."""
        return self.keys[order - 2] % self.vocab_size if order > 1 else np.arange(self.vocab_size)

    def suffixes(self) -> list[Int[np.ndarray, " _"]]:
        """For each order above 1, the node of the same words without the first; -1 where there is none."""
        found: list[np.ndarray] = []
        for order in range(2, self.order + 1):
            if order == 2:
                found.append(self.word(2))
            else:
                found.append(self.child(order - 1, found[-1][self.parent(order)], self.word(order)))
        return found

    def words(self, order: int) -> Int[np.ndarray, "M k"]:
        """Every n-gram of an order, word by word."""
        nodes, columns = np.arange(self.sizes[order - 1]), []
        for k in range(order, 1, -1):
            columns.append(self.word(k)[nodes])
            nodes = self.parent(k)[nodes]
        return np.stack([nodes, *columns[::-1]], axis=1)


def build(vocab_size: int, grams: list[Integer[np.ndarray, "_ _"]]) -> tuple[Trie, list[Int[np.ndarray, " _"]]]:
    """A trie of the n-grams of orders 2 and up.

    Returns:
      the trie, and for each order which of the given n-grams each node is.

    Raises:
      ValueError: an n-gram whose first words are not among the n-grams of the order below, or one that is given twice.
    """
    trie, places = Trie(vocab_size, []), []
    for words in grams:
        parents = trie.find(words[:, :-1])
        keys = parents * vocab_size + words[:, -1]
        place = np.argsort(keys, kind="stable")
        keys = keys[place]
        if len(keys) and (parents.min() < 0 or (keys[1:] == keys[:-1]).any()):
            raise ValueError(f"{words.shape[1]}-grams without their first words, or twice")
        trie.keys.append(keys)
        places.append(place)
    return trie, places
