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
    corpus: Corpus,
    stream: Stream,
    start: int,
    inputs: Int[np.ndarray, " T"],
    targets: Int[np.ndarray, " T"],
    bos: int,
    eos: int,
    backward: bool,
) -> list[tuple[int, str]]:
    """Fill `inputs` and `targets` with the pairs start, ..., start + T - 1 of a stream.

    Args:
      corpus: where the sentences are.
      stream: their order.
      start: number of the first pair.
      inputs, targets: written.
      bos, eos: ids of `<S>` and `</S>`.
      backward: whether sentences are read from their end.

    Returns:
      (position, surface form) of the input words that are not in the vocabulary, where the corpus keeps those.
    """
    unknown: list[tuple[int, str]] = []
    place = int(stream.starts.searchsorted(start, "right")) - 1
    skip, filled = start - int(stream.starts[place]), 0
    first, last = (eos, bos) if backward else (bos, eos)
    while filled < len(inputs):
        number = int(stream.order[place])
        words, surfaces = corpus.read(number, number + 1)
        if backward:
            words, surfaces = words[::-1], surfaces[::-1]
        count = min(len(inputs) - filled, len(words) + 1 - skip)
        told = targets[filled : filled + count]
        told[: len(words) - skip] = words[skip : skip + count]
        if skip + count > len(words):
            told[-1] = last
        inputs[filled] = words[skip - 1] if skip else first
        inputs[filled + 1 : filled + count] = told[:-1]
        if surfaces:
            positions = np.flatnonzero(words == corpus.tokenizer.unk_id) + 1 - skip
            unknown += [(filled + at, word) for at, word in zip(positions.tolist(), surfaces) if 0 <= at < count]
        filled, skip, place = filled + count, 0, place + 1
    return unknown


def write_characters(folder: pathlib.Path, pieces: list[str], max_chars: int) -> None:
    """Build `characters.npy`, the character ids of every word of the vocabulary, `[V, C]` as int16."""
    from ctxjax.text import characters

    rows = ArrayWriter(folder / "characters.npy", "<i2")
    for base in range(0, len(pieces), _BLOCK // 16):
        table = characters.table(pieces[base : base + _BLOCK // 16], max_chars)
        rows.append(table.astype(np.int16).ravel())
    rows.close()
