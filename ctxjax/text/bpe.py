"""BPE of characters as GPT applies it: basic tokens, lower-cased, whose last character carries the mark `</w>`.

Within a word the merge that was learned first is made, until none is left; Hugging Face's `tokenizers` does it. What no
merge reaches and the vocabulary lacks is `<unk>`, one for every such character.

The released code repairs a text with ftfy, splits it with spaCy and spaces its punctuation. Here its quotes, dashes and
ellipses become the plain signs that its vocabulary has (`standardize`), and it is split as BERT splits it, which is all
that Hugging Face's OpenAIGPTTokenizer does without those packages. The splits differ in punctuation that spaCy keeps
together ("mr.", "'s", "..."), so ids may differ from the released code's there. White space is lost, and so are line
breaks, which the released code makes a piece of their own, `\\n</w>`. No text gives that piece here; it is what stands
between two documents, since it is the only mark of a break that the released weights have seen.

An official vocabulary is taken as it is, ids and all. Fine-tuning's `<start>`, `<delimiter>` and `<classify>` are
`special` pieces behind it: rows more of the same table, fresh where a smaller table is read into it.

Reference: Radford et al. 2018, section 4.1; Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
Subword Units"; openai/finetune-transformer-lm, text_utils.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers

from ctxjax.config import ConfigError
from ctxjax.text.bpe_files import MERGES, PIECES, merges_text, pieces_text
from ctxjax.text.byte_bpe import repaired
from ctxjax.text.pieces import BasicPieces, Match
from ctxjax.text.tokenizer import SETTINGS, Encoding, Sentences, digest_of, settings_text, write_files

UNKNOWN = "<unk>"
END_OF_WORD = "</w>"
LINE_BREAK = f"\n{END_OF_WORD}"
ELLIPSIS = "\u2026"  # punctuation, so always a basic token of its own
_PLAIN = (
    dict.fromkeys(map(ord, "\u02bc\u2018\u2019\u201a\u201b\u00b4"), "'")
    | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"')
    | dict.fromkeys(map(ord, "\u2013\u2014\u2015"), "-")
)


def plain(text: str) -> str:
    """The text with straight quotes, and hyphens for dashes; character by character, so places stay."""
    return text if text.isascii() else text.translate(_PLAIN)


class BPE(BasicPieces):
    """GPT's BPE tokenizer; `words` of its encodings count basic tokens."""

    kind = "bpe"

    def __init__(
        self,
        pieces: Sequence[str],
        merges: Iterable[Sequence[str]],
        lowercase: bool = True,
        special: Sequence[str] = (),
        standardize: bool = True,
    ):
        """Args:
          pieces: id -> piece.
          merges: pairs of pieces, the first one to be made first.
          lowercase: lower-case and strip accents, as the published vocabulary wants it.
          special: pieces that no text gives; those that are not among `pieces` get the ids behind them.
          standardize: read quotes as straight ones, dashes as "-" and an ellipsis as "...", as ftfy and the released
            code do; False is Hugging Face's way without ftfy, where they are unknown to the published vocabulary.

        Raises:
          ConfigError: `<unk>` or the line break is missing, a piece stands twice, or a merge is of what are no pieces.
        """
        known = set(pieces)
        super().__init__([*pieces, *(piece for piece in special if piece not in known)], lowercase, special)
        self.merges, self.standardize = [(left, right) for left, right in merges], bool(standardize)
        self._check()
        self.unk_id, self.end_id = self.ids[UNKNOWN], self.ids[LINE_BREAK]
        self._engine = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                vocab=self.ids, merges=self.merges, unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD, fuse_unk=False
            )
        )

    def _check(self) -> None:
        missing = [repr(piece) for piece in (UNKNOWN, LINE_BREAK) if piece not in self.ids]
        if missing:
            raise ConfigError(f"the BPE vocabulary lacks {' and '.join(missing)}")
        if len(self.ids) != len(self.pieces):
            raise ConfigError(f"the BPE vocabulary has {len(self.pieces) - len(self.ids)} pieces twice")
        for left, right in self.merges:
            for piece in (left, right, left + right):
                if piece not in self.ids:
                    raise ConfigError(f"the merge of {left!r} and {right!r} has no piece {piece!r} in the vocabulary")

    def __reduce__(self) -> tuple[Any, ...]:
        return (BPE, (self.pieces, self.merges, self.lowercase, self.specials, self.standardize))

    def options(self) -> dict[str, Any]:
        """Keyword arguments that, with the pieces and merges, make this tokenizer again."""
        return {"lowercase": self.lowercase, "special": list(self.specials), "standardize": self.standardize}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.json`, since a piece holds a line break, `merges.txt` and `tokenizer.json`."""
        contents = {PIECES: pieces_text(self.pieces), MERGES: merges_text(self.merges)}
        write_files(folder, contents | {SETTINGS: settings_text(self)})

    def digest(self) -> str:
        """Equal for tokenizers that give equal ids for every text."""
        return digest_of(self, merges_text(self.merges))

    def decode(self, ids: Any) -> str:
        """Text of ids: a blank behind every word; case and spacing are not restored."""
        shown = {LINE_BREAK: "\n"} | {piece: f"{piece} " for piece in (UNKNOWN, *self.specials)}
        pieces = [self.pieces[int(i)] for i in ids]
        return "".join(shown.get(piece, piece.replace(END_OF_WORD, " ")) for piece in pieces).strip()

    def encode(self, text: str, special: bool = False) -> Encoding:
        """Pieces of a text with offsets into it; `words` counts its basic tokens. See `BasicPieces.encode`."""
        return super().encode(plain(text) if self.standardize else text, special)

    def encode_sentences(self, sentences: Sequence[str]) -> Sentences:
        """Ids of many sentences, fast and without offsets: the same ids as `encode` of each."""
        return super().encode_sentences([plain(text) for text in sentences] if self.standardize else sentences)

    def split_words(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every basic token, the words that `encode` counts."""
        return super().split_words(plain(text) if self.standardize else text)

    def match(self, word: str) -> Match:
        """(id, start, end) of every piece; a character that has none is an `<unk>`."""
        if word == ELLIPSIS and self.standardize:
            return [(piece, 0, 1) for piece in self._engine.encode("...").ids]
        found = self._engine.encode(repaired(word))
        return [(piece, start, end) for piece, (start, end) in zip(found.ids, found.offsets)]


def learn(texts: Iterable[str], size: int, lowercase: bool = True) -> BPE:
    """Learn a BPE vocabulary; the same texts give the same pieces, merges and ids in every process.

    Args:
      texts: read once.
      size: number of pieces, `<unk>` and the line break included; fewer where the texts do not have as many.
      lowercase: as in `BPE`.

    Raises:
      ConfigError: a size with no room for characters, or texts without a word.
    """
    from ctxjax.text import bpe_learning, learning

    counts: dict[str, int] = {}
    for text in texts:
        learning.count_words(plain(text), lowercase, counts)
    return BPE(*bpe_learning.learn_pieces(counts, size), lowercase)
