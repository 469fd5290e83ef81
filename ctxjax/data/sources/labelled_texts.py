"""Rows for fastText's classifier: each a text as the rows of the table that it is the mean of, and its label.

Reference: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"; facebookresearch/fastText.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data.arrays import ArrayWriter, file_digest
from ctxjax.data.index import open_index
from ctxjax.data.shuffled import Place, Shuffled
from ctxjax.text.subwords import END, text_rows
from ctxjax.text.words import SPECIALS, Words

_VERSION = 1  # of the index; part of its key
MARK = "__label__"


class Source(Shuffled):
    """Labelled texts, shuffled anew in every pass.

    Row (L = `length`): inputs {tokens [L], mask [L]}, rows of the table (words, n-grams of characters and of words);
    targets [], the number of the label among `labels`; weights [].
    """

    rows_are = "texts"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 256,
        min_count: int = 1,
        buckets: int = 0,
        shortest: int = 0,
        longest: int = 0,
        word_ngrams: int = 1,
        widths: int = 1,
        together: int = 1,
    ):
        """Open the texts; words and labels are counted in the split "train" when they are first needed.

        Args:
          corpus: a folder with train.txt and heldout.txt, lines of fastText (`__label__NAME words`), or train.jsonl and
            heldout.jsonl, objects with `text` and `label`. Words stand between blanks.
          split: "train" or "heldout".
          length: rows of a text at most; what a longer one has behind is left out.
          min_count: a rarer word has no row.
          buckets: rows for n-grams; 0 for none.
          shortest, longest: characters of an n-gram; a longest of 0 is none.
          word_ngrams: words of an n-gram of words at most.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with train.txt and heldout.txt")
        if min(min_count, word_ngrams) < 1 or min(buckets, longest) < 0:
            raise ConfigError("config.source needs min_count and word_ngrams >= 1")
        if not buckets and (longest or word_ngrams > 1):
            raise ConfigError("config.source.buckets=0 has no rows for n-grams; set it, or longest=0 and word_ngrams=1")
        self.pad(length, widths, together)
        self.corpus, self.split, self.min_count = Place(pathlib.Path(corpus)), split, min_count
        self.buckets, self.shortest, self.longest, self.word_ngrams = buckets, shortest, longest, word_ngrams
        self._files = {name: self._file(name) for name in {"train", split}}

    def _file(self, split: str) -> pathlib.Path:
        for ending in ("jsonl", "txt"):
            if (path := self.corpus.folder / f"{split}.{ending}").is_file():
                return path
        raise ConfigError(f"config.source.corpus={os.fspath(self.corpus.folder)!r} has no {split}.txt or {split}.jsonl")

    @functools.cached_property
    def _vocabulary(self) -> tuple[Words, tuple[str, ...]]:
        key = {"index": "labels", "version": _VERSION, "texts": file_digest(self._files["train"])}
        build = functools.partial(_write_vocabulary, file=self._files["train"], min_count=self.min_count)
        found = open_index(self.corpus.folder, {**key, "min_count": self.min_count}, build)
        words, labels = (bytes(found[name]).decode("utf-8").split("\n") for name in ("words", "labels"))
        return Words(words, split="whitespace"), tuple(labels)

    @property
    def tokenizer(self) -> Words:
        """The words, by falling frequency; "</s>", the end of a text, is one."""
        return self._vocabulary[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the split "train", by falling frequency."""
        return self._vocabulary[1]

    @property
    def vocab_size(self) -> int:
        """Number of words."""
        return len(self.tokenizer)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("length", "min_count", "buckets", "shortest", "longest", "word_ngrams")
        texts = {name: file_digest(path) for name, path in sorted(self._files.items())}
        options = {name: getattr(self, name) for name in names} | self.padding_of()
        return {"source": "labelled_texts", "split": self.split, **texts, **options}

    @functools.cached_property
    def _texts(self) -> dict[str, np.ndarray]:
        rows = {name: value for name, value in self.fingerprint.items() if name not in self.padding_of()}
        key = {"index": "labelled_texts", "version": _VERSION, **rows}
        build = functools.partial(_write_texts, source=self, file=self._files[self.split])
        return open_index(self.corpus.folder, key, build)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Rows of the table that every text is the mean of."""
        return np.minimum(np.diff(self._texts["starts"]), self.length)

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some texts by number, `width` wide, or, of 0, `length`; they must fit."""
        texts, shape = self._texts, (len(chosen), width or self.length)
        tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, np.bool_)
        for row, text in enumerate(chosen.tolist()):
            rows = texts["rows"][texts["starts"][text] : texts["starts"][text + 1]][: self.length]
            tokens[row, : len(rows)], mask[row, : len(rows)] = rows, True
        targets = texts["labels"][chosen].astype(np.int32)
        weights = np.ones(len(chosen), np.float32)
        return {"inputs": {"tokens": tokens, "mask": mask}, "targets": targets, "weights": weights}


def read_texts(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """`(label, text)` of every line; of several labels the first, and of none "".

    Raises:
      ConfigError: a line that is not a JSON object with `text` and `label`.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if path.suffix == ".jsonl":
                try:
                    record = json.loads(line)
                    yield str(record["label"]), str(record["text"])
                except (ValueError, KeyError, TypeError):
                    raise ConfigError(f"{path}, line {number}: not a JSON object with text and label") from None
                continue
            words = line.split()
            labels = [word for word in words if word.startswith(MARK)]
            text = " ".join(word for word in words if not word.startswith(MARK))
            if words:
                yield labels[0].removeprefix(MARK) if labels else "", text


def _write_vocabulary(folder: pathlib.Path, *, file: pathlib.Path, min_count: int) -> None:
    """Build `words.npy` and `labels.npy`, UTF-8 with a newline between entries."""
    words: collections.Counter[str] = collections.Counter()
    labels: collections.Counter[str] = collections.Counter()
    for label, text in read_texts(file):
        if not label:
            continue
        labels[label] += 1
        words.update([*text.split(), END])
    if not labels:
        raise ConfigError(f"{file} has no labelled text")
    kept = [word for word in words if words[word] >= min_count and word not in SPECIALS]
    kept.sort(key=lambda word: (-words[word], word))
    names = sorted(labels, key=lambda label: (-labels[label], label))
    for name, entries in (("words", [*SPECIALS, *kept]), ("labels", names)):
        writer = ArrayWriter(folder / f"{name}.npy", "u1")
        writer.append(np.frombuffer("\n".join(entries).encode("utf-8"), np.uint8))
        writer.close()


def _write_texts(folder: pathlib.Path, *, source: Source, file: pathlib.Path) -> None:
    """Build `rows`, `starts` (the first row of each text) and `labels.npy`."""
    numbers = {label: number for number, label in enumerate(source.labels)}
    options = {name: getattr(source, name) for name in ("buckets", "shortest", "longest", "word_ngrams")}
    kinds = {"rows": "<i4", "starts": "<i8", "labels": "<i4"}
    writers = {name: ArrayWriter(folder / f"{name}.npy", kind) for name, kind in kinds.items()}
    writers["starts"].append(np.zeros(1, np.int64))
    strange = cut = bare = 0
    for label, text in read_texts(file):
        if not label:
            bare += 1
            continue
        if label not in numbers:
            strange += 1
            continue
        rows = text_rows(source.tokenizer, text, options)
        cut += len(rows) > source.length
        writers["rows"].append(rows)
        writers["starts"].append(np.array([writers["rows"].length]))
        writers["labels"].append(np.array([numbers[label]]))
    for writer in writers.values():
        writer.close()
    for number, what in (
        (bare, "without a label, left out"),
        (strange, "with a label that training does not have, left out"),
        (cut, "cut to source.length"),
    ):
        if number:
            print(f"{file.name}: {number} texts {what}", file=sys.stderr)


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_texts

    return Source(generated_texts(), length=32)
