"""Tagged sentences from files: CoNLL's columns and Universal Dependencies' CoNLL-U, and the three files of a task.

Reference: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task"; Nivre et al. 2020,
"Universal Dependencies v2".
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ctxjax.config import ConfigError
from ctxjax.data.shuffled import Place
from ctxjax.text import tags as schemes

DOCUMENT = "-DOCSTART-"
_PART = re.compile(r"(.+)\[([0-9]*)(%?):([0-9]*)(%?)\]")
CONLLU_COLUMNS = 10
_WORD_ID, _RANGE, _EMPTY = re.compile(r"[0-9]+"), re.compile(r"[0-9]+-[0-9]+"), re.compile(r"[0-9]+\.[0-9]+")


class Sentence(NamedTuple):
    """Words and their tags, the line of the file where they begin, and the number of their document."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int
    document: int = 0


def read_sentences(path: str | os.PathLike[str], scheme: str = "", word: int = 0, tag: int = -1) -> Iterator[Sentence]:
    """The sentences of a file, by its ending: CoNLL-U (.conllu), senses (.jsonl, .jsonl.gz), or else columns."""
    suffixes = pathlib.Path(path).suffixes
    if ".jsonl" in suffixes:
        from ctxjax.data.senses import read_supersenses

        return read_supersenses(path)
    return (read_conllu if ".conllu" in suffixes else read_columns)(path, scheme, word, tag)


def read_columns(path: str | os.PathLike[str], scheme: str = "", word: int = 0, tag: int = -1) -> Iterator[Sentence]:
    """The sentences of a file of columns; a line of `-DOCSTART-` begins a document, and is no sentence.

    Args:
      path: UTF-8, columns between blanks, blank lines between sentences.
      scheme: a key of `ctxjax.text.tags.SCHEMES`, to which the tags must keep; "" for tags that say no spans.
      word, tag: the columns.

    Raises:
      ConfigError: naming file and line, where bytes are not UTF-8, a column is missing or a tag breaks the scheme.
    """
    path = pathlib.Path(path)
    words: list[str] = []
    tags: list[str] = []
    columns = first = document = 0
    begun = False  # whether this document has a sentence
    for number, line in _lines(path):
        fields = line.split()
        if not fields or fields[0] == DOCUMENT:
            if words:
                yield _checked(path, Sentence(tuple(words), tuple(tags), first, document), scheme)
                words, tags, begun = [], [], True
            if fields and begun:
                document, begun = document + 1, False
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
        yield _checked(path, Sentence(tuple(words), tuple(tags), first, document), scheme)
    if not columns:
        raise ConfigError(f"{path} has no sentence")


def read_conllu(path: str | os.PathLike[str], scheme: str = "", word: int = 1, tag: int = 3) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file by their syntactic words.

    What stands on a line of a range (`3-4`, several words written as one) or of an empty node (`8.1`) is no word.

    Args:
      path: UTF-8, ten columns between tabs.
      scheme: as of `read_columns`; "" for parts of speech.
      word, tag: the columns: 1 is the form, 3 the universal part of speech, 4 the language's own.

    Raises:
      ConfigError: naming file and line, where a line is not of this layout, or the words are not numbered 1, 2, 3, ...
    """
    path = pathlib.Path(path)
    if not (0 <= word < CONLLU_COLUMNS and 0 <= tag < CONLLU_COLUMNS and word != tag):
        raise ConfigError(f"{path}: a CoNLL-U file has no word in column {word} beside a tag in {tag}: set 1 and 3")
    words: list[str] = []
    tags: list[str] = []
    first = document = count = 0
    for number, line in _lines(path):
        if not line.strip() or line.startswith("#"):
            if words and not line.strip():
                yield _checked(path, Sentence(tuple(words), tuple(tags), first, document), scheme)
                words, tags, count = [], [], count + 1
            if line.startswith("# newdoc") and count:
                document += 1
            continue
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != CONLLU_COLUMNS:
            raise ConfigError(f"{path}, line {number}: {len(fields)} columns between tabs where CoNLL-U has 10")
        if _RANGE.fullmatch(fields[0]) or _EMPTY.fullmatch(fields[0]):
            continue
        if not _WORD_ID.fullmatch(fields[0]) or int(fields[0]) != len(words) + 1:
            raise ConfigError(f"{path}, line {number}: the number of the word is {fields[0]!r}, not {len(words) + 1}")
        if not words:
            first = number
        words.append(fields[word])
        tags.append(fields[tag])
    if words:
        yield _checked(path, Sentence(tuple(words), tuple(tags), first, document), scheme)
        count += 1
    if not count:
        raise ConfigError(f"{path} has no sentence")


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    try:
        file = open(path, "rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    with file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path}, line {number}: not UTF-8 ({error.reason})") from None


def _checked(path: pathlib.Path, sentence: Sentence, scheme: str) -> Sentence:
    if scheme:
        try:
            schemes.spans(sentence.tags, scheme)
        except schemes.Broken as error:
            raise ConfigError(f"{path}, line {sentence.line + error.place}: {error}") from None
    return sentence


class TaggedFiles:
    """The three files of a task, the scheme of their tags, and the tags there are.

    Args:
      corpus: the folder with the files.
      split: "train", "heldout" or "test".
      files: the name of each split's file; a part of its sentences is "all.txt[:80%]", "all.txt[80%:]", "some[:500]".
      read, scheme: that of the files and that of the targets, of "IOB1", "BIO" and "BIOES"; both "" for tags that say
        no spans, as of parts of speech. A file whose tags break its scheme is read as "any": as conlleval reads tags.
      word, tag: columns.

    Raises:
      ConfigError: no such file, or an impossible field.
    """

    def __init__(
        self, corpus: str | os.PathLike[str], split: str, files: Mapping[str, str], read: str, scheme: str, word: int,
        tag: int,
    ):  # fmt: skip
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with files of tagged words")
        self._files = dict(files)
        if split not in self._files:
            raise ConfigError(f"config.source.split={split!r} is not one of {', '.join(self._files)}")
        self.parts = {name: file for name, file in self._files.items() if _PART.fullmatch(file)}
        for field, name in (("read", read), ("scheme", scheme)):
            free = ("", "any") if field == "read" else ("",)
            if name not in (*free, *schemes.SCHEMES) or bool(read) != bool(scheme):
                known = ", ".join(schemes.SCHEMES)
                raise ConfigError(f"config.source.{field}={name!r}: both are one of {known}, or '' (read='any', too)")
        self.corpus, self.split = Place(pathlib.Path(corpus)), split
        self.read, self.scheme, self.word, self.tag = read, scheme, word, tag
        for name in {"train", split}:
            if not self.file(name).is_file():
                raise ConfigError(f"config.source.{name}: there is no file {self.file(name)}")

    def file(self, split: str) -> pathlib.Path:
        """Where a split lies."""
        found = _PART.fullmatch(self._files[split])
        return self.corpus.folder / (found[1] if found else self._files[split])

    def sentences_of(self, split: str) -> Iterator[Sentence]:
        """The sentences of a split, their tags in the scheme of the targets."""
        for one in self._read(split):
            if self.read == "any":
                found = schemes.tags_of(schemes.read_spans(one.tags), len(one.tags), self.scheme)
            else:
                found = schemes.convert(one.tags, self.read, self.scheme) if self.scheme else one.tags
            yield one._replace(tags=tuple(found))

    def _read(self, split: str) -> Iterator[Sentence] | list[Sentence]:
        every = read_sentences(self.file(split), "" if self.read == "any" else self.read, self.word, self.tag)
        match = _PART.fullmatch(self._files[split])
        if match is None:
            return every
        found = list(every)
        first, last = (
            default if not number else round(len(found) * int(number) / 100) if percent else int(number)
            for number, percent, default in ((match[2], match[3], 0), (match[4], match[5], len(found)))
        )
        if not found[first:last]:
            raise ConfigError(f"config.source.{split}={self._files[split]!r} has none of the {len(found)} sentences")
        return found[first:last]

    @functools.cached_property
    def sentences(self) -> list[Sentence]:
        """The sentences of this split in the order of its file."""
        return list(self.sentences_of(self.split))

    @functools.cached_property
    def training(self) -> list[Sentence]:
        """The sentences of the training split."""
        return self.sentences if self.split == "train" else list(self.sentences_of("train"))

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The tags by number: every tag that the scheme has for the kinds of the training split, "O" first."""
        found = {tag for one in self.training for tag in one.tags}
        if not self.scheme:
            return tuple(sorted(found - {""}))  # a word without a tag is not told
        return schemes.known_tags(sorted({schemes.cut(tag)[1] for tag in found} - {""}), self.scheme)

    def numbers_of(self, sentence: Sentence) -> list[int]:
        """The tags of a sentence of this split among `labels`."""
        for place, tag in enumerate(sentence.tags):
            if tag not in self._numbers:
                where = f"{self.file(self.split)}, line {sentence.line + place}"
                raise ConfigError(f"{where}: the tag {tag!r} is not in {self.file('train')}")
        return [self._numbers[tag] for tag in sentence.tags]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}
