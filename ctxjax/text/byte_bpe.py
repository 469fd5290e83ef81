"""Byte-level BPE as GPT-2 applies it: no text is unknown, and `decode` gives back every character.

A text is its UTF-8 bytes, each shown as one printable character (a blank as "Ġ"). One regular expression cuts it into
pre-tokens: contractions, letters, digits, other signs, white space; a single blank goes with what follows it. Within
each the merge that was learned first is made, until none is left. Hugging Face's `tokenizers` does both. Cuts that
ASCII and white space alone decide are made here, so that a run seen before is one look-up (see `table.py`).

Reference: Radford et al. 2019, section 2.2; the rules are those of the released `encoder.py`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.text.bpe_files import MERGES, merges_text
from ctxjax.text.table import RunTable
from ctxjax.text.tokenizer import Encoding, Sentences, digest_of, make_encoding, save_files

END_OF_TEXT = "<|endoftext|>"
_BLANKS = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # what `\s` is in the published expression
_WORD = re.compile(f"[^{_BLANKS}]++")
# Concatenating the pre-tokens of the runs gives those of the text: white space always ends one, and behind ASCII
# letters, digits or signs an ASCII character of another class does. Anything else is a run up to the next white space.
_ALONE = r"(?![^\x00-\x7f])"
RUNS = re.compile(
    "'(?:[sdmt]|ll|ve|re)"
    rf"| ?[A-Za-z]++{_ALONE}| ?[0-9]++{_ALONE}| ?[\x00-\x08\x0e-\x1f!-/:-@\[-`{{-\x7f]++{_ALONE}"
    rf"| ?[^{_BLANKS}]++"
    rf"|[{_BLANKS}]+(?![^{_BLANKS}])|[{_BLANKS}]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


@functools.cache
def byte_characters() -> dict[int, str]:
    """Byte -> the printable character that shows it, in the order of the published ids."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def pre_tokenizer() -> Any:
    """The published expression, its pre-tokens shown in printable characters."""
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)


def repaired(text: str) -> str:
    """The text with U+FFFD for every lone surrogate, which UTF-8 has no bytes for."""
    return _SURROGATES.sub("\ufffd", text)


class ByteBPE:
    """A byte-level BPE tokenizer. `encode_sentences` keeps a table and wants one thread at a time, the rest is free."""

    kind = "byte_bpe"
    keeps_space = True
    unk_id = -1  # no text is unknown, so no token has it

    def __init__(self, pieces: Sequence[str], merges: Iterable[Sequence[str]], lowercase: bool = False):
        """Args:
          pieces: id -> piece in printable characters.
          merges: pairs of pieces, the first one to be made first.
          lowercase: lower-case texts before they are cut; `decode` then gives the lower-cased text.

        Raises:
          ConfigError: no piece for some byte or for the end of a text, or a merge of what are no pieces.
        """
        self.pieces = list(pieces)
        self.merges = [(left, right) for left, right in merges]
        self.lowercase = bool(lowercase)
        self.ids: dict[str, int] = {piece: i for i, piece in enumerate(self.pieces)}
        self._check()
        self.end_id = self.ids[END_OF_TEXT]
        self._bytes = {ord(char): byte for byte, char in byte_characters().items()}
        self._engine = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=self.ids, merges=self.merges))
        self._engine.pre_tokenizer = pre_tokenizer()
        self._table: RunTable | None = None

    def _check(self) -> None:
        known = set(byte_characters().values())
        missing = [piece for piece in (*sorted(known), END_OF_TEXT) if piece not in self.ids]
        if missing:
            few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise ConfigError(f"the byte-level BPE vocabulary lacks {few}")
        if len(self.ids) != len(self.pieces):
            raise ConfigError(f"the byte-level BPE vocabulary has {len(self.pieces) - len(self.ids)} pieces twice")
        for piece in self.pieces:
            if not piece or not known.issuperset(piece):
                raise ConfigError(f"the piece {piece!r} holds what is no byte of a byte-level BPE vocabulary")
        for left, right in self.merges:
            for piece in (left, right, left + right):
                if piece not in self.ids:
                    raise ConfigError(f"the merge of {left!r} and {right!r} has no piece {piece!r} in the vocabulary")

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ByteBPE, (self.pieces, self.merges, self.lowercase))

    def options(self) -> dict[str, Any]:
        """Keyword arguments that, with the pieces and merges, make this tokenizer again."""
        return {"lowercase": self.lowercase}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.txt`, `merges.txt` and `tokenizer.json`."""
        save_files(self, folder, {MERGES: merges_text(self.merges)})

    def digest(self) -> str:
        """Equal for tokenizers that give equal ids for every text."""
        return digest_of(self, merges_text(self.merges))

    def encode(self, text: str, special: bool = False) -> Encoding:
        """Pieces of a text, with offsets into it that hold the blank in front of a piece if the piece does.

        A character of several bytes may be cut into several pieces, which then share it. A blank right before a word
        belongs to it, other white space to the word before (to the first one where there is none, to word -1 where
        there are no words).

        Args:
          text: any text; lone surrogates are read as U+FFFD.
          special: whether "<|endoftext|>" in the text is that piece, or characters like others.
        """
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for part in re.split(f"({re.escape(END_OF_TEXT)})", text) if special else [text]:
            if special and part == END_OF_TEXT:
                ids.append(self.end_id)
                starts.append(at)
                ends.append(at + len(part))
            else:
                places = self._places(part)
                found = self._engine.encode(repaired(part.lower() if self.lowercase else part))
                ids += found.ids
                starts += [at + int(places[start]) for start, _ in found.offsets]
                ends += [at + int(places[end - 1]) + 1 for _, end in found.offsets]
            at += len(part)
        begins = [start for start, _ in self.split_words(text)]
        # The last word that begins before the piece ends; a blank alone goes with a word right behind it.
        reach = [end + (end - start == 1 and text[start] == " ") for start, end in zip(starts, ends)]
        words = np.searchsorted(begins, reach, "left") - 1
        return make_encoding(self, ids, starts, ends, np.maximum(words, 0).tolist() if begins else [-1] * len(ids))

    def _places(self, text: str) -> Sequence[int] | Int[np.ndarray, " n"]:
        """Where in the text each character comes from that the engine reads: only lower case makes two of one."""
        if self.lowercase and len(text.lower()) != len(text):
            return np.repeat(np.arange(len(text)), [len(char.lower()) for char in text])
        return range(len(text))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of every text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Pieces of given words, a blank in front of each but the first, as in running text; every word has one."""
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        owners: list[int] = []
        for number, word in enumerate(words):
            blank = 1 if number or not word else 0  # an empty word is a blank
            one = self.encode(" " * blank + word)
            ids += one.ids.tolist()
            starts += np.maximum(one.offsets[:, 0] - blank, 0).tolist()
            ends += np.maximum(one.offsets[:, 1] - blank, 0).tolist()
            owners += [number] * len(one.ids)
        return make_encoding(self, ids, starts, ends, owners)

    def encode_sentences(self, sentences: Sequence[str]) -> Sentences:
        """Ids of many sentences, fast and without offsets: the same ids as `encode` of each."""
        if self._table is None:
            self._table = RunTable(self._analyse)
        runs: list[str] = []
        ends = [0]
        for sentence in sentences:
            runs += RUNS.findall(sentence.lower() if self.lowercase else sentence)
            ends.append(len(runs))
        ids, counts, _ = self._table.look_up(runs)
        totals = np.concatenate([[0], np.cumsum(counts)])
        return Sentences(ids, np.diff(totals[ends]), [], 0)

    def _analyse(self, run: str) -> tuple[list[int], int]:
        """The ids of a run; none of its words is over a limit."""
        return self._engine.encode(repaired(run)).ids, 0

    def split_words(self, text: str) -> list[tuple[int, int]]:
        """Start and end of everything between white space."""
        return [match.span() for match in _WORD.finditer(text)]

    def decode(self, ids: Any) -> str:
        """Text of ids: all that was encoded, character by character; bytes that are no UTF-8 become U+FFFD."""
        shown = "".join(self.pieces[int(i)] for i in ids)
        return shown.translate(self._bytes).encode("latin-1").decode("utf-8", "replace")


def learn(texts: Iterable[str], size: int, lowercase: bool = False) -> ByteBPE:
    """Learn a byte-level BPE vocabulary; the same texts give the same pieces, merges and ids in every process.

    Args:
      texts: read once.
      size: number of pieces, 256 bytes and the end of a text included; fewer where the texts do not have as many.
      lowercase: as in `ByteBPE`.

    Raises:
      ConfigError: a size with no room for the bytes, or texts without a character.
    """
    from ctxjax.text import byte_learning

    counts: dict[str, int] = {}
    for text in texts:
        byte_learning.count_pretokens(text, lowercase, counts)
    return ByteBPE(*byte_learning.learn_pieces(counts, size), lowercase)
