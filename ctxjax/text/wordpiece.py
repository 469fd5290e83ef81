"""WordPiece as the published BERT applies it: basic tokens, then greedy longest match from the left.

An official `vocab.txt` is taken as it is. Ids of a learned vocabulary are fixed by the text alone (see `learning.py`).

Reference: Devlin et al. 2019, section 3; Wu et al. 2016, section 4.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.text.pieces import BasicPieces, Match
from ctxjax.text.tokenizer import digest_of, save_files

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"


class WordPiece(BasicPieces):
    """A WordPiece tokenizer; `words` of its encodings count basic tokens."""

    kind = "wordpiece"

    def __init__(self, pieces: Sequence[str], lowercase: bool = True, max_word_chars: int = 200):
        """Args:
          pieces: id -> piece. Of a piece that stands twice the last counts, as in the published code.
          lowercase: lower-case and strip accents, as the "uncased" models.
          max_word_chars: a longer word is one [UNK].

        Raises:
          ConfigError: a special piece is missing.
        """
        super().__init__(pieces, lowercase, SPECIALS)
        self.max_word_chars = int(max_word_chars)
        missing = [piece for piece in SPECIALS if piece not in self.ids]
        if missing:
            raise ConfigError(f"the WordPiece vocabulary lacks {', '.join(missing)}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.ids[piece] for piece in SPECIALS)
        self.end_id = self.sep_id
        self._continuing = {p[len(CONTINUES) :]: i for p, i in self.ids.items() if p.startswith(CONTINUES)}
        self._longest = max(len(piece) for piece in self.pieces)

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

    def decode(self, ids: Any) -> str:
        """Text of ids: pieces joined by spaces, continuations without; case and spacing are not restored."""
        return " ".join(self.pieces[int(i)] for i in ids).replace(f" {CONTINUES}", "")

    def is_long(self, word: str) -> bool:
        """Whether a word is one [UNK] for its length."""
        return len(word) > self.max_word_chars

    def match(self, word: str) -> Match | None:
        """Greedy longest match: (id, start, end) of every piece, or None where a part of the word has none."""
        if self.is_long(word):
            return None
        found: Match = []
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
