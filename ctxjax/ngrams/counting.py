"""Counts of all n-grams of a text in one pass and bounded memory: sorted runs go to disk and are merged by key range.

Only n-grams of the highest order are counted; a sentence start gives shorter ones, filled up with "nothing". They are
sorted by their last word first, so the n-grams that end alike stand together, and all lower orders, their continuation
counts too, are read off in one sweep.

Reference: Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation", sections 2 and 3, whose
streaming sort this follows.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

ROWS_IN_MEMORY = 1 << 22  # n-grams of a run, and of a merged range
Columns = list[np.ndarray]  # uint64 [M] each: the words of an n-gram, the last one foremost


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
        self.folder, self.rows = folder, rows
        self.bits = vocab_size.bit_length()
        self.per_column = 64 // self.bits
        self._pending: list[np.ndarray] = []
        self._held = self._runs = 0
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
        columns, count = _reduce(self._pack(rows), np.ones(len(rows), np.int64))
        for number, column in enumerate(columns):
            np.save(self._path(self._runs, number), column)
        np.save(self._path(self._runs, "count"), count)
        self._runs += 1

    def _path(self, run: int, part: int | str) -> pathlib.Path:
        return self.folder / f"{run:05d}.{part}.npy"

    def finish(self) -> Iterator[tuple[Int[np.ndarray, "_ _"], Int[np.ndarray, " _"]]]:
        """Distinct rows as `events` gives them, sorted by their columns, with their counts; in parts."""
        if self._pending:
            self._spill()
        parts = range(-(-self.order // self.per_column))
        runs = [
            ([np.load(self._path(run, part), mmap_mode="r") for part in parts],
             np.load(self._path(run, "count"), mmap_mode="r"))
            for run in range(self._runs)
        ]  # fmt: skip
        splits = self._splits([columns[0] for columns, _ in runs])
        cuts = [[0, *np.searchsorted(columns[0], splits).tolist(), len(count)] for columns, count in runs]
        for place in range(len(splits) + 1):
            spans = [slice(cut[place], cut[place + 1]) for cut in cuts]
            columns = [
                np.concatenate([columns[part][span] for (columns, _), span in zip(runs, spans)])
                for part in (parts if runs else ())
            ]
            counts = np.concatenate([np.zeros(0, np.int64), *(count[span] for (_, count), span in zip(runs, spans))])
            if len(counts):
                columns, counts = _reduce(columns, counts)
                yield self._unpack(columns), counts

    def _splits(self, firsts: Sequence[np.ndarray]) -> Shaped[np.ndarray, " _"]:
        """Values of the first column that cut all runs into ranges of about `rows` n-grams together."""
        total = sum(len(first) for first in firsts)
        parts = -(-total // self.rows)
        if parts < 2:
            return np.zeros(0, np.uint64)
        step = max(1, total // (64 * parts))
        sample = np.sort(np.concatenate([first[::step] for first in firsts]))
        return np.unique(sample[[len(sample) * part // parts for part in range(1, parts)]])

    def _unpack(self, columns: Columns) -> np.ndarray:
        rows = np.empty((len(columns[0]), self.order), np.int32)
        mask = np.uint64((1 << self.bits) - 1)
        for back in range(self.order):
            column, within = columns[back // self.per_column], back % self.per_column
            rows[:, back] = (column >> np.uint64(self.bits * (self.per_column - 1 - within))) & mask
        return rows


def _reduce(columns: Columns, counts: np.ndarray) -> tuple[Columns, np.ndarray]:
    """Sort by the columns and add the counts of equal rows."""
    order = np.argsort(columns[0], kind="stable") if len(columns) == 1 else np.lexsort(columns[::-1])
    columns = [column[order] for column in columns]
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(new)
    return [column[starts] for column in columns], np.add.reduceat(counts[order], starts)


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
