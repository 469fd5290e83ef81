"""Answers as spans of pieces: words between blanks, windows over a long context, the window that sees most of a piece.

Reference: Devlin et al. 2019, section 4.2; google-research/bert run_squad.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

BLANKS = " \t\r\n\u202f"  # the narrow no-break space stands in SQuAD's contexts, other blanks of Unicode are letters


class Words(NamedTuple):
    """The words of a context, and for each of its characters the last word that has begun (-1 before the first)."""

    words: list[str]
    of_char: Int[np.ndarray, " C"]


def split_words(context: str) -> Words:
    """Words between the published blanks."""
    there = np.array([char not in BLANKS for char in context], bool)
    begins = there & ~np.concatenate([[False], there[:-1]])
    words = context.translate(dict.fromkeys(map(ord, BLANKS), " ")).split(" ")
    return Words([word for word in words if word], np.cumsum(begins) - 1)


def words_of_answer(words: Words, text: str, start: int) -> tuple[int, int] | None:
    """First and last word of an answer; None where its text is not found in them, which training passes over."""
    if not (text and 0 <= start and start + len(text) <= len(words.of_char)):
        return None
    first, last = int(words.of_char[start]), int(words.of_char[start + len(text) - 1])
    if first < 0 or " ".join(text.split()) not in " ".join(words.words[first : last + 1]):
        return None
    return first, last


def improved(pieces: Int[np.ndarray, " n"], first: int, last: int, answer: Int[np.ndarray, " m"]) -> tuple[int, int]:
    """The first span within `first`..`last` that is the answer piece by piece; else these two.

    Answers are characters, words are coarser: of "(1895-1943)." the answer may be "1895" alone.
    """
    size = len(answer)
    for start in range(first, last + 2 - size if size else first):
        if np.array_equal(pieces[start : start + size], answer):
            return start, start + size - 1
    return first, last


def windows(count: int, room: int, stride: int) -> Int[np.ndarray, "W 2"]:
    """First piece and number of pieces of each window over `count` pieces, of which one row has room for `room`."""
    found, first = [], 0
    while first < count:
        size = min(count - first, room)
        found.append((first, size))
        if first + size == count:
            break
        first += min(size, stride)
    return np.array(found, np.int64).reshape(-1, 2)


def most_context(places: Int[np.ndarray, "W 2"], count: int) -> Int[np.ndarray, " count"]:
    """The window of each piece that sees most around it: the smaller of the pieces to its left and right in the window,
    and a hundredth of the window's size; of equal ones the first."""
    piece = np.arange(count)[None, :]
    first, size = places[:, :1], places[:, 1:]
    last = first + size - 1
    score = np.minimum(piece - first, last - piece) + 0.01 * size
    return np.where((piece >= first) & (piece <= last), score, -1.0).argmax(axis=0)
