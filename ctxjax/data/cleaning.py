"""Raw bytes to usable text: what is repaired or left out is counted, by reason.

Nothing here raises on bad text. Reasons are the keys of the manifest's `dropped` and `repaired`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, MutableMapping

from ctxjax.data import filters

Counts = MutableMapping[str, int]

# What was left out.
EMPTY_FILES = "empty files"
EMPTY_DOCUMENTS = "empty documents"
NO_TOKENS = "documents without a token"
BAD_JSON = "lines that are not JSON objects"
NO_FIELD = "JSON objects without the field"
NOT_TEXT = "JSON fields that are not text"
LONG_LINES = "lines over the limit"
EMPTY_PAIRS = "pairs with an empty side"
LONG_PAIRS = "pairs with a side of too many tokens"
EQUAL = "duplicate documents"
NEAR = "near-duplicate documents"
DROPPED = (EMPTY_FILES, EMPTY_DOCUMENTS, NO_TOKENS, BAD_JSON, NO_FIELD, NOT_TEXT, LONG_LINES, EMPTY_PAIRS, LONG_PAIRS)
DROPPED += (*filters.REASONS, EQUAL, NEAR)
# What was changed and kept.
NULS = "NUL characters removed"
CONTROLS = "control characters removed"
BOMS = "byte order marks removed"
BREAKS = "separator characters read as line breaks"
BAD_UTF8 = "invalid UTF-8 sequences replaced"
SURROGATES = "lone surrogates replaced"
LONG_WORDS = "words over the limit"
CUT_SENTENCES = "cuts in long sentences"
CUT_DOCUMENTS = "cuts in long documents"
DUPLICATES = "duplicate documents kept"
REPAIRED = (NULS, CONTROLS, BOMS, BREAKS, BAD_UTF8, SURROGATES, LONG_WORDS, CUT_SENTENCES, CUT_DOCUMENTS, DUPLICATES)

_SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_SUSPECT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
_BLANK_LINE = re.compile(r"\n\s*\n")


def add(counts: Counts, reason: str, number: int = 1) -> None:
    """Count something, where there is something."""
    if number:
        counts[reason] = counts.get(reason, 0) + number


def decode(data: bytes, counts: Counts) -> str:
    """UTF-8 to text; a sequence that is not UTF-8 becomes U+FFFD and is counted."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        add(counts, BAD_UTF8, text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
        return text


def clean(text: str, counts: Counts) -> str:
    """Line breaks as `\\n`; no control characters, byte order marks or lone surrogates; no blanks at the ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _SUSPECT.search(text):
        text = _SUSPECT.sub(lambda match: _repair(match.group(), counts), text)
    return text.strip()


def _repair(char: str, counts: Counts) -> str:
    if char in _SEPARATORS:
        add(counts, BREAKS)
        return "\n"
    if "\ud800" <= char <= "\udfff":
        add(counts, SURROGATES)
        return "\ufffd"
    add(counts, NULS if char == "\x00" else BOMS if char == "\ufeff" else CONTROLS)
    return ""


def json_documents(data: bytes, field: str, counts: Counts, seen: set[str]) -> Iterator[str]:
    """The field of every JSON line; a list of texts is joined by line breaks.

    Args:
      data: whole lines.
      field: name of the field that holds the text.
      counts: lines that are of no use are counted here.
      seen: the names of all fields met, added to, for a helpful message.
    """
    for line in decode(data, counts).split("\n"):
        line = line.strip(" \t\r\ufeff")
        if not line:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            add(counts, BAD_JSON)
            continue
        if not isinstance(record, dict):
            add(counts, BAD_JSON)
            continue
        if field not in record:
            add(counts, NO_FIELD)
            if len(seen) < 50:
                seen.update(record)
            continue
        value = record[field]
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, str):
            yield value
        else:
            add(counts, NOT_TEXT)


def line_documents(text: str) -> Iterator[list[str]]:
    """Documents of clean text with one sentence a line and blank lines between documents."""
    for block in _BLANK_LINE.split(text):
        lines = [line for line in map(str.strip, block.split("\n")) if line]
        if lines:
            yield lines


def parts(text: str, limit: int, counts: Counts) -> Iterator[str]:
    """A document in parts of at most `limit` characters, cut at a blank line, else a line, else a blank."""
    while len(text) > limit:
        for mark in ("\n\n", "\n", " "):
            at = text.rfind(mark, limit // 2, limit)
            if at >= 0:
                break
        else:
            at = limit
        yield text[:at].rstrip()
        text = text[at:].lstrip()
        add(counts, CUT_DOCUMENTS)
    if text:
        yield text
