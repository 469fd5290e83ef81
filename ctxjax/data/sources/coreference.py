"""Documents as segments of whole sentences, which are encoded apart, and the mentions of entities in them.

Reference: Joshi et al. 2019, "BERT for Coreference Resolution: Baselines and Analysis", the independent variant.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data.arrays import file_digest
from ctxjax.data.shuffled import Framed, Place
from ctxjax.data.tasks import conll2012


class Source(Framed):
    """Documents, shuffled anew in every pass.

    Row (S = `segments`, T = `length`, N = `words`, G = `mentions`): inputs {tokens [S T], mask [S T]}; word_places [N],
    the place of each word's first piece among all S * T (-1 behind the last word), word_sentences [N]; targets [G 3],
    first word, one behind the last and entity of each mention; weights [G 3], 1 for a mention.
    """

    rows_are = "documents"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        train: str = "train",
        heldout: str = "development",
        test: str = "test",
        tokenizer: str = "",
        framing: str = "",
        length: int = 128,
        segments: int = 11,
        words: int = 1024,
        mentions: int = 256,
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with the three splits.
          split: "train", "heldout" or "test", each a file of CoNLL-2012's layout or a folder of such, `*_conll`.
          tokenizer: folder or vocabulary of the encoder's tokenizer; a run fills it in from `config.init_from.path`.
          framing: a key of `transforms.framing.MARKS`; empty for the tokenizer's own.
          length, segments, words, mentions: sizes of a row. What a document has beyond them is left out and counted.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with files of CoNLL-2012's layout")
        self._files = {"train": train, "heldout": heldout, "test": test}
        if split not in self._files:
            raise ConfigError(f"config.source.split={split!r} is not one of {', '.join(self._files)}")
        if min(segments, words, mentions) < 1:
            raise ConfigError("config.source needs segments, words and mentions >= 1")
        self.frame(tokenizer, framing)
        self.pad(length, widths=1, together=1)
        self.corpus, self.split = Place(pathlib.Path(corpus)), split
        self.segments, self.words, self.mentions = segments, words, mentions
        self.framing  # noqa: B018 - fails here where it does not fit

    @property
    def place(self) -> pathlib.Path:
        """Where the split lies."""
        return self.corpus.folder / self._files[self.split]

    @functools.cached_property
    def documents(self) -> list[conll2012.Document]:
        """The documents of the split, in the order of the files."""
        found = [one for one in conll2012.read(self.place) if one.sentences]
        if not found:
            raise ConfigError(f"{self.place} has no document")
        return found

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("length", "segments", "words", "mentions")
        about = {
            "source": "coreference",
            "split": self.split,
            "files": list(map(file_digest, conll2012.files(self.place))),
        }
        about |= {"tokenizer": self.tokenizer.digest(), "framing": self.framing.family}
        return about | {name: getattr(self, name) for name in names}

    @functools.cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows = [self._row(document) for document in self.documents]
        for what in ("words", "mentions"):
            if left := sum(row.pop(f"{what}_left") for row in rows):
                print(f"{self.split}: {left} {what} left out of documents longer than a row", file=sys.stderr)
        return rows

    def _row(self, document: conll2012.Document) -> dict[str, Any]:
        shape, marks = (self.segments, self.length), self.framing.marks(1)
        tokens = np.full(shape, getattr(self.tokenizer, "pad_id", 0), np.int32)
        mask = np.zeros(shape, np.bool_)
        places, sentences = np.full(self.words, -1, np.int32), np.zeros(self.words, np.int32)
        segment, held, count, full = 0, np.zeros(0, np.int32), 0, False

        def close() -> None:
            nonlocal segment, held
            if len(held):
                framed = self.framing(held).tokens
                tokens[segment, : len(framed)], mask[segment, : len(framed)] = framed, True
                segment, held = segment + 1, np.zeros(0, np.int32)

        for number, sentence in enumerate(document.sentences):
            found = self.tokenizer.encode_words(sentence.words)
            if len(held) + len(found.ids) > self.length - marks:
                close()
            for word in range(len(sentence.words)):
                pieces = found.ids[found.words == word]
                if len(pieces) > self.length - marks:
                    pieces = pieces[: self.length - marks]
                if len(held) + len(pieces) > self.length - marks:  # of a sentence longer than a segment
                    close()
                full = full or segment >= self.segments or count >= self.words
                if full:
                    break
                places[count] = segment * self.length + len(self.framing.first) + len(held)
                sentences[count], count, held = number, count + 1, np.concatenate([held, pieces])
            if full:
                break
        if segment < self.segments:
            close()
        inside = [
            (first, stop, number)
            for number, cluster in enumerate(document.clusters, 1)
            for first, stop in cluster
            if stop <= count
        ]
        targets, weights = np.zeros((self.mentions, 3), np.int32), np.zeros((self.mentions, 3), np.float32)
        kept = inside[: self.mentions]
        targets[: len(kept)], weights[: len(kept)] = np.array(kept, np.int32).reshape(-1, 3), 1.0
        return {
            "inputs": {"tokens": tokens, "mask": mask},
            "word_places": places,
            "word_sentences": sentences,
            "targets": targets,
            "weights": weights,
            "words_left": len(document.words) - count,
            "mentions_left": sum(map(len, document.clusters)) - len(kept),
        }

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Pieces of every document, with their marks."""
        return np.array([row["inputs"]["mask"].sum() for row in self._rows])

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some documents by number; all are of one width."""
        del width
        rows = [self._rows[number] for number in chosen.tolist()]
        names = [name for name in rows[0] if name != "inputs"]
        inputs = {name: np.stack([row["inputs"][name] for row in rows]) for name in rows[0]["inputs"]}
        return {"inputs": inputs, **{name: np.stack([row[name] for row in rows]) for name in names}}


def example() -> Source:
    """A small source on generated documents."""
    from ctxjax.data.generated_documents import generated_documents

    folder = generated_documents()
    return Source(folder, tokenizer=f"{folder}/tokenizer", length=32, segments=4, words=64, mentions=40)


def stand_in(fields: Any) -> dict[str, Any]:
    """Fields that make rows of generated documents."""
    from ctxjax.data.generated_documents import generated_documents

    folder = generated_documents()
    names = {"train": "train", "heldout": "development", "test": "test"}
    return {"corpus": folder, "tokenizer": fields["tokenizer"] or f"{folder}/tokenizer", **names}
