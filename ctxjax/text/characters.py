"""Words as characters, the way ELMo reads them: UTF-8 bytes with marks for the beginning and end of a word.

Two conventions exist. *Training* numbers bytes 0-255, then the five special characters below, 261 in all. *Use* adds
one to every id so that 0 can mean "no word here", 262 in all; `shift` goes from the first to the second.

Reference: Peters et al. 2018, section 3.4; Jozefowicz et al. 2016, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

BEGIN_SENTENCE = 256
END_SENTENCE = 257
BEGIN_WORD = 258
END_WORD = 259
PAD = 260
NUM_CHARS = 261  # in training; one more in use
MAX_CHARS = 50
BOS, EOS = "<S>", "</S>"


def word_chars(word: str, max_chars: int = MAX_CHARS) -> Int[np.ndarray, " C"]:
    """Character ids of one word, int32 [max_chars] in the training convention."""
    return table([word], max_chars)[0]


def table(words: Sequence[str], max_chars: int = MAX_CHARS) -> Int[np.ndarray, "words C"]:
    """Character ids of words, int32 [words, max_chars] in the training convention.

    A word longer than `max_chars - 2` bytes keeps its first ones. `"<S>"` and `"</S>"` are the sentence marks.
    """
    keep = max_chars - 2
    encoded = [word.encode("utf-8", "ignore")[:keep] for word in words]
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    chars = np.full((len(words), max_chars), PAD, np.int32)
    chars[:, 0] = BEGIN_WORD
    flat = np.frombuffer(b"".join(encoded), np.uint8)
    rows = np.repeat(np.arange(len(words)), sizes)
    columns = np.arange(len(flat)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    chars[rows, columns] = flat
    chars[np.arange(len(words)), sizes + 1] = END_WORD
    for row, word in enumerate(words):
        if word in (BOS, EOS):
            mark = BEGIN_SENTENCE if word == BOS else END_SENTENCE
            chars[row] = PAD
            chars[row, :3] = BEGIN_WORD, mark, END_WORD
    return chars


def shift(
    chars: Int[np.ndarray, "*rows C"], mask: Bool[np.ndarray, "*rows"] | None = None
) -> Int[np.ndarray, "*rows C"]:
    """From the training to the use convention: every id plus one, and 0 throughout where `mask` is False."""
    moved = chars + 1
    return moved if mask is None else np.where(mask[..., None], moved, 0)
