"""Documents of the CoNLL-2012 shared task: predicates with their arguments, and mentions of the same entity.

A line of a `_conll` file is a word: document, part, number, word, part of speech, parse, lemma of a predicate, its
frame, sense, speaker, name, one column for each predicate of the sentence, and coreference.

Reference: Pradhan et al. 2012, "CoNLL-2012 Shared Task: Modeling Multilingual Unrestricted Coreference in OntoNotes".
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ctxjax.config import ConfigError
from ctxjax.text.tags import Span, tags_of

PREDICATE = "V"
_BEGIN = re.compile(r"#begin document \((.*)\); part ([0-9]+)\s*")
_ARGUMENT = re.compile(r"(?:\(([^()*\s]+))?\*(\))?")
_MENTION = re.compile(r"(\()?([0-9]+)(\))?")
_WORD, _POS, _SPEAKER, _ARGUMENTS = 3, 4, 9, 11  # columns

Mention = tuple[int, int]  # first word of the document, one behind the last


class Frame(NamedTuple):
    """A predicate: its first word, and the tags of all words in BIO, the predicate's own being "V"."""

    predicate: int
    tags: tuple[str, ...]


class Sentence(NamedTuple):
    """Words with their parts of speech and speakers, the frames of its predicates, and where it begins in its file."""

    words: tuple[str, ...]
    pos: tuple[str, ...]
    speakers: tuple[str, ...]
    frames: tuple[Frame, ...]
    line: int


class Document(NamedTuple):
    """A part of a document; `clusters` are mentions of one entity each, by the words of all sentences in a row."""

    name: str
    part: int
    sentences: tuple[Sentence, ...]
    clusters: tuple[tuple[Mention, ...], ...]
    file: pathlib.Path

    @property
    def words(self) -> list[str]:
        """The words of all sentences."""
        return [word for sentence in self.sentences for word in sentence.words]


def files(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """A file, or all files of a folder and those in it whose names end in `_conll`, in order.

    Raises:
      ConfigError: there is none.
    """
    place = pathlib.Path(path)
    found = [place] if place.is_file() else sorted(place.rglob("*_conll"))
    if not found:
        raise ConfigError(f"{place} is no file, and no folder with files *_conll")
    return found


def read(path: str | os.PathLike[str]) -> Iterator[Document]:
    """The documents of a file, or of all files of a folder.

    Raises:
      ConfigError: naming file and line, where one is not of this layout or brackets do not close.
    """
    for file in files(path):
        yield from _documents(file)


class _Broken(Exception):
    """What is wrong, and `line`, if it is not the last one read."""

    def __init__(self, message: str, line: int = 0):
        super().__init__(message)
        self.line = line


def _documents(path: pathlib.Path) -> Iterator[Document]:
    number, begun, rows, sentences = 0, None, [], []
    mentions = _Mentions()
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text.startswith("#begin document"):
                    begun = _BEGIN.fullmatch(text)
                    if begun is None or rows or sentences:
                        raise _Broken("a document that does not begin with '#begin document (NAME); part N'")
                    continue
                if text and not text.startswith("#end document"):
                    if begun is None:
                        raise _Broken("a line outside of a document")
                    rows.append(text.split())
                    mentions.add(rows[-1][-1], number)
                    continue
                if rows:
                    sentences.append(_sentence(rows, number - len(rows)))
                    rows = []
                if text and begun is not None:
                    yield Document(begun[1], int(begun[2]), tuple(sentences), mentions.clusters(), path)
                    begun, sentences, mentions = None, [], _Mentions()
            if begun is not None:
                raise _Broken("the file ends within a document")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, behind line {number}: not UTF-8 ({error.reason})") from None
    except _Broken as error:
        raise ConfigError(f"{path}, line {error.line or number}: {error}") from None


def _sentence(rows: Sequence[Sequence[str]], line: int) -> Sentence:
    columns = len(rows[0])
    for place, row in enumerate(rows):
        if len(row) != columns or columns <= _ARGUMENTS:
            raise _Broken(f"{len(row)} columns, where a word has {max(columns, _ARGUMENTS + 1)}", line + place)
    frames = [_frame([row[column] for row in rows], column, line) for column in range(_ARGUMENTS, columns - 1)]
    words, pos, speakers = (tuple(row[column] for row in rows) for column in (_WORD, _POS, _SPEAKER))
    return Sentence(words, pos, speakers, tuple(sorted(frames)), line)


def _frame(brackets: Sequence[str], column: int, line: int) -> Frame:
    """The spans of one column such as `(ARG0*`, `*`, `*)`, `(V*)`."""
    spans: list[Span] = []
    kind, first = "", 0
    for place, text in enumerate(brackets):
        match = _ARGUMENT.fullmatch(text)
        if match is None or (match[1] and kind) or (match[2] and not (match[1] or kind)):
            raise _Broken(f"the bracket {text!r} of column {column} does not stand here", line + place)
        if match[1]:
            kind, first = match[1], place
        if match[2]:
            spans.append((kind, first, place + 1))
            kind = ""
    if kind:
        raise _Broken(f"the bracket of {kind!r} in column {column} does not close", line + first)
    told = [first for kind, first, _ in spans if kind == PREDICATE]
    if not told:
        raise _Broken(f"column {column} has no predicate (V*)", line)
    return Frame(told[0], tuple(tags_of(spans, len(brackets), "BIO")))


class _Mentions:
    """The mentions of a document, from the last column: `(12`, `12)`, `(12)`, several between `|`, or `-`."""

    def __init__(self) -> None:
        self.words = 0
        self.open: dict[str, list[tuple[int, int]]] = {}
        self.found: dict[str, list[Mention]] = {}

    def add(self, text: str, line: int) -> None:
        """The column of the next word."""
        for part in text.split("|") if text != "-" else ():
            match = _MENTION.fullmatch(part)
            if match is None or not (match[1] or match[3]):
                raise _Broken(f"{text!r} is no column of coreference", line)
            if match[1]:
                self.open.setdefault(match[2], []).append((self.words, line))
            if match[3]:
                if not self.open.get(match[2]):
                    raise _Broken(f"the mention of {match[2]} ends, and none has begun", line)
                self.found.setdefault(match[2], []).append((self.open[match[2]].pop()[0], self.words + 1))
        self.words += 1

    def clusters(self) -> tuple[tuple[Mention, ...], ...]:
        """Every entity's mentions, both in their order."""
        for name, left in self.open.items():
            if left:
                raise _Broken(f"the mention of {name} does not end", left[-1][1])
        return tuple(sorted(tuple(sorted(set(mentions))) for mentions in self.found.values()))
