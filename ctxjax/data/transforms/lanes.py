"""Language-model streams: sentences in a keyed order, cut into lanes whose windows follow one another.

A sentence of n words gives n + 1 (input, target) pairs, since it is read from `<S>` to `</S>` (backward: from `</S>` to
`<S>`). The sentences of one direction, in the order of a permutation drawn for (seed, pass, direction), make one stream
of pairs. A stream is cut into B lanes of equal length L, and lane b at step s holds the T pairs from b L + s T on: no
padding, and a model's state carries on from window to window. A pair is found by binary search in cumulative lengths.

Reference: Peters et al. 2018; allenai/bilm-tf, data.py, where the two directions are shuffled independently too.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from ctxjax.data import draws
from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus import Corpus

_BLOCK = 1 << 20


class Stream(NamedTuple):
    """One direction of one pass.

    Attributes:
      order: the sentences in the order in which they are read.
      starts: int64 [sentences + 1], the first pair of each of them, then the number of pairs.
    """

    order: Integer[np.ndarray, " sentences"]
    starts: Int[np.ndarray, " sentences_and_1"]


class Window(NamedTuple):
    """T consecutive pairs of a stream.

    Attributes:
      inputs, targets: word ids.
      unknown: (position, surface form) of the input words that are not in the vocabulary.
    """

    inputs: Int[np.ndarray, " T"]
    targets: Int[np.ndarray, " T"]
    unknown: list[tuple[int, str]]


def write_stream(
    folder: pathlib.Path, sentence_tokens: Int[np.ndarray, " sentences_and_1"], *, seed: int, pass_number: int,
    direction: str,
) -> None:  # fmt: skip
    """Build the index of one direction of one pass: `order.npy` and `starts.npy`."""
    count = len(sentence_tokens) - 1
    order = draws.permutation(draws.key("stream", direction, seed, pass_number), count)
    orders = ArrayWriter(folder / "order.npy", "<u4" if count < 2**32 else "<u8")
    starts = ArrayWriter(folder / "starts.npy", "<i8")
    starts.append(np.zeros(1, np.int64))
    total = 0
    for base in range(0, count, _BLOCK):
        block = order[base : base + _BLOCK]
        ends = total + np.cumsum(sentence_tokens[block + 1] - sentence_tokens[block] + 1)
        total = int(ends[-1])
        orders.append(block)
        starts.append(ends)
    orders.close()
    starts.close()


def read_window(
    corpus: Corpus, stream: Stream, start: int, length: int, bos: int, eos: int, unk: int | None, backward: bool
) -> Window:
    """The pairs start, ..., start + length - 1 of a stream.

    Args:
      corpus: where the sentences are.
      stream: their order.
      start: number of the first pair.
      length: number of pairs.
      bos, eos: ids of `<S>` and `</S>`.
      unk: the id whose surface forms are wanted, or None.
      backward: whether sentences are read from their end.
    """
    inputs, targets = np.empty((2, length), np.int32)
    unknown: list[tuple[int, str]] = []
    place = int(np.searchsorted(stream.starts, start, "right")) - 1
    skip, filled = start - int(stream.starts[place]), 0
    first, last = (eos, bos) if backward else (bos, eos)
    while filled < length:
        number = int(stream.order[place])
        words, surfaces = corpus.read(number, number + 1)
        if backward:
            words, surfaces = words[::-1], surfaces[::-1]
        count = min(length - filled, len(words) + 1 - skip)
        read, told = inputs[filled : filled + count], targets[filled : filled + count]
        told[:] = np.append(words, last)[skip : skip + count]
        read[1:] = told[:-1]
        read[0] = words[skip - 1] if skip else first
        if unk is not None and surfaces:
            for at, surface in zip((np.flatnonzero(words == unk) + 1 - skip).tolist(), surfaces):
                if 0 <= at < count:
                    unknown.append((filled + at, surface))
        filled, skip, place = filled + count, 0, place + 1
    return Window(inputs, targets, unknown)


def write_characters(folder: pathlib.Path, pieces: list[str], max_chars: int) -> None:
    """Build `characters.npy`, the character ids of every word of the vocabulary, `[V, C]` as int16."""
    from ctxjax.text import characters

    rows = ArrayWriter(folder / "characters.npy", "<i2")
    for base in range(0, len(pieces), _BLOCK // 16):
        table = characters.table(pieces[base : base + _BLOCK // 16], max_chars)
        rows.append(table.astype(np.int16).ravel())
    rows.close()
