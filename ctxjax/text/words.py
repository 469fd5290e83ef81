"""Whole words: a rule for where they end, and a vocabulary sorted by falling frequency, as a sampled softmax needs it.

Words outside the vocabulary share one id, but `encode_sentences` hands out their surface forms too, for models that
read characters. Text that is tokenised already (Penn Treebank, the billion-word benchmark) wants `split="whitespace"`,
and its `<unk>` is our <UNK>.

Reference: the order of the vocabulary and its first three entries are those of bilm-tf (Peters et al. 2018).
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.text import basic, marks
from ctxjax.text.tokenizer import Encoding, Sentences, digest_of, make_encoding, save_files

SPECIALS = ("<S>", "</S>", "<UNK>")
SPLITS = ("rules", "whitespace")
_BREAK = "\n"
UNKNOWN = "<unk>"  # how text that is tokenised already writes a word outside its vocabulary
_ABBREVIATIONS = "Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Messrs|Gen|Col|Lt|Capt|Sgt|Rev|Hon|Gov|Sen|Rep|Inc|Ltd|Co|Corp|vs|etc"
_CLITICS = "s|S|m|M|d|D|re|RE|ve|VE|ll|LL"


@functools.cache
def word_pattern(split: str, breaks: bool = False, rules: str = "") -> re.Pattern[str]:
    """The expression that finds words, and marks by these `rules`; with `breaks` every newline is a match too."""
    more = f"|{_BREAK}" if breaks else ""
    if split == "whitespace":
        return re.compile(r"\S++" + more)
    # Beyond the basic plane two wide ranges do: emoji and other symbols, and ideographs.
    inside = basic.char_ranges([code for code in range(0x10000) if _separates(chr(code))]) + "\U0001f000-\U0001faff"
    cjk = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
    char = f"[^{inside}{cjk}]"
    whole = [rf"(?<!\S)(?:{'|'.join(marks.names(rules))})(?!\S)"] if rules else []
    expressions = (
        *whole,
        r"[A-Za-z]++(?=[ \n,;:?!)\]])",  # nearly every word of English, and none that another rule would cut otherwise
        r"(?:[A-Za-z]\.){2,}+",  # U.S., e.g.
        rf"(?:{_ABBREVIATIONS})\.(?!{char})",
        rf"\d++(?:[.,:]\d++)++(?!{char})",  # 1,000.50
        rf"{char}+?(?=n['’]t(?!{char}))",  # do | n't
        rf"n['’]t(?!{char})",
        rf"['’](?:{_CLITICS})(?!{char})",  # it | 's
        rf"{char}++(?:-{char}++|['’](?!(?:{_CLITICS})(?!{char})){char}++)*+",  # well-known, O'Brien
        rf"[{cjk}]",
        r"\.{2,}+|-{2,}+",
        r"[^\s\x00-\x1f\x7f-\x9f]",
    )
    return re.compile("|".join(expressions) + more)


def _separates(char: str) -> bool:
    category = unicodedata.category(char)
    return char.isspace() or category[0] in "PS" or category == "Cc"


class Words:
    """A word tokenizer; safe to share between threads."""

    kind = "words"
    keeps_space = False

    def __init__(
        self,
        pieces: Sequence[str],
        lowercase: bool = False,
        split: str = "rules",
        max_word_chars: int = 200,
        marked: str = "",
    ):
        """Args:
          pieces: id -> word, the first three being <S>, </S> and <UNK>, the rest by falling frequency.
          lowercase: lower-case words before they are looked up.
          split: "rules", or "whitespace" for text that is tokenised already.
          max_word_chars: a longer word keeps its first characters.
          marked: rules of `ctxjax.text.marks`, "script" or "fastai": lower case, with marks for what that loses; ""
            for none.

        Raises:
          ConfigError: the first three entries are others, or `split` or `marked` is unknown.
        """
        self.pieces = list(pieces)
        if tuple(self.pieces[:3]) != SPECIALS:
            raise ConfigError(f"a word vocabulary begins with {', '.join(SPECIALS)}, this one with {self.pieces[:3]}")
        if split not in SPLITS:
            raise ConfigError(f"split={split!r} is neither 'rules' nor 'whitespace'")
        if marked and marked not in marks.RULES:
            raise ConfigError(f"marked={marked!r} is neither 'script' nor 'fastai'")
        self.lowercase, self.split, self.max_word_chars = bool(lowercase), split, int(max_word_chars)
        self.marked = marked
        self.bos_id, self.eos_id, self.unk_id = range(3)
        self.end_id = self.eos_id
        self.ids: dict[str, int] = {word: i for i, word in enumerate(self.pieces)}
        self._known = {word: i for word, i in self.ids.items() if i > self.unk_id}  # a "<S>" in a text is no mark
        if split == "whitespace":
            self._known.setdefault(UNKNOWN, self.unk_id)  # but a vocabulary of elsewhere may have it as a word

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Words, (self.pieces, self.lowercase, self.split, self.max_word_chars, self.marked))

    def options(self) -> dict[str, Any]:
        """Keyword arguments that, with the pieces, make this tokenizer again."""
        found = {"lowercase": self.lowercase, "split": self.split, "max_word_chars": self.max_word_chars}
        return found | ({"marked": self.marked} if self.marked else {})  # what has none keeps the digest that it had

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocab.txt` and `tokenizer.json`."""
        save_files(self, folder)

    def digest(self) -> str:
        """Equal for tokenizers that give equal ids for every text."""
        return digest_of(self)

    def encode(self, text: str) -> Encoding:
        """Words of a text with offsets into it; an unknown one has the id of <UNK>, its text is at its offsets."""
        found = self._found(text)
        ids, spans = [self.id_of(word) for word, _, _ in found], [(start, stop) for _, start, stop in found]
        return make_encoding(self, ids, [s for s, _ in spans], [e for _, e in spans], range(len(spans)))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of every text."""
        return [self.encode(text) for text in texts]

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """One id for each given word, whatever is in it."""
        ids = [self.id_of(word) for word in words]
        return make_encoding(self, ids, [0] * len(ids), [len(word) for word in words], range(len(ids)))

    def encode_sentences(self, sentences: Sequence[str]) -> Sentences:
        """Ids of many sentences, fast and without offsets, and the surface forms of the unknown words."""
        flat = [sentence.replace(_BREAK, " ") for sentence in sentences]
        text = _BREAK.join([marks.marked(one, self.marked).text for one in flat] if self.marked else flat)
        text = text.lower() if self.lowercase else text
        found = self._pattern(breaks=True).findall(text)
        ids = np.fromiter(map(self._known.get, found, itertools.repeat(self.unk_id)), np.int32, len(found))
        unknown = np.flatnonzero(ids == self.unk_id)
        breaks = np.array([i for i in unknown.tolist() if found[i] == _BREAK], np.int64)
        unknown = np.setdiff1d(unknown, breaks, assume_unique=True)
        bounds = np.concatenate([[-1], breaks, [len(found)]])
        lengths = np.diff(bounds) - 1 if sentences else np.zeros(0, np.int64)
        surfaces = [found[i] for i in unknown.tolist()]
        too_long = 0
        for i, word in enumerate(surfaces):
            if len(word) > self.max_word_chars:
                surfaces[i] = word[: self.max_word_chars]
                too_long += 1
        return Sentences(np.delete(ids, breaks), lengths, surfaces, too_long)

    def split_words(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every word; a mark has the place of what it is of."""
        return [(start, stop) for _, start, stop in self._found(text)]

    def _found(self, text: str) -> list[tuple[str, int, int]]:
        """Every word, as it is looked up but for its case, with its start and end in the text."""
        if not self.marked:
            return [(match[0], *match.span()) for match in self._pattern().finditer(text)]
        made = marks.marked(text, self.marked)
        places = [match.span() for match in self._pattern().finditer(made.text)]
        return [(made.text[start:stop], made.starts[start], made.ends[stop - 1]) for start, stop in places]

    def _pattern(self, breaks: bool = False) -> re.Pattern[str]:
        return word_pattern(self.split, breaks, self.marked)

    def decode(self, ids: Any) -> str:
        """Words of ids, joined by spaces."""
        return " ".join(self.pieces[int(i)] for i in ids)

    def id_of(self, word: str) -> int:
        """The id of one word."""
        return self._known.get(word.lower() if self.lowercase or self.marked else word, self.unk_id)


def learn(
    texts: Iterable[str],
    size: int,
    min_count: int = 1,
    lowercase: bool = False,
    split: str = "rules",
    marked: str = "",
) -> Words:
    """The most frequent words of some texts, read once; ties go by code point.

    Args:
      texts: running text, or text tokenised already for `split="whitespace"`.
      size: number of entries, the three special ones included.
      min_count: a rarer word is unknown.
      lowercase, split, marked: as in `Words`.
    """
    counts: dict[str, int] = {}
    for text in texts:
        count_words(text, lowercase, split, counts, marked)
    return Words(learn_pieces(counts, size, min_count), lowercase, split, marked=marked)


def count_words(text: str, lowercase: bool, split: str, counts: dict[str, int], marked: str = "") -> None:
    """Add the words of a text to `counts`."""
    if marked:
        text = _BREAK.join(marks.marked(line, marked).text for line in text.split(_BREAK))
    found = word_pattern(split, rules=marked).findall(text.lower() if lowercase else text)
    for word, count in collections.Counter(found).items():
        if len(word) <= 200 and not (split == "whitespace" and word == UNKNOWN):
            counts[word] = counts.get(word, 0) + count


def learn_pieces(counts: Mapping[str, int], size: int, min_count: int = 1) -> list[str]:
    """The entries of a vocabulary, in the order of their ids.

    Raises:
      ConfigError: a size with room for no word, or no words.
    """
    kept = [word for word, count in counts.items() if count >= min_count and word not in SPECIALS]
    if not kept:
        raise ConfigError("there is no word to make a vocabulary from")
    if size <= len(SPECIALS):
        raise ConfigError(f"a vocabulary of {size} entries has no room for words; {len(SPECIALS)} are special")
    kept.sort(key=lambda word: (-counts[word], word))
    return [*SPECIALS, *kept[: size - len(SPECIALS)]]
