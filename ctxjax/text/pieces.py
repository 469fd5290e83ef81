"""Tokenizers of basic tokens: a text is cleaned and split by BERT's rules, then each word is cut into pieces by itself.

WordPiece and GPT's BPE differ in how they cut a word; offsets, look-ups and sentences are the same and are here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ctxjax.text import basic
from ctxjax.text.table import LONGEST, RunTable
from ctxjax.text.tokenizer import Encoding, Sentences, make_encoding

_BREAK = "\n"  # between sentences in one string; whitespace, so never part of a run
_HELD = 1 << 16

Match = list[tuple[int, int, int]]  # id, start and end in the word


class BasicPieces:
    """What such tokenizers share. `encode_sentences` keeps a table and wants one thread at a time, the rest is free.

    Attributes:
      lowercase: lower-case and strip accents.
      specials: pieces that stand for themselves where a caller asks for it.
    """

    keeps_space = False
    kind: str
    unk_id: int
    end_id: int

    def __init__(self, pieces: Sequence[str], lowercase: bool, specials: Sequence[str]):
        self.pieces = list(pieces)
        self.ids: dict[str, int] = {piece: i for i, piece in enumerate(self.pieces)}
        self.lowercase, self.specials = bool(lowercase), tuple(specials)
        self._held: dict[str, tuple[list[int], list[int], list[int], list[int]]] = {}
        self._table: RunTable | None = None

    def __len__(self) -> int:
        return len(self.pieces)

    def match(self, word: str) -> Match | None:
        """The pieces of a basic token, or None where it is unknown as a whole."""
        raise NotImplementedError

    def is_long(self, word: str) -> bool:
        """Whether a basic token is over the tokenizer's limit, if it has one."""
        del word
        return False

    def encode(self, text: str, special: bool = False) -> Encoding:
        """Pieces of a text with offsets into it; `words` counts its basic tokens.

        Args:
          text: any text.
          special: take the special pieces ("[MASK]"), where they stand in the text, for themselves.
        """
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        words: list[int] = []
        for base, part, whole in self._parts(text, special):
            if whole:
                ids.append(self.ids[part])
                starts.append(base)
                ends.append(base + len(part))
                words.append(words[-1] + 1 if words else 0)
                continue
            for match in basic.run_pattern(part, self.lowercase).finditer(part):
                first = words[-1] + 1 if words else 0
                shift = base + match.start()
                run_ids, run_starts, run_ends, run_words = self._run(match.group())
                ids += run_ids
                starts += [shift + at for at in run_starts]
                ends += [shift + at for at in run_ends]
                words += [first + word for word in run_words]
        return make_encoding(self, ids, starts, ends, words)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of every text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Pieces of given words. One of which the clean-up leaves nothing is unknown: every word has a piece."""
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        owners: list[int] = []
        for number, word in enumerate(words):
            one = self.encode(word)
            if len(one.ids):
                ids += one.ids.tolist()
                starts += one.offsets[:, 0].tolist()
                ends += one.offsets[:, 1].tolist()
            else:
                ids.append(self.unk_id)
                starts.append(0)
                ends.append(len(word))
            owners += [number] * (len(ids) - len(owners))
        return make_encoding(self, ids, starts, ends, owners)

    def encode_sentences(self, sentences: Sequence[str]) -> Sentences:
        """Ids of many sentences, fast and without offsets: the same ids as `encode` of each."""
        if self._table is None:
            self._table = RunTable(self._analyse)
        table, before = self._table, self._table.long_words
        text = _BREAK.join([sentence.replace(_BREAK, " ") for sentence in sentences])
        ids, counts, rows = table.look_up(basic.run_pattern(text, self.lowercase, breaks=True).findall(text))
        totals = np.concatenate([[0], np.cumsum(counts)])
        ends = np.flatnonzero(rows == table[_BREAK])
        lengths = np.diff(totals[np.concatenate([[0], ends, [len(rows)]])]) if sentences else np.zeros(0, np.int64)
        return Sentences(ids, lengths, [], table.long_words - before)

    def split_words(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every basic token, the words that `encode` counts."""
        spans: list[tuple[int, int]] = []
        for match in basic.run_pattern(text, self.lowercase).finditer(text):
            for word in basic.normalize(match.group(), self.lowercase):
                spans.append((match.start() + word.starts[0], match.start() + max(word.ends)))
        return spans

    def _parts(self, text: str, special: bool) -> Iterable[tuple[int, str, bool]]:
        """(offset, part, whether it is a special piece)."""
        if not (special and self.specials):
            yield 0, text, False
            return
        at = 0
        for match in re.finditer("|".join(map(re.escape, self.specials)), text):
            yield at, text[at : match.start()], False
            yield match.start(), match.group(), True
            at = match.end()
        yield at, text[at:], False

    def _run(self, run: str) -> tuple[list[int], list[int], list[int], list[int]]:
        """ids, starts, ends and word numbers of a run."""
        held = self._held.get(run)
        if held is not None:
            return held
        ids: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        owners: list[int] = []
        for number, word in enumerate(basic.normalize(run, self.lowercase)):
            matched = self.match(word.text)
            if matched is None:
                matched = [(self.unk_id, 0, len(word.text))]
            for piece, start, end in matched:
                ids.append(piece)
                starts.append(word.starts[start])
                ends.append(max(word.ends[start:end]))
                owners.append(number)
        if len(run) <= LONGEST:
            if len(self._held) >= _HELD:
                self._held.clear()
            self._held[run] = ids, starts, ends, owners
        return ids, starts, ends, owners

    def _analyse(self, run: str) -> tuple[list[int], int]:
        """The ids of a run, and how many of its words are over the limit."""
        if run == _BREAK:
            return [], 0
        if run.isascii() and run.isalnum():
            words = [run.lower() if self.lowercase else run]
        else:
            words = [word.text for word in basic.normalize(run, self.lowercase)]
        ids: list[int] = []
        for word in words:
            matched = self.match(word)
            ids += [self.unk_id] if matched is None else [piece for piece, _, _ in matched]
        return ids, sum(map(self.is_long, words))
