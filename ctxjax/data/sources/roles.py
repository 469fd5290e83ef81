"""Sentences whose words are told their roles for one of the predicates: a row for each predicate.

The predicate stands behind the sentence as its second part, and its own pieces in the sentence are BERT's segment 1.

Reference: Shi and Lin 2019, "Simple BERT Models for Relation Extraction and Semantic Role Labeling", section 3.2, for
the second part; AllenNLP's SrlBert for the segment.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data.arrays import file_digest
from ctxjax.data.shuffled import Framed, Place
from ctxjax.data.tagging import Sentence
from ctxjax.data.tasks import conll2012
from ctxjax.text import tags


class Source(Framed):
    """Predicates, shuffled anew in every pass.

    Row (T = `length`): inputs {tokens [T], mask [T], segment_ids [T]}, the last for BERT alone; targets [T], the number
    of the tag among `labels` at the first piece of every word, 0 elsewhere; weights [T], 1 there.
    """

    scheme = "BIO"
    rows_are = "predicates"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        train: str = "train",
        heldout: str = "development",
        test: str = "test",
        tokenizer: str = "",
        length: int = 256,
        widths: int = 1,
        together: int = 1,
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with the three splits.
          split: "train", "heldout" or "test", each a file of CoNLL-2012's layout or a folder of such, `*_conll`.
          tokenizer: folder or vocabulary of the encoder's tokenizer; a run fills it in from `config.init_from.path`.
          length: positions of a row; a longer sentence is an error, since all words of a split have to be told.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with files of CoNLL-2012's layout")
        self._files = {"train": train, "heldout": heldout, "test": test}
        if split not in self._files:
            raise ConfigError(f"config.source.split={split!r} is not one of {', '.join(self._files)}")
        self.frame(tokenizer, "")
        self.pad(length, widths, together)
        self.corpus, self.split = Place(pathlib.Path(corpus)), split

    def place(self, split: str) -> pathlib.Path:
        """Where a split lies."""
        return self.corpus.folder / self._files[split]

    def _read(self, split: str) -> Iterator[tuple[pathlib.Path, int, conll2012.Sentence]]:
        for number, document in enumerate(conll2012.read(self.place(split))):
            yield from ((document.file, number, sentence) for sentence in document.sentences)

    @functools.cached_property
    def _frames(self) -> list[tuple[Sentence, int, str]]:
        """A sentence with the tags of one predicate, the predicate, and the file."""
        found = [
            (Sentence(one.words, frame.tags, one.line, number), frame.predicate, str(file))
            for file, number, one in self._read(self.split)
            for frame in one.frames
        ]
        if not found:
            raise ConfigError(f"{self.place(self.split)} has no predicate")
        return found

    @functools.cached_property
    def sentences(self) -> list[Sentence]:
        """A sentence for each of its predicates, in the order of the files, with tags in BIO."""
        return [sentence for sentence, _, _ in self._frames]

    @property
    def owners(self) -> range:
        """The sentence that each row tells words of, in order."""
        return range(len(self._frames))

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The tags by number: those of every kind in the training split, "O" first."""
        kinds = {tags.cut(tag)[1] for _, _, one in self._read("train") for frame in one.frames for tag in frame.tags}
        return tags.known_tags(sorted(kinds - {""}), self.scheme)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        texts = {
            name: [file_digest(file) for file in conll2012.files(self.place(name))]
            for name in sorted({"train", self.split})
        }
        about = {"source": "roles", "split": self.split, "tokenizer": self.tokenizer.digest()}
        return {**about, **texts, "length": self.length, **self.padding_of()}

    @functools.cached_property
    def _encoded(self) -> list[Any]:
        """The pieces of the sentence of every row; rows of one sentence share them."""
        found: list[Any] = []
        words: tuple[str, ...] = ()
        for sentence, _, _ in self._frames:
            found.append(found[-1] if sentence.words is words else self.tokenizer.encode_words(sentence.words))
            words = sentence.words
        return found

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Pieces of every row.

        Raises:
          ConfigError: a row longer than `length`, by file and line.
        """
        marks = self.framing.marks(2)
        pieces = [
            marks + len(found.ids) + int(np.sum(found.words == predicate))
            for found, (_, predicate, _) in zip(self._encoded, self._frames)
        ]
        for size, (sentence, _, file) in zip(pieces, self._frames):
            if size > self.length:
                raise ConfigError(
                    f"{file}, line {sentence.line}: a sentence and its predicate take {size} pieces, more than "
                    f"config.source.length={self.length}; raise it"
                )
        return np.array(pieces)

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some predicates by number, `width` pieces wide, or, of 0, `length`; they must fit."""
        shape = (len(chosen), width or self.length)
        tokens, segments, targets = (np.zeros(shape, np.int32) for _ in range(3))
        mask, weights = np.zeros(shape, np.bool_), np.zeros(shape, np.float32)
        numbers, framing = {label: number for number, label in enumerate(self.labels)}, self.framing
        for row, number in enumerate(chosen.tolist()):
            (sentence, predicate, file), found = self._frames[number], self._encoded[number]
            own = found.words == predicate
            ids = np.concatenate([framing.first, found.ids, framing.between, found.ids[own], framing.last])
            begin, end = len(framing.first), len(framing.first) + len(found.ids)
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
            segments[row, begin:end], segments[row, end + len(framing.between) : len(ids)] = own, 1
            firsts = begin + np.flatnonzero(np.diff(found.words, prepend=-1))
            for place, tag in zip(firsts.tolist(), sentence.tags, strict=True):
                if tag not in numbers:
                    raise ConfigError(f"{file}, line {sentence.line}: the tag {tag!r} is not in {self.place('train')}")
                targets[row, place], weights[row, place] = numbers[tag], 1.0
        inputs = {"tokens": tokens, "mask": mask} | ({"segment_ids": segments} if framing.family == "bert" else {})
        return {"inputs": inputs, "targets": targets, "weights": weights}


def example() -> Source:
    """A small source on generated documents."""
    from ctxjax.data.generated_documents import generated_documents

    folder = generated_documents()
    return Source(folder, tokenizer=f"{folder}/tokenizer", length=48)


def stand_in(fields: Any) -> dict[str, Any]:
    """Fields that make rows of generated documents."""
    from ctxjax.data.generated_documents import generated_documents

    folder = generated_documents()
    names = {"train": "train", "heldout": "development", "test": "test"}
    return {"corpus": folder, "tokenizer": fields["tokenizer"] or f"{folder}/tokenizer", **names}
