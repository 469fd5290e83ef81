"""Tagged sentences from files with one word a line and blank lines between sentences, as in the CoNLL shared tasks.

Reference: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task".
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from ctxjax.config import ConfigError
from ctxjax.text import tags as schemes

DOCUMENT = "-DOCSTART-"


class Sentence(NamedTuple):
    """Words and their tags, and the line of the file where they begin."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


def read_columns(path: str | os.PathLike[str], scheme: str = "", word: int = 0, tag: int = -1) -> Iterator[Sentence]:
    """The sentences of a file; lines of `-DOCSTART-` stand for nothing.

    Args:
      path: UTF-8, columns between blanks.
      scheme: a key of `ctxjax.text.tags.SCHEMES`, to which the tags must keep; "" for tags that say no spans.
      word, tag: the columns.

    Raises:
      ConfigError: naming file and line, where bytes are not UTF-8, a column is missing or a tag breaks the scheme.
    """
    path = pathlib.Path(path)
    words: list[str] = []
    tags: list[str] = []
    columns = first = number = 0
    try:
        file = open(path, "rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    with file:
        for number, raw in enumerate(file, 1):
            try:
                fields = raw.decode("utf-8-sig" if number == 1 else "utf-8").split()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path}, line {number}: not UTF-8 ({error.reason})") from None
            if not fields or fields[0] == DOCUMENT:
                if words:
                    yield _checked(path, Sentence(tuple(words), tuple(tags), first), scheme)
                words, tags = [], []
                continue
            columns = columns or len(fields)
            if len(fields) != columns:
                raise ConfigError(f"{path}, line {number}: {len(fields)} columns where the lines above have {columns}")
            if not (-columns <= word < columns and -columns <= tag < columns and word % columns != tag % columns):
                raise ConfigError(f"{path}, line {number}: {columns} columns, no word in {word} beside a tag in {tag}")
            if not words:
                first = number
            words.append(fields[word])
            tags.append(fields[tag])
        if words:
            yield _checked(path, Sentence(tuple(words), tuple(tags), first), scheme)
        if not columns:
            raise ConfigError(f"{path} has no sentence")


def _checked(path: pathlib.Path, sentence: Sentence, scheme: str) -> Sentence:
    if scheme:
        try:
            schemes.spans(sentence.tags, scheme)
        except schemes.Broken as error:
            raise ConfigError(f"{path}, line {sentence.line + error.place}: {error}") from None
    return sentence
