"""A table from a run of characters to its ids, so that a text is encoded at the speed of a dictionary.

The words of real text repeat: after some pages nearly every run has been seen, and encoding is one regular expression,
one look-up a run, and a gather in NumPy. The table is exact (an entry is what the tokenizer itself says) and bounded
(once full it starts again).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

LIMIT = 1 << 18  # distinct runs held
LONGEST = 64  # characters of a run worth holding


class RunTable(dict[str, int]):
    """run -> row; the ids of row r are `flat[starts[r] : starts[r] + lengths[r]]`."""

    def __init__(self, analyse: Callable[[str], tuple[Sequence[int], int]], limit: int = LIMIT):
        """Args:
        analyse: run -> (its ids, how many of its words are over the limit).
        limit: entries held before the table starts again.
        """
        super().__init__()
        self.analyse, self.limit, self.long_words = analyse, limit, 0
        self.restart()

    def restart(self) -> None:
        """Forget everything; rows handed out before are no longer valid."""
        self.clear()
        self.rows = self.used = 0
        self.starts = np.zeros(1 << 12, np.int64)
        self.lengths = np.zeros(1 << 12, np.int64)
        self.flat = np.zeros(1 << 14, np.int32)

    def __missing__(self, run: str) -> int:
        ids, too_long = self.analyse(run)
        self.long_words += too_long
        row = self._add(ids)
        if len(run) <= LONGEST and not too_long:
            self[run] = row
        return row

    def _add(self, ids: Sequence[int]) -> int:
        row, stop = self.rows, self.used + len(ids)
        if row == len(self.starts):
            self.starts = np.concatenate([self.starts, np.zeros_like(self.starts)])
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
        while stop > len(self.flat):
            self.flat = np.concatenate([self.flat, np.zeros_like(self.flat)])
        self.starts[row], self.lengths[row] = self.used, len(ids)
        self.flat[self.used : stop] = ids
        self.rows, self.used = row + 1, stop
        return row

    def look_up(
        self, runs: Sequence[str]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " runs"], Int[np.ndarray, " runs"]]:
        """The ids of all runs in a row, the number of ids of each run, and its row."""
        if self.rows > self.limit:
            self.restart()
        rows = np.fromiter(map(self.__getitem__, runs), np.int64, len(runs))
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        if total == len(rows) and (not total or lengths.min() == 1):
            return self.flat[self.starts[rows]], lengths, rows
        shift = self.starts[rows] - (ends - lengths)
        return self.flat[np.repeat(shift, lengths) + np.arange(total)], lengths, rows
