"""How the parts of an example become a row, by the family of the tokenizer.

    bert    [CLS] a [SEP] b [SEP]                      one vector, at [CLS]; a is segment 0, b segment 1
    gpt     <start> a <delimiter> b <classify>         one vector, at <classify>; the three are new rows of the table
    words   <S> a </S> <S> b </S>                      one vector, at the last </S>
    bare    a b                                        no marks, as static word vectors are read

What does not fit is cut as the originals cut it: BERT takes the last piece of the longer part, of the second where both
are as long, until all fits; GPT keeps half of the row for each part.

Reference: google-research/bert run_classifier.py; openai/finetune-transformer-lm train.py; Radford et al. 2018,
section 3.3; allenai/bilm-tf bilm/data.py.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ctxjax.config import ConfigError, did_you_mean
from ctxjax.data.transforms.pairs import truncate
from ctxjax.text import open_tokenizer

START, DELIMITER, CLASSIFY = "<start>", "<delimiter>", "<classify>"
MARKS = {  # in front, between two parts, behind
    "bert": (("[CLS]",), ("[SEP]",), ("[SEP]",)),
    "gpt": ((START,), (DELIMITER,), (CLASSIFY,)),
    "words": (("<S>",), ("</S>", "<S>"), ("</S>",)),
    "bare": ((), (), ()),
}
FAMILIES = {"wordpiece": "bert", "bpe": "gpt", "byte_bpe": "gpt", "words": "words"}  # of each kind of tokenizer


class Row(NamedTuple):
    """A framed example.

    Attributes:
      tokens: ids, marks and all.
      segments: 0 for the first part and its marks, 1 for the second.
      place: where the one vector is taken.
      starts: where each part begins.
      lengths: pieces of each part that are left.
      cut: how many pieces were cut.
    """

    tokens: Int[np.ndarray, " n"]
    segments: Int[np.ndarray, " n"]
    place: int
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    cut: int


def open_framed(path: str | os.PathLike[str], family: str = "") -> Any:
    """The tokenizer at a path with the marks of its family among its pieces; GPT's three get ids behind the others.

    Raises:
      ConfigError: no tokenizer there, or one that lacks the marks of the family.
    """
    tokenizer = open_tokenizer(path)
    if (family or FAMILIES[tokenizer.kind]) != "gpt" or tokenizer.kind not in ("bpe", "byte_bpe"):
        return tokenizer
    new = [piece for piece in (START, DELIMITER, CLASSIFY) if piece not in tokenizer.ids]
    if not new:
        return tokenizer
    if tokenizer.kind == "byte_bpe":
        return type(tokenizer)([*tokenizer.pieces, *new], **{"merges": tokenizer.merges} | tokenizer.options())
    options = tokenizer.options()
    options["special"] = [*options["special"], *new]
    return type(tokenizer)(tokenizer.pieces, tokenizer.merges, **options)


class Framing:
    """Rows of at most `length` tokens.

    Args:
      tokenizer: from `open_framed`.
      length: of a row at most.
      family: a key of `MARKS`; empty for that of the tokenizer.

    Raises:
      ConfigError: no such family, a tokenizer that lacks its marks, or a length with no room for text.
    """

    def __init__(self, tokenizer: Any, length: int, family: str = ""):
        self.family, self.length = family or FAMILIES[tokenizer.kind], length
        if self.family not in MARKS:
            raise ConfigError(f"config.source.framing={family!r}{did_you_mean(family, MARKS)}")
        missing = [piece for marks in MARKS[self.family] for piece in marks if piece not in tokenizer.ids]
        if missing:
            raise ConfigError(
                f"config.source.framing={self.family!r} needs the pieces {', '.join(dict.fromkeys(missing))}, which "
                f"this tokenizer ({tokenizer.kind}) lacks"
            )
        self.first, self.between, self.last = (
            np.array([tokenizer.ids[piece] for piece in marks], np.int32) for marks in MARKS[self.family]
        )
        if length < self.marks(2) + 2:
            raise ConfigError(f"config.source.length={length} has no room for two parts and {self.marks(2)} marks")

    def marks(self, parts: int) -> int:
        """How many of a row's tokens are marks."""
        return len(self.first) + (parts - 1) * len(self.between) + len(self.last)

    def place(self, length: int) -> int:
        """Where the one vector of a row of so many tokens is taken."""
        return 0 if self.family == "bert" else max(0, length - 1)

    def kept(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """How many pieces are left of each of one or two parts."""
        room = self.length - self.marks(len(lengths))
        if len(lengths) == 1:
            return (min(lengths[0], room),)
        if self.family == "gpt":
            return tuple(min(length, self.length // 2 - 2) for length in lengths)
        cut = truncate(np.array(lengths[:1]), np.array(lengths[1:]), room)
        return tuple(length - int(lost[0]) for length, lost in zip(lengths, cut))

    def sizes(self, lengths: Int[np.ndarray, "N parts"]) -> tuple[Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """Tokens of the rows of many examples, and which of them lose pieces."""
        marks = self.marks(lengths.shape[1])
        if self.family == "gpt" and lengths.shape[1] == 2:
            kept = np.minimum(lengths, self.length // 2 - 2)
            return kept.sum(1) + marks, (kept < lengths).max(1)
        whole = lengths.sum(1) + marks
        return np.minimum(whole, self.length), whole > self.length

    def __call__(self, *parts: Int[np.ndarray, " _"]) -> Row:
        """The row of one or two parts, ids without marks."""
        if len(parts) not in (1, 2):
            raise ValueError(f"a row is made of one part or two, not of {len(parts)}")
        kept = self.kept(tuple(map(len, parts)))
        pieces, segments, starts = [self.first], [np.zeros(len(self.first), np.int32)], []
        place = len(self.first)
        for number, (part, length) in enumerate(zip(parts, kept)):
            behind = self.last if number == len(parts) - 1 else self.between
            starts.append(place)
            pieces += [part[:length], behind]
            segments.append(np.full(length + len(behind), number, np.int32))
            place += length + len(behind)
        tokens = np.concatenate(pieces).astype(np.int32)
        cut = sum(map(len, parts)) - sum(kept)
        return Row(tokens, np.concatenate(segments), self.place(len(tokens)), tuple(starts), kept, cut)
