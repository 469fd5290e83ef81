"""The basic tokenisation of the published BERT: clean-up, case and accents, punctuation, CJK ideographs.

Two views of one function. `normalize` follows the published order of operations on any text and keeps for every
character where it came from. `runs` cuts a text with one regular expression into pieces whose basic tokenisation does
not depend on their neighbours, so that each distinct one needs to be normalised once and is looked up ever after; a
run is an ASCII word, a punctuation mark, an ideograph, or anything mixed that only `normalize` can judge.

Reference: Devlin et al. 2019; the rules are those of the released `tokenization.py`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

# Ideographs are words of their own; Hangul and Kana are written with spaces or in running words and are not.
CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
CAPITAL_SIGMA = "\u03a3"  # the one letter whose lower case depends on its neighbours


class Word(NamedTuple):
    """A basic token and, for each of its characters, where in the source it begins and ends."""

    text: str
    starts: list[int]
    ends: list[int]


@functools.lru_cache(1 << 16)
def is_cjk(char: str) -> bool:
    """Whether a character is in one of the eight ranges of ideographs."""
    return any(low <= ord(char) <= high for low, high in CJK)


@functools.lru_cache(1 << 16)
def is_punctuation(char: str) -> bool:
    """ASCII symbols that are neither letter nor digit, and the Unicode categories P*."""
    code = ord(char)
    if code < 0x80:
        return 33 <= code <= 126 and not char.isalnum()
    return unicodedata.category(char).startswith("P")


@functools.lru_cache(1 << 16)
def is_removed(char: str) -> bool:
    """NUL, the replacement character and control or format characters, which the clean-up deletes."""
    return char in "\x00\ufffd" or (char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf"))


def normalize(text: str, lowercase: bool) -> list[Word]:
    """The basic tokens of any text, in the published order of operations.

    Delete control characters, set ideographs apart, split on whitespace; then, for each chunk, lower-case and strip
    accents (both only where `lowercase`) and split on punctuation.
    """
    words: list[Word] = []
    chars: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        if is_removed(char):
            continue
        if char.isspace():
            _chunk(chars, places, lowercase, words)
        elif is_cjk(char):
            _chunk(chars, places, lowercase, words)
            chars.append(char)
            places.append(place)
            _chunk(chars, places, lowercase, words)
        else:
            chars.append(char)
            places.append(place)
    _chunk(chars, places, lowercase, words)
    return words


def _chunk(chars: list[str], places: list[int], lowercase: bool, words: list[Word]) -> None:
    """Case, accents and punctuation of one chunk; appends its words and empties the lists."""
    if not chars:
        return
    ends = [place + 1 for place in places]
    starts = places[:]
    out = chars[:]
    if lowercase:
        out, starts, ends = _fold("".join(chars), places)
    held: list[int] = []

    def close() -> None:
        if held:
            words.append(Word("".join(out[i] for i in held), [starts[i] for i in held], [ends[i] for i in held]))
            held.clear()

    for i, char in enumerate(out):
        if is_punctuation(char):
            close()
            held.append(i)
            close()
        elif char.isspace():
            close()
        else:
            held.append(i)
    close()
    chars.clear()
    places.clear()


def _fold(chunk: str, places: list[int]) -> tuple[list[str], list[int], list[int]]:
    """Lower-case, decompose (NFD) and drop marks (Mn), each with its source; a dropped mark widens the last."""
    lower = chunk.lower()
    pairs: list[tuple[str, int]] = []
    at = 0
    for char, place in zip(chunk, places):
        width = len(char.lower())
        for low in lower[at : at + width]:
            pairs += [(part, place) for part in unicodedata.normalize("NFD", low)]
        at += width
    _canonical_order(pairs)
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for char, place in pairs:
        if unicodedata.category(char) != "Mn":
            out.append(char)
            starts.append(place)
            ends.append(place + 1)
        elif ends:
            ends[-1] = max(ends[-1], place + 1)
    return out, starts, ends


def _canonical_order(pairs: list[tuple[str, int]]) -> None:
    """Sort every run of combining characters by combining class, as NFD of the whole chunk does."""
    start = 0
    while start < len(pairs):
        if not unicodedata.combining(pairs[start][0]):
            start += 1
            continue
        stop = start
        while stop < len(pairs) and unicodedata.combining(pairs[stop][0]):
            stop += 1
        if stop - start > 1:
            pairs[start:stop] = sorted(pairs[start:stop], key=lambda pair: unicodedata.combining(pair[0]))
        start = stop


def char_ranges(codes: list[int]) -> str:
    """A regular expression's character class of sorted code points."""
    spans: list[list[int]] = []
    for code in codes:
        if spans and code == spans[-1][1] + 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in spans)


@functools.cache
def patterns(breaks: bool = False) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The expressions behind `runs`: the usual one, and the one for texts in which context decides the case.

    With `breaks` every newline is a match too, so that sentences, one a line, can be told apart afterwards.
    """
    plane = range(0x80, 0x10000)  # marks beyond it stay in mixed runs, where `normalize` finds them
    marks = char_ranges([code for code in plane if unicodedata.category(chr(code)).startswith("P")])
    ascii_marks = "!-/:-@\\[-`{-~"
    cjk = char_ranges([code for low, high in sorted(CJK) for code in range(low, high + 1)])
    # Whitespace as str.split() knows it, less the control characters, which the clean-up deletes instead.
    blanks = "\t\n\r " + "".join(chr(code) for code in range(0xA0, 0x10000) if chr(code).isspace())
    mixed = f"[^{blanks}{ascii_marks}{marks}{cjk}]"
    usual = f"[A-Za-z0-9]++(?!{mixed})|[{ascii_marks}{marks}{cjk}]|{mixed}++"
    whole = f"[{cjk}]|[^{blanks}{cjk}]++"
    more = "|\n" if breaks else ""
    return re.compile(usual + more), re.compile(whole + more)


def run_pattern(text: str, lowercase: bool, breaks: bool = False) -> re.Pattern[str]:
    """The expression that cuts this text into runs. Only the capital sigma minds its neighbours."""
    usual, whole = patterns(breaks)
    return whole if lowercase and CAPITAL_SIGMA in text else usual


def runs(text: str, lowercase: bool) -> list[str]:
    """The runs of a text, in order: concatenating their basic tokens gives the basic tokens of the text."""
    return run_pattern(text, lowercase).findall(text)
