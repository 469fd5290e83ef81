"""BERT's sentence pairs: which spans of which documents are put together, and which pairs are random.

The published algorithm (google-research/bert, create_pretraining_data.py) with each of its quirks:

* a target length is drawn once per document and pass: the whole budget, or with `short_seq_prob` a length between 2 and
  the budget, which then holds for every chunk of that document;
* sentences are collected until the target is reached or the document ends, and the chunk is cut at a random sentence;
* the second half is replaced by sentences of another document with probability 0.5, and always where the chunk has one
  sentence only, so more than half of the labels are "random"; ten draws are made to avoid the same document, and the
  last is taken even if it is the same one, labelled random all the same; the sentences that were not used are put back;
* what is too long loses tokens from the longer side, each from its front or its back by the flip of a coin.

Every draw is a function of (seed, pass, first sentence of the chunk). So what a chunk would be, and where the next one
would start, is computed for *all* sentences at once with NumPy, and the chunks that occur are found by following the
next starts from sentence 0: one list lookup a chunk, and no other sequential work.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ctxjax.data import draws
from ctxjax.data.arrays import ArrayWriter

BLOCK = 1 << 19  # sentences computed at a time
TRIES = 10
FIELDS = {"a_start": "<i8", "b_start": "<i8", "a_len": "<u2", "b_len": "<u2", "is_random": "<u1"}


class Keys(NamedTuple):
    """One key a purpose; `document` is folded with the number of the try."""

    short: int
    length: int
    cut: int
    label: int
    document: int
    sentence: int
    front_a: int
    front_b: int

    @classmethod
    def make(cls, seed: int, pass_number: int) -> Keys:
        return cls(*(draws.key("pairs", name, seed, pass_number) for name in cls._fields))


class Layout(NamedTuple):
    """The shape of a split: cumulative tokens by sentence, and cumulative sentences by document."""

    tokens: Int[np.ndarray, " sentences_and_1"]
    sentences: Int[np.ndarray, " documents_and_1"]


def targets(layout: Layout, keys: Keys, budget: int, short_seq_prob: float) -> Int[np.ndarray, " documents"]:
    """The length that the chunks of each document aim at, drawn once for the whole document."""
    documents = np.arange(len(layout.sentences) - 1)
    short = draws.unit(keys.short, documents) < short_seq_prob
    return np.where(short, 2 + draws.below(keys.length, documents, budget - 1), budget)


class Chunks(NamedTuple):
    """The chunk that starts at each of some sentences; sentence numbers, ends exclusive."""

    document: Int[np.ndarray, " N"]
    target: Int[np.ndarray, " N"]
    first: Int[np.ndarray, " N"]
    cut: Int[np.ndarray, " N"]
    end: Int[np.ndarray, " N"]
    is_random: Int[np.ndarray, " N"]
    next: Int[np.ndarray, " N"]


def chunks(
    layout: Layout,
    keys: Keys,
    target: Int[np.ndarray, " documents"],
    first: Int[np.ndarray, " N"],
    next_sentence: bool,
) -> Chunks:
    """What a chunk that starts at `first` is, and where the one after it starts."""
    document = np.searchsorted(layout.sentences, first, "right") - 1
    wanted = target[document]
    end = np.searchsorted(layout.tokens, layout.tokens[first] + wanted, "left")
    end = np.minimum(end, layout.sentences[document + 1])
    if not next_sentence:
        return Chunks(document, wanted, first, end, end, np.zeros_like(first), end)
    count = end - first
    cut = first + np.where(count > 1, 1 + draws.below(keys.cut, first, count - 1), 1)
    is_random = (count == 1) | (draws.unit(keys.label, first) < 0.5)
    return Chunks(document, wanted, first, cut, end, is_random.astype(np.int64), np.where(is_random, cut, end))


def random_spans(layout: Layout, keys: Keys, found: Chunks) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """For every chunk, the sentences (first, end) of another document that would be its random second half."""
    documents = len(layout.sentences) - 1
    other = np.empty_like(found.document)
    pending = np.arange(len(other))
    for attempt in range(TRIES):
        other[pending] = draws.below(draws.fold(keys.document, attempt), found.first[pending], documents)
        pending = pending[other[pending] == found.document[pending]]
        if not len(pending):
            break
    low, high = layout.sentences[other], layout.sentences[other + 1]
    first = low + draws.below(keys.sentence, found.first, high - low)
    wanted = found.target - (layout.tokens[found.cut] - layout.tokens[found.first])
    end = np.searchsorted(layout.tokens, layout.tokens[first] + wanted, "left")
    return first, np.clip(end, first + 1, high)


def truncate(
    a: Int[np.ndarray, " N"], b: Int[np.ndarray, " N"], budget: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """How many tokens each side loses when the longer side (the second, if equal) loses one until both fit."""
    excess = np.maximum(a + b - budget, 0)
    cut_a = np.minimum(excess, np.maximum(a - b, 0))
    cut_b = np.minimum(excess, np.maximum(b - a, 0))
    rest = excess - cut_a - cut_b  # both sides are equally long now, and take turns, the second side first
    return cut_a + rest // 2, cut_b + (rest + 1) // 2


def make_pairs(
    layout: Layout, keys: Keys, budget: int, short_seq_prob: float, next_sentence: bool, block: int = BLOCK
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The pairs of one pass, in the order of the documents.

    Args:
      layout: the split.
      keys: one key a purpose, of this seed and pass.
      budget: tokens of both halves together at most (the row length less the special pieces).
      short_seq_prob: how often a document aims at a shorter length.
      next_sentence: False makes single spans of consecutive sentences, and no second half.
      block: sentences computed at a time; changes nothing but memory.

    Yields:
      Sentences done so far, and arrays by the names of `FIELDS`: spans as first token and length.
    """
    target = targets(layout, keys, budget, short_seq_prob)
    total, start = len(layout.tokens) - 1, 0
    for base in range(0, total, block):
        stop = min(base + block, total)
        following = chunks(layout, keys, target, np.arange(base, stop), next_sentence).next.tolist()
        starts = []
        while start < stop:
            starts.append(start)
            start = following[start - base]
        found = chunks(layout, keys, target, np.array(starts, np.int64), next_sentence)
        yield stop, _spans(layout, keys, found, budget, next_sentence)


def _spans(layout: Layout, keys: Keys, found: Chunks, budget: int, next_sentence: bool) -> dict[str, np.ndarray]:
    tokens = layout.tokens
    a_start, a_end = tokens[found.first], tokens[found.cut]
    b_start, b_end = tokens[found.cut], tokens[found.end]
    if next_sentence:
        first, end = random_spans(layout, keys, found)
        b_start = np.where(found.is_random, tokens[first], b_start)
        b_end = np.where(found.is_random, tokens[end], b_end)
    cut_a, cut_b = truncate(a_end - a_start, b_end - b_start, budget)
    return {
        "a_start": a_start + draws.coins(keys.front_a, found.first, cut_a),
        "b_start": b_start + draws.coins(keys.front_b, found.first, cut_b),
        "a_len": a_end - a_start - cut_a,
        "b_len": b_end - b_start - cut_b,
        "is_random": found.is_random,
    }


def write_pairs(
    folder: pathlib.Path, layout: Layout, *, seed: int, pass_number: int, budget: int, short_seq_prob: float,
    next_sentence: bool,
) -> None:  # fmt: skip
    """Build the index of one pass in `folder`; a bar appears when it takes more than a few seconds."""
    import tqdm

    keys = Keys.make(seed, pass_number)
    writers = {name: ArrayWriter(folder / f"{name}.npy", dtype) for name, dtype in FIELDS.items()}
    total = len(layout.tokens) - 1
    try:
        with tqdm.tqdm(total=total, desc=f"pairs, pass {pass_number}", unit=" sentences", delay=3, disable=None) as bar:
            for done, fields in make_pairs(layout, keys, budget, short_seq_prob, next_sentence):
                for name, values in fields.items():
                    writers[name].append(values)
                bar.update(done - bar.n)
        for writer in writers.values():
            writer.close()
    except BaseException:
        for writer in writers.values():
            writer.discard()
        raise
