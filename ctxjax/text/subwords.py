"""Character n-grams of words and n-grams of words, hashed into rows of a table, bit for bit as fastText does it.

Reference: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information"; Joulin et al. 2017, "Bag of Tricks
for Efficient Text Classification"; facebookresearch/fastText src/dictionary.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

END = "</s>"  # stands for the end of a line, and has no character n-grams
WORD_NGRAM_FACTOR = 116049371
_OFFSET, _PRIME, _MASK = 2166136261, 16777619, (1 << 32) - 1


def fnv1a(data: bytes) -> int:
    """32-bit FNV-1a, in which bytes over 127 are signed before they are mixed in."""
    value = _OFFSET
    for byte in data:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _PRIME) & _MASK
    return value


def ngram_hashes(word: str, shortest: int, longest: int) -> list[int]:
    """Hashes of the n-grams of `<word>`, n in characters, in the order of the original; a single `<` or `>` is none."""
    if word == END or longest < 1:
        return []
    chars = [char.encode("utf-8", "surrogateescape") for char in f"<{word}>"]
    found = []
    for start in range(len(chars)):
        value = _OFFSET
        for size, char in enumerate(chars[start : start + longest], 1):
            for byte in char:
                value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _PRIME) & _MASK
            if size >= shortest and not (size == 1 and start in (0, len(chars) - 1)):
                found.append(value)
    return found


def word_ngram_hashes(words: Sequence[str], longest: int) -> list[int]:
    """64-bit hashes of the n-grams of 2 to `longest` words; a word's own hash counts as a signed number."""
    hashes = [fnv1a(word.encode("utf-8", "surrogateescape")) for word in words]
    hashes = [value - (1 << 32) if value >> 31 else value for value in hashes]
    found = []
    for start, value in enumerate(hashes):
        for other in hashes[start + 1 : start + longest]:
            value = (value * WORD_NGRAM_FACTOR + other) & ((1 << 64) - 1)
            found.append(value)
    return found


def text_rows(tokenizer: Any, text: str | Sequence[str], config: Mapping[str, Any]) -> np.ndarray:
    """The rows that a text is the mean of, for a classifier: words, END at the end, their n-grams, n-grams of words.

    Args:
      tokenizer: of words.
      text: cut at blanks as the original does, or a list of words.
      config: of the model: buckets, shortest, longest, word_ngrams.
    """
    words = [*(text.split() if isinstance(text, str) else text), END]
    words = [word.lower() for word in words] if tokenizer.lowercase else words
    buckets, first = config.get("buckets", 0), len(tokenizer)
    rows = []
    for word in words:
        own = tokenizer.id_of(word)
        rows += [] if own == tokenizer.unk_id else [own]
        if buckets and config.get("longest", 6):
            hashes = ngram_hashes(word, config.get("shortest", 3), config.get("longest", 6))
            rows += [first + value % buckets for value in hashes]
    if buckets:
        rows += [first + value % buckets for value in word_ngram_hashes(words, config.get("word_ngrams", 1))]
    return np.array(rows, np.int32)


class Rows(NamedTuple):
    """What a text is read as: one row of the table a piece; `words` is the word of each."""

    ids: np.ndarray
    pieces: list[str]
    words: np.ndarray
    offsets: np.ndarray


class SubWords:
    """A word tokenizer whose pieces are a word's own row and the rows of its character n-grams.

    Row r of the table is word r of the vocabulary, or, from `len(tokenizer)` on, a bucket of n-grams.
    """

    def __init__(self, tokenizer: Any, shortest: int, longest: int, buckets: int):
        self.tokenizer, self.shortest, self.longest, self.buckets = tokenizer, shortest, longest, buckets

    def rows_of(self, word: str) -> list[int]:
        """The row of a word of the vocabulary and its n-grams'; the row of <UNK> for what has neither."""
        word = word.lower() if self.tokenizer.lowercase else word
        own = self.tokenizer.id_of(word)
        rows = [] if own == self.tokenizer.unk_id else [own]
        if self.buckets:
            hashes = ngram_hashes(word, self.shortest, self.longest)
            rows += [len(self.tokenizer) + value % self.buckets for value in hashes]
        return rows or [self.tokenizer.unk_id]

    def encode(self, text: str) -> Rows:
        """The rows of the words of a text."""
        spans = self.split_words(text)
        return self._encode([text[start:stop] for start, stop in spans], spans)

    def encode_words(self, words: Sequence[str]) -> Rows:
        """The rows of words as they are given."""
        return self._encode(words, [(0, len(word)) for word in words])

    def split_words(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every word."""
        return self.tokenizer.split_words(text)

    def _encode(self, words: Sequence[str], spans: Sequence[tuple[int, int]]) -> Rows:
        rows = [self.rows_of(word) for word in words]
        owners = np.repeat(np.arange(len(rows)), [len(one) for one in rows]) if rows else np.zeros(0, np.int64)
        ids = np.array([row for one in rows for row in one], np.int32)
        offsets = np.array(spans, np.int32).reshape(-1, 2)[owners]
        return Rows(ids, [words[owner] for owner in owners.tolist()], owners, offsets)
