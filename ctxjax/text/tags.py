"""Tags of words that say where spans are: the schemes, from one to another, the spans, what may follow what, and F1.

A tag is "O" or a mark, "-" and a kind, as in "B-PER". The schemes:

    IOB1   I in a span; B only for the first word of a span right behind another of its kind (CoNLL-2003)
    BIO    B for the first word of every span, I for the others (IOB2; CoNLL-2000)
    BIOES  B, I and E for the first, inner and last words, S for a span of one word (IOBES)

Reference: Ramshaw and Marcus 1995, "Text Chunking using Transformation-Based Learning"; Tjong Kim Sang and Veenstra
1999, "Representing Text Chunks"; Ratinov and Roth 2009, "Design Challenges and Misconceptions in Named Entity
Recognition"; conlleval of the CoNLL shared tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from ctxjax.config import ConfigError

SCHEMES = {"IOB1": "IB", "BIO": "BI", "BIOES": "BIES"}
OUTSIDE = "O"
Span = tuple[str, int, int]  # kind, first word, one behind the last


class Broken(ConfigError):
    """Tags that are not of their scheme; `place` is the number of the word."""

    def __init__(self, message: str, place: int):
        super().__init__(message)
        self.place = place


@functools.cache
def cut(tag: str) -> tuple[str, str]:
    """Mark and kind of a tag; "O" has no kind."""
    mark, _, kind = tag.partition("-")
    return mark, kind


@functools.cache
def follows(scheme: str, before: str | None, tag: str | None) -> bool:
    """Whether a tag may stand behind another; None is the beginning or the end of a sentence."""
    (mark, kind), (next_mark, next_kind) = cut(before or OUTSIDE), cut(tag or OUTSIDE)
    same = kind == next_kind
    if scheme == "IOB1":
        return next_mark != "B" or (mark in ("B", "I") and same)
    if scheme == "BIO":
        return next_mark != "I" or (mark in ("B", "I") and same)
    if mark in ("B", "I"):
        return next_mark in ("I", "E") and same
    return next_mark in ("O", "B", "S")


def allowed(
    tags: Sequence[str], scheme: str
) -> tuple[Bool[np.ndarray, "N N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Which tag may follow which (`[from to]`), which may begin and which may end a sentence."""
    within = np.array([[follows(scheme, one, two) for two in tags] for one in tags], bool)
    start = np.array([follows(scheme, None, tag) for tag in tags], bool)
    return within, start, np.array([follows(scheme, tag, None) for tag in tags], bool)


def spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The spans that tags say.

    Raises:
      Broken: a tag of another scheme, or one that may not stand where it stands.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"the tag scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
    found: list[Span] = []
    first = 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, kind = cut(tag)
        if tag != OUTSIDE and not (mark in SCHEMES[scheme] and len(mark) == 1 and kind):
            raise Broken(f"{tag!r} is not a tag of {scheme}", place)
        before = tags[place - 1] if place else None
        if not follows(scheme, before, tag if place < len(tags) else None):
            where = f"after {before!r}" if place else "at the beginning of a sentence"
            what = f"{tag!r} does not stand" if place < len(tags) else "no sentence ends"
            raise Broken(f"{what} {where} in {scheme}", min(place, len(tags) - 1))
        if place and _ends(scheme, tags[place - 1], tag):
            found.append((cut(tags[place - 1])[1], first, place))
        if not place or tags[place - 1] == OUTSIDE or _ends(scheme, tags[place - 1], tag):
            first = place
    return found


def _ends(scheme: str, before: str, tag: str) -> bool:
    """Whether a span ends between two tags."""
    (mark, kind), (next_mark, next_kind) = cut(before), cut(tag)
    if mark == OUTSIDE:
        return False
    if scheme == "BIOES":
        return mark in ("E", "S")
    return next_mark in ("O", "B") or kind != next_kind


def known_tags(kinds: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Every tag of some kinds of span, "O" first, then kind by kind."""
    return (OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in SCHEMES[scheme]))


def tags_of(found: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Tags of `length` words with these spans, which do not overlap."""
    made = [OUTSIDE] * length
    ends: dict[int, str] = {}
    for kind, first, last in sorted(found, key=lambda span: span[1]):
        marks = ["I"] * (last - first)
        if scheme == "IOB1":
            marks[0] = "B" if ends.get(first) == kind else "I"
        else:
            marks[0] = "B"
        if scheme == "BIOES":
            marks[-1] = "E" if len(marks) > 1 else "S"
        made[first:last] = [f"{mark}-{kind}" for mark in marks]
        ends[last] = kind
    return made


def convert(tags: Sequence[str], source: str, target: str) -> list[str]:
    """The same spans in another scheme; raises `Broken` as `spans` does."""
    return tags_of(spans(tags, source), len(tags), target)


def read_spans(tags: Sequence[str]) -> list[Span]:
    """The spans of any tags, broken ones too, as conlleval reads them: a change of kind begins a span, as B and S do,
    and E and S end one."""
    found: list[Span] = []
    first, open_kind, last_mark = 0, "", OUTSIDE
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, kind = cut(tag)
        new = mark != OUTSIDE and (mark in ("B", "S") or kind != open_kind or last_mark in ("O", "E", "S"))
        if open_kind and (mark == OUTSIDE or new):
            found.append((open_kind, first, place))
        if new:
            first = place
        open_kind, last_mark = ("" if mark == OUTSIDE else kind), mark
    return found


class Counts(NamedTuple):
    """Spans that were told, that there are, and that are both."""

    told: int
    there: int
    both: int

    @property
    def precision(self) -> float:
        return self.both / self.told if self.told else 0.0

    @property
    def recall(self) -> float:
        return self.both / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.both / (self.told + self.there) if self.told + self.there else 0.0


def compare(told: Iterable[Sequence[str]], there: Iterable[Sequence[str]]) -> dict[str, Counts]:
    """Spans with the right kind and both ends, by kind, and under "" all of them: conlleval's counts.

    Args:
      told: tags of every sentence by a model, broken ones perhaps.
      there: tags of the same sentences as they should be.
    """
    sums: dict[str, list[int]] = {"": [0, 0, 0]}
    for ours, theirs in zip(told, there, strict=True):
        one, two = set(read_spans(ours)), set(read_spans(theirs))
        for column, some in enumerate((one, two, one & two)):
            for kind, _, _ in some:
                sums[""][column] += 1
                sums.setdefault(kind, [0, 0, 0])[column] += 1
    return {kind: Counts(*row) for kind, row in sums.items()}
