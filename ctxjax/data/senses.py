"""Words tagged with their senses: SemCor and the all-words tasks of Senseval, as JSON lines.

A record is a sentence, `{"doc", "sent", "tokens": [[word, lemma, part of speech, [[inventory, value], ...]], ...]}`.
The values of a word with a sense are a sense number, sense keys without their lemma (`1:09:00::`; several between `;`
where several are right), and perhaps a synset of WordNet 3.0 (`eng30-05638987-n`), by which two versions meet.

Reference: Miller et al. 1993, "A Semantic Concordance"; Palmer et al. 2001, "English Tasks: All-Words and Verb Lexical
Sample"; Snyder and Palmer 2004, "The English All-Words Task".
"""

from __future__ import annotations

import gzip
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ctxjax.config import ConfigError
from ctxjax.data.tagging import Sentence

PARTS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}  # of speech, by the first number of a sense key
CONCEPTS = "eng30-"  # synsets of WordNet 3.0


class Instance(NamedTuple):
    """A word, or several as one, in one of its senses.

    Attributes:
      first, last: its words in the sentence; `last` is one behind.
      lemma, part: what a dictionary has it under.
      keys: the senses that are right, without the lemma; none where no sense fits.
      synsets: the same as synsets of WordNet 3.0, where the file has them.
    """

    first: int
    last: int
    lemma: str
    part: str
    keys: tuple[str, ...]
    synsets: tuple[str, ...]


class SenseSentence(NamedTuple):
    """Words, with those that are one unit apart, and the instances among them; line and document as of `Sentence`."""

    words: tuple[str, ...]
    instances: tuple[Instance, ...]
    line: int
    document: int


def read_senses(path: str | os.PathLike[str]) -> Iterator[SenseSentence]:
    """The sentences of a file (`.gz` too).

    Raises:
      ConfigError: naming file and line, where it is not of this layout.
    """
    path = pathlib.Path(path)
    documents: dict[Any, int] = {}
    count = 0
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                    document = documents.setdefault(record.get("doc"), len(documents))
                    words, instances = _sentence(record["tokens"])
                except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                    wanted = "expected JSON with tokens of [word, lemma, tag, senses]"
                    raise ConfigError(f"{path}, line {number}: {wanted}") from None
                if words:
                    yield SenseSentence(tuple(words), tuple(instances), number, document)
                    count += 1
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    if not count:
        raise ConfigError(f"{path} has no sentence")


def _sentence(tokens: list[Any]) -> tuple[list[str], list[Instance]]:
    words: list[str] = []
    instances: list[Instance] = []
    for word, lemma, _, senses in tokens:
        first = len(words)
        words += [part for part in str(word).split("_") if part] or [str(word)]
        if not senses:
            continue
        values = [str(value) for _, value in senses]
        keys = tuple(key for value in values for key in value.split(";") if key.count(":") == 4)
        synsets = tuple(key for value in values for key in value.split(";") if key.startswith(CONCEPTS))
        part = PARTS.get(keys[0][0], "") if keys else ""
        instances.append(Instance(first, len(words), str(lemma).lower(), part, keys, synsets))
    return words, instances


def read_supersenses(path: str | os.PathLike[str]) -> Iterator[Sentence]:
    """The sentences of a file, each single word's tag being the lexicographer file of its sense, "" where it has none.

    WordNet's 45 files are coarse senses: 03 has all nouns of the top, 38 the verbs of motion.
    """
    for one in read_senses(path):
        tags = [""] * len(one.words)
        for found in one.instances:
            if found.last == found.first + 1 and found.keys:
                tags[found.first] = f"{found.part}.{found.keys[0].split(':')[1]}"
        yield Sentence(one.words, tuple(tags), one.line, one.document)
