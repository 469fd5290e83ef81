"""Counts of all n-grams of a text in one pass and bounded memory: sorted runs go to disk and are merged by key range.

Only n-grams of the highest order are counted; a sentence start gives shorter ones, filled up with "nothing". They are
sorted by their last word first, so the n-grams that end alike stand together, and all lower orders, their continuation
counts too, are read off in one sweep.

Reference: Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation", sections 2 and 3, whose
streaming sort this follows.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ctxjax.data.sorted_runs import Columns, SortedRuns

ROWS_IN_MEMORY = 1 << 22  # n-grams of a run, and of a merged range


class Grams(NamedTuple):
    """Distinct n-grams of one order.

    Attributes:
      words: int32 [M, k], in reading order.
      count: int64 [M], how often each occurs.
      extensions: int64 [M], how many different words stand before it; its count where it begins with the sentence mark,
        before which nothing stands, and in the highest order, where this is not known. Kneser-Ney smooths with these.
    """

    words: Int[np.ndarray, "M k"]
    count: Int[np.ndarray, " M"]
    extensions: Int[np.ndarray, " M"]


def events(
    tokens: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " s"], order: int, bos: int, eos: int
) -> Int[np.ndarray, "e k"]:
    """Every word of some sentences, and the end of each, with the words before it.

    Returns:
      [n + s, order] of id + 1, the word itself in column 0, the one before it in column 1; 0 before the sentence mark.
    """
    starts = np.concatenate([[0], np.cumsum(lengths + 2)])[:-1]
    stream = np.empty(len(tokens) + 2 * len(lengths), np.int64)
    inner = np.ones(len(stream), bool)
    inner[starts] = inner[starts + lengths + 1] = False
    stream[starts], stream[starts + lengths + 1], stream[inner] = bos, eos, tokens
    place = np.arange(len(stream)) - np.repeat(starts, lengths + 2)
    rows = np.zeros((len(stream), order), np.int64)
    for back in range(min(order, len(stream))):
        there = place >= back
        rows[there, back] = stream[np.flatnonzero(there) - back] + 1
    return rows[place > 0]


class Counter:
    """Counts n-grams of one order.

    Args:
      order: words of an n-gram.
      vocab_size: ids are below it.
      bos, eos: ids of the marks round a sentence; the first is never predicted.
      folder: an empty folder for what does not fit in memory.
      rows: n-grams held at once.
    """

    def __init__(
        self, order: int, vocab_size: int, bos: int, eos: int, folder: pathlib.Path, rows: int = ROWS_IN_MEMORY
    ):
        self.order, self.vocab_size, self.bos, self.eos = order, vocab_size, bos, eos
        self.rows = rows
        self.bits = vocab_size.bit_length()
        self.per_column = 64 // self.bits
        self._pending: list[np.ndarray] = []
        self._runs = SortedRuns(folder, rows)
        self._held = 0
        self.events = 0

    def add(self, tokens: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " s"]) -> None:
        """Count some whole sentences."""
        rows = events(tokens, lengths, self.order, self.bos, self.eos)
        self._pending.append(rows)
        self._held += len(rows)
        self.events += len(rows)
        if self._held >= self.rows:
            self._spill()

    def _pack(self, rows: np.ndarray) -> Columns:
        """uint64 [M] each: the words of an n-gram, the last one foremost."""
        packed = []
        for first in range(0, self.order, self.per_column):
            part = rows[:, first : first + self.per_column]
            column = np.zeros(len(rows), np.uint64)
            for word in range(self.per_column):
                column <<= np.uint64(self.bits)
                if word < part.shape[1]:
                    column |= part[:, word].astype(np.uint64)
            packed.append(column)
        return packed

    def _spill(self) -> None:
        rows = np.concatenate(self._pending)
        self._pending, self._held = [], 0
        self._runs.add(self._pack(rows), np.ones(len(rows), np.int64))

    def finish(self) -> Iterator[tuple[Int[np.ndarray, "_ _"], Int[np.ndarray, " _"]]]:
        """Distinct rows as `events` gives them, sorted by their columns, with their counts; in parts."""
        if self._pending:
            self._spill()
        for columns, counts in self._runs.merged():
            yield self._unpack(columns), counts

    def _unpack(self, columns: Columns) -> np.ndarray:
        rows = np.empty((len(columns[0]), self.order), np.int32)
        mask = np.uint64((1 << self.bits) - 1)
        for back in range(self.order):
            column, within = columns[back // self.per_column], back % self.per_column
            rows[:, back] = (column >> np.uint64(self.bits * (self.per_column - 1 - within))) & mask
        return rows


def all_orders(parts: Iterable[tuple[np.ndarray, np.ndarray]], order: int, bos: int) -> list[Grams]:
    """The n-grams of orders 1 to `order` from the sorted rows of the highest."""
    read = list(parts)
    rows = np.concatenate([part for part, _ in read]) if read else np.zeros((0, order), np.int32)
    count = np.concatenate([part for _, part in read]) if read else np.zeros(0, np.int64)
    del read
    changed = np.zeros(len(rows), bool)
    changed[:1] = True
    firsts = []  # of each order: where the last k words differ from those of the row before
    for back in range(order):
        changed = changed.copy()
        changed[1:] |= rows[1:, back] != rows[:-1, back]
        firsts.append(changed)
    found = []
    for k in range(1, order + 1):
        whole = rows[:, k - 1] > 0  # a row shorter than k words holds no n-gram of order k
        starts = np.flatnonzero(firsts[k - 1])
        total = np.add.reduceat(np.where(whole, count, 0), starts) if len(starts) else count[:0]
        if k < order:
            different = np.add.reduceat((firsts[k] & (rows[:, k] > 0)).astype(np.int64), starts)
        else:
            different = total
        kept = whole[starts]
        words = rows[starts[kept], :k][:, ::-1] - 1
        begins = words[:, 0] == bos
        found.append(Grams(words, total[kept], np.where(begins, total[kept], different[kept])))
    return found
