"""Marks for what lower-casing and a vocabulary of words would lose: capitals, repetitions, where a text and its fields
begin.

    "SOOOOO GOOD"  ->  "t_up s tk_rep 5 o t_up good"

Two sets of rules: "script", of ULMFiT's released programs, and "fastai", of the library that came after them. The rules
look at a text before it is split into words; `Marked` keeps where each character came from.

Reference: Howard and Ruder 2018, section 4.1 (pre-processing); fastai 0.7, text.py and imdb_scripts/create_toks.py;
fastai 2, text/core.py.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

RULES = ("script", "fastai")
_NAMES = {  # upper case, capital letter, characters and words that are repeated; begin of a text and of a field
    "script": ("t_up", "", "tk_rep", "tk_wrep", "xbos", "xfld"),
    "fastai": ("xxup", "xxmaj", "xxrep", "xxwrep", "xxbos", "xxfld"),
}
_REMAINS = (  # of escapes that were unescaped once too often or too rarely
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), (" @.@ ", "."), (" @-@ ", "-"),
)  # fmt: skip
_MORE = {"script": (("<unk>", "u_n"), ("\\", " \\ ")), "fastai": (("<unk>", "xxunk"), ("...", " \u2026"))}
_BLANKS = re.compile(" {2,}")
_RUN = {"script": re.compile(r"(\S)\1{3,}"), "fastai": re.compile(r"(\S)\1{2,}")}
_WORDS = {
    "script": re.compile(r"(\b\w+\W+)(\1{3,})"),
    "fastai": re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)"),
}
_SPACED = {"script": re.compile(r"[/#]"), "fastai": re.compile(r"[/#\\]")}
_SHOUTED = {"script": re.compile(r"\w{3,}"), "fastai": re.compile(r"(?<!\S)[A-Z]+[^a-z\s]*(?!\S)")}
_CAPITAL = re.compile(r"(?<!\S)[A-Z][^A-Z\s]+(?!\S)")


class Marked(NamedTuple):
    """A text with marks, in lower case, and for each of its characters where in the source it begins and ends."""

    text: str
    starts: list[int]
    ends: list[int]


def names(rules: str) -> tuple[str, ...]:
    """The marks, each a word of its own between blanks."""
    return tuple(filter(None, _NAMES[rules]))


def opened(fields: Sequence[str], rules: str) -> str:
    """One text of one or several fields, its beginning and theirs marked, and remains of HTML mended."""
    *_, begin, field = _NAMES[rules]
    single = rules == "fastai" and len(fields) == 1
    text = " ".join(part if single else f"{field} {number} {part}" for number, part in enumerate(fields, 1))
    for old, new in (*_REMAINS, *_MORE[rules]):
        text = text.replace(old, new)
    return f"{begin} " + _BLANKS.sub(" ", html.unescape(text))


def marked(text: str, rules: str) -> Marked:
    """A text with its marks.

    "script": a character four times or more is `tk_rep`, the number and the character; a word four times or more, with
    what is between them, is `tk_wrep`, the number and the word; a word of three letters or more in upper case has
    `t_up` before it. "fastai": three times or more; `xxup` before upper case of two characters or more between blanks,
    `xxmaj` before a word with a capital letter at its beginning alone. Both set slashes and hashes apart.
    """
    up, capital, run, words = _NAMES[rules][:4]
    released = rules == "script"

    def repeated(match: re.Match[str]) -> str:
        count = len(match[2].split()) + (1 if released else 2)
        return f" {words} {count} {match[1]} {'' if released else match[3]}"

    def shouted(match: re.Match[str]) -> str:
        word = match[0]
        if released:
            return f" {up} {word.lower()}" if word.isupper() else word
        return f"{up} {word.lower()}" if len(word) > 1 else word

    found = Marked(text, list(range(len(text))), list(range(1, len(text) + 1)))
    found = _replace(found, _RUN[rules], lambda match: f" {run} {len(match[0])} {match[1]} ")
    found = _replace(found, _WORDS[rules], repeated)
    found = _replace(found, _SPACED[rules], lambda match: f" {match[0]} ")
    found = _replace(found, _SHOUTED[rules], shouted)
    if capital:
        found = _replace(found, _CAPITAL, lambda match: f"{capital} {match[0].lower()}")
    found = _replace(found, _BLANKS, lambda match: " ")
    lower = found.text.lower()
    if len(lower) != len(found.text):  # of a few letters the lower case is two
        lower = "".join(char.lower() if len(char.lower()) == 1 else char for char in found.text)
    return found._replace(text=lower)


def _replace(found: Marked, pattern: re.Pattern[str], made: Callable[[re.Match[str]], str]) -> Marked:
    """Every match replaced by what is made of it, whose characters all come from the whole of the match."""
    texts, starts, ends, at = [], [], [], 0
    for match in pattern.finditer(found.text):
        first, last = match.span()
        new = made(match)
        texts += [found.text[at:first], new]
        starts += [*found.starts[at:first], *[found.starts[first]] * len(new)]
        ends += [*found.ends[at:first], *[found.ends[last - 1]] * len(new)]
        at = last
    if not texts:
        return found
    return Marked("".join([*texts, found.text[at:]]), [*starts, *found.starts[at:]], [*ends, *found.ends[at:]])
