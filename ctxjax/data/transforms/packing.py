"""Which examples share a row, so that little of a batch is padding: best fit, longest first.

Johnson et al. 1974, "Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms", within windows of
shuffled examples, so that memory is bounded and rows of one window are strangers to those of another; Krell et al.
2021, "Efficient Sequence Packing without Cross-contamination", pack BERT's examples by their lengths too.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from ctxjax.data import draws
from ctxjax.data.arrays import ArrayWriter


def best_fit(lengths: Int[np.ndarray, " N"], length: int, most: int) -> list[list[int]]:
    """Put examples into rows of `length` places, `most` examples a row at the most.

    The longest example that is left goes into the row in which the least is free after it, the last such row begun;
    where it fits nowhere it begins a row. Which rows have how much room is a bit set, so a step costs no search.

    Returns:
      The numbers of the examples of each row, in the order in which they came.
    """
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # numbers of rows by what is free in them
    free = 0  # bit n is set where a row has n places free
    for example in np.argsort(-lengths, kind="stable").tolist():
        size = int(lengths[example])
        if fitting := free >> size:
            room = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                free ^= 1 << room
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(example)
        if len(rows[row]) < most:
            open_rows[room - size].append(row)
            free |= 1 << (room - size)
    return rows


def pack(
    lengths: Int[np.ndarray, " N"], length: int, most: int, window: int, key: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " rows"]]]:
    """`best_fit` of so many shuffled examples after the other.

    Args:
      lengths: of all examples. window: examples that are packed together. key: of the shuffle.

    Yields:
      The numbers of the examples, row by row, and how many are in each row.
    """
    for first in range(0, len(lengths), window):
        places = np.arange(first, min(first + window, len(lengths)))
        numbers = draws.permute(key, places, len(lengths))
        rows = best_fit(lengths[numbers], length, most)
        yield numbers[np.concatenate(rows)], np.array([len(row) for row in rows])


def write_rows(
    folder: pathlib.Path, lengths: Int[np.ndarray, " N"], *, length: int, most: int, window: int, key: int
) -> None:
    """Build `order.npy` (examples, row by row) and `starts.npy` (the first of each row, and the end) in `folder`."""
    order, starts = ArrayWriter(folder / "order.npy", "<u4"), ArrayWriter(folder / "starts.npy", "<i8")
    done = 0
    try:
        starts.append(np.zeros(1, np.int64))
        for numbers, counts in pack(lengths, length, most, window, key):
            order.append(numbers)
            starts.append(done + np.cumsum(counts))
            done += len(numbers)
        order.close()
        starts.close()
    except BaseException:
        order.discard()
        starts.discard()
        raise
