"""Sentences of running text by rule: deterministic, linear in the length of the text, with offsets.

A full stop ends a sentence unless it belongs to a title, an abbreviation, an initial, a number or an ellipsis that the
next word carries on; question and exclamation marks end one unless the next word is in lower case. East Asian stops
need no blank behind them. A blank line always ends a sentence, a single line break does where the text is not wrapped.
"""

from __future__ import annotations

import itertools
import re

# Never the last word of a sentence: a name or an explanation follows.
_TITLES = frozenset(
    "mr mrs ms mx messrs mme mlle dr prof rev fr hon gen col lt capt cpt cmdr adm maj sgt cpl pvt gov sen rep pres "
    "supt ste mt vs viz cf eg ie e.g i.e".split()
)
# Part of the number that follows: No. 5, Fig. 3, Vol. II, Jan. 6. Before anything else a word like others.
_NUMBERED = frozenset(
    "no nos nr vol vols fig figs p pp ch chap chaps sec sect art eq eqs par para ed ver op bk pt ex ca approx c "
    "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
# May end a sentence: does so before a word that usually begins one.
_MAYBE = frozenset(
    "jr sr st ft esq inc ltd co corp llc plc bros etc al univ dept est assn ave blvd rd a.m p.m ph.d approx esp incl "
    "resp ca jan feb apr aug sept oct nov dec vol pp figs tues thurs ariz calif colo conn fla minn okla penn tenn tex "
    "hrs yrs lbs misc var subsp spp".split()
)
_STARTERS = frozenset(
    "The A An In On At He She It They We I You This That These Those There Here But And Or However If When While After "
    "Before As For From With His Her Its Their My Our Your What Who Where Why How Although Because Since So Then Thus "
    "To By Not No Yes Some Many Most All Both Each Every One Two Three Such Another Other Only Also Even Later During "
    "Under Until Among Between According Despite Now Once Several".split()
)
_STOPS = ".!?\u2026\u0589\u061f\u06d4\u0964\u0965\u1362\u1367"
_EAST = "\u3002\uff01\uff1f\uff61\uff0e"
_EAST_CLOSERS = "\u300d\u300f\uff09\u3011\u300b\u3009\u3015"
_CLOSERS = f"\"')\\]}}\u201d\u2019\u00bb\u203a{_EAST_CLOSERS}"
_OPENERS = "\"'([{\u201c\u2018\u00ab\u2039\u00bf\u00a1*_-\u2013\u2014"

# One leading class, which the engine searches for quickly; every match takes the whole run and none fails after it, so
# no character is looked at twice. `far`: a blank or the end of the text follows.
_CANDIDATE = re.compile(
    rf"[{_STOPS}{_EAST}\n]"
    rf"(?:(?<=\n)\s*+|(?<!\n)[{_STOPS}{_EAST}]*+(?P<close>[{_CLOSERS}]{{0,6}}+)(?:\[[\w, ]{{1,8}}\]){{0,6}}+"
    r"(?P<far>(?=\s|\Z))?)"
)
_EASTERN = frozenset(_EAST)
_QUOTED_ON = frozenset("とってがはのをにもで、，")  # Japanese goes on behind a quotation: 「そうだ。」と言った。
_BLANK = re.compile(r"\s*+")
_NEXT = re.compile(rf"\s*+(?P<open>[{re.escape(_OPENERS)}]{{0,4}}+)\s?(?P<word>\w{{0,24}}+)")
_GLUED = re.compile(r"[(\[{\"\u201c\u2018\u2014/]")  # a word begins behind any of these
_NUMERAL = re.compile(r"\d|[IVXLC]+\Z")
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]\Z")
_SAID = re.compile(r"\s*+(?:[A-Z]\w{0,20}+\.?\s){1,3}(?:said|asked|cried|replied|answered|exclaimed|shouted|added)\b")
_WINDOW = 48  # characters looked at on either side of a stop
_WRAP = (40, 100)  # lines of wrapped text are about as long as these


def split_sentences(text: str, wrapped: bool | None = None) -> list[tuple[int, int]]:
    """Start and end of every sentence, blanks round it left out; together they hold everything but whitespace.

    Args:
      text: any text.
      wrapped: whether a single line break is mere layout; None looks at the lengths of the lines.
    """
    if wrapped is None:
        wrapped = is_wrapped(text)
    spans: list[tuple[int, int]] = []
    start = _end(_BLANK, text, 0)
    for match in _CANDIDATE.finditer(text):
        close, stop = match["close"], match.end()
        if close is None:  # line breaks
            if wrapped and match.group().count("\n") == 1:
                continue
            stop = match.start()
        elif match["far"] is None:
            if _EASTERN.isdisjoint(match.group()) or (close and text[stop] in _QUOTED_ON):
                continue
        elif not _ends(text, start, match):
            continue
        while stop > start and text[stop - 1].isspace():
            stop -= 1
        if stop > start:
            spans.append((start, stop))
        start = _end(_BLANK, text, match.end())
    stop = len(text)
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    if stop > start:
        spans.append((start, stop))
    return spans


def is_wrapped(text: str) -> bool:
    """Whether line breaks are mere layout: most lines that another follows are about as long as a page is wide."""
    if "\n" not in text:
        return False
    lines = [len(line.rstrip()) for line in text.split("\n")]
    followed = [length for length, after in itertools.pairwise(lines) if length and after]
    inside = sum(_WRAP[0] <= length <= _WRAP[1] for length in followed)
    return len(followed) >= 2 and inside * 5 >= len(followed) * 4


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _last_word(text: str, start: int, stop: int) -> str:
    words = text[start:stop].split()
    return _GLUED.split(words[-1])[-1] if words and not text[stop - 1].isspace() else ""


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a Western stop ends the sentence that began at `start`."""
    at, end = match.start(), match.end()
    stop = text[at : end if not match["close"] else match.start("close")]
    following = _NEXT.match(text, end)
    word = following["word"] if following else ""
    opened = following["open"] if following else ""
    if not word and not opened:
        return True  # nothing, or a symbol, comes next
    if word[:1].islower():
        return False
    if not _EASTERN.isdisjoint(stop):
        return True
    if stop != ".":
        if stop.startswith("..") or stop == "\u2026":
            return True
        return not (match["close"] and _SAID.match(text, end))
    before = _last_word(text, max(start, at - _WINDOW), at)
    name = before.lower()
    starter = word in _STARTERS
    if match["close"]:
        return name not in _TITLES or starter
    if name in _TITLES:
        return False
    if name in _NUMBERED and _NUMERAL.match(word):
        return False
    if before.isdigit() or len(before) == 1:  # a list's number or letter, an initial
        if text[start:at].strip("(") == before:
            return False
        if before.isalpha() and before.isupper():
            return starter and (before != "I" or word != "I")
        return True
    if name in _MAYBE or ("." in before and _ACRONYM.search(before)):
        return starter or (bool(opened) and not opened.startswith(("(", "[", "-", "\u2013", "\u2014")))
    return True
