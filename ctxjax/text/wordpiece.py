"""WordPiece as the published BERT applies it: basic tokens, then greedy longest match from the left.

An official `vocab.txt` is taken as it is. Ids of a learned vocabulary are fixed by the text alone (see `learning.py`).

Reference: Devlin et al. 2019, section 3; Wu et al. 2016, section 4.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.text import basic
from ctxjax.text.table import LONGEST, RunTable
from ctxjax.text.tokenizer import Encoding, Sentences, digest_of, make_encoding, save_files

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
_BREAK = "\n"  # between sentences in one string; whitespace, so never part of a run
_HELD = 1 << 16


class WordPiece:
    """A WordPiece tokenizer. `encode_sentences` keeps a table and wants one thread at a time, the rest is free."""

    kind = "wordpiece"
    keeps_space = False

    def __init__(self, pieces: Sequence[str], lowercase: bool = True, max_word_chars: int = 200):
        """Args:
          pieces: id -> piece. Of a piece that stands twice the last counts, as in the published code.
          lowercase: lower-case and strip accents, as the "uncased" models.
          max_word_chars: a longer word is one [UNK].

        Raises:
          ConfigError: a special piece is missing.
        """
        self.pieces = list(pieces)
        self.lowercase, self.max_word_chars = bool(lowercase), int(max_word_chars)
        self.ids: dict[str, int] = {piece: i for i, piece in enumerate(self.pieces)}
        missing = [piece for piece in SPECIALS if piece not in self.ids]
        if missing:
            raise ConfigError(f"the WordPiece vocabulary lacks {', '.join(missing)}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.ids[piece] for piece in SPECIALS)
        self.end_id = self.sep_id
        self._continuing = {p[len(CONTINUES) :]: i for p, i in self.ids.items() if p.startswith(CONTINUES)}
        self._longest = max(len(piece) for piece in self.pieces)
        self._held: dict[str, tuple[list[int], list[int], list[int], list[int]]] = {}
        self._table: RunTable | None = None

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return (WordPiece, (self.pieces, self.lowercase, self.max_word_chars))

    def options(self) -> dict[str, Any]:
        """Keyword arguments that, with the pieces, make this tokenizer again."""
        return {"lowercase": self.lowercase, "max_word_chars": self.max_word_chars}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.txt` and `tokenizer.json`."""
        save_files(self, folder)

    def digest(self) -> str:
        """Equal for tokenizers that give equal ids for every text."""
        return digest_of(self)

    def encode(self, text: str, special: bool = False) -> Encoding:
        """Pieces of a text with offsets into it; `words` counts its basic tokens.

        Args:
          text: any text.
          special: take "[MASK]" and the other special pieces, where they stand in the text, for themselves.
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
        """Pieces of given words. One of which the clean-up leaves nothing is an [UNK]: every word has a piece."""
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

    def decode(self, ids: Any) -> str:
        """Text of ids: pieces joined by spaces, continuations without; case and spacing are not restored."""
        return " ".join(self.pieces[int(i)] for i in ids).replace(f" {CONTINUES}", "")

    def _parts(self, text: str, special: bool) -> Iterable[tuple[int, str, bool]]:
        """(offset, part, whether it is a special piece)."""
        if not special:
            yield 0, text, False
            return
        at = 0
        for match in re.finditer("|".join(map(re.escape, SPECIALS)), text):
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
        return ids, sum(len(word) > self.max_word_chars for word in words)

    def match(self, word: str) -> list[tuple[int, int, int]] | None:
        """Greedy longest match: (id, start, end) of every piece, or None where a part of the word has none."""
        if len(word) > self.max_word_chars:
            return None
        found: list[tuple[int, int, int]] = []
        start, known = 0, self.ids
        while start < len(word):
            end = min(len(word), start + self._longest)
            while end > start and (piece := known.get(word[start:end])) is None:
                end -= 1
            if end == start:
                return None
            found.append((piece, start, end))
            start, known = end, self._continuing
        return found


def learn(texts: Iterable[str], size: int, lowercase: bool = True) -> WordPiece:
    """Learn a WordPiece vocabulary; the same texts give the same pieces and ids in every process.

    Args:
      texts: read once.
      size: number of pieces, special ones included; fewer where the texts do not have as many.
      lowercase: as in `WordPiece`.

    Raises:
      ConfigError: a size with no room for the characters, or texts without a word.
    """
    from ctxjax.text import learning

    counts: dict[str, int] = {}
    for text in texts:
        learning.count_words(text, lowercase, counts)
    return WordPiece(learning.learn_pieces(counts, size), lowercase)
