"""Sums by key over more keys than fit in memory: sorted runs on disk, merged by ranges of the key.

A key is one column of numbers or several, the first foremost. What is held at once is one run, or the part of all runs
that lies in one range.

Reference: Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation", section 3, sorts so.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Shaped

_SAMPLED = 64  # entries of each range that say where the ranges are cut

Columns = list[np.ndarray]


class SortedRuns:
    """Runs of sorted keys and their sums in a folder.

    Args:
      folder: an existing folder; files `run-*.npy` in it are the runs'.
      entries: about how many are merged at once.
    """

    def __init__(self, folder: pathlib.Path, entries: int):
        self.folder, self.entries = folder, entries
        self._runs: list[list[pathlib.Path]] = []

    def add(self, columns: Sequence[np.ndarray], values: Shaped[np.ndarray, " N"]) -> None:
        """Write one more run; its keys may be in any order and repeat."""
        keys, sums = add_up(columns, values)
        paths = [self.folder / f"run-{len(self._runs):05d}-{part}.npy" for part in range(len(keys) + 1)]
        for path, array in zip(paths, (*keys, sums)):
            np.save(path, array)
        self._runs.append(paths)

    def merged(self) -> Iterator[tuple[Columns, np.ndarray]]:
        """Every key once, in order, with the sum of what all runs have for it; in parts."""
        runs = [[np.load(path, mmap_mode="r") for path in paths] for paths in self._runs]
        splits = self._splits([run[0] for run in runs])
        cuts = [[0, *np.searchsorted(run[0], splits).tolist(), len(run[0])] for run in runs]
        for place in range(len(splits) + 1 if runs else 0):
            spans = [slice(cut[place], cut[place + 1]) for cut in cuts]
            parts = [np.concatenate([leaf[span] for leaf, span in zip(leaves, spans)]) for leaves in zip(*runs)]
            if len(parts[-1]):
                yield add_up(parts[:-1], parts[-1])

    def remove(self) -> None:
        """Delete the files."""
        for path in (path for paths in self._runs for path in paths):
            path.unlink()
        self._runs = []

    def _splits(self, firsts: Sequence[np.ndarray]) -> Shaped[np.ndarray, " _"]:
        """Values of the first column that cut all runs into ranges of about `entries` together."""
        total = sum(len(first) for first in firsts)
        ranges = -(-total // self.entries)
        if ranges < 2:
            return np.zeros(0, firsts[0].dtype if firsts else np.int64)
        step = max(1, total // (_SAMPLED * ranges))
        sample = np.sort(np.concatenate([first[::step] for first in firsts]))
        return np.unique(sample[[len(sample) * number // ranges for number in range(1, ranges)]])


def add_up(columns: Sequence[np.ndarray], values: Shaped[np.ndarray, " N"]) -> tuple[Columns, np.ndarray]:
    """Keys in order, each once, with the sum of the values it had."""
    order = np.argsort(columns[0], kind="stable") if len(columns) == 1 else np.lexsort(columns[::-1])
    keys = [column[order] for column in columns]
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in keys:
        new[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(new)
    sums = np.add.reduceat(values[order], starts) if len(starts) else values[:0]
    return [column[starts] for column in keys], sums
