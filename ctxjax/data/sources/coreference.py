"""Documents as segments of whole sentences, which are encoded apart, and the mentions of entities in them.

Reference: Joshi et al. 2019, "BERT for Coreference Resolution: Baselines and Analysis", the independent variant.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.arrays import file_digest
from ctxjax.data.sources.labelled_texts import Place
from ctxjax.data.tasks import conll2012
from ctxjax.data.transforms.framing import Framing, open_framed


class Source:
    """Documents, shuffled anew in every pass.

    Row (S = `segments`, T = `length`, N = `words`, G = `mentions`): inputs {tokens [S T], mask [S T]}; word_places [N],
    the place of each word's first piece among all S * T (-1 behind the last word), word_sentences [N]; targets [G 3],
    first word, one behind the last and entity of each mention; weights [G 3], 1 for a mention.
    """

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
        if not tokenizer:
            raise ConfigError(
                "config.source.tokenizer is empty: set config.init_from.path to the encoder's run, or the tokenizer"
            )
        if min(segments, words, mentions) < 1:
            raise ConfigError("config.source needs segments, words and mentions >= 1")
        self.corpus, self.split, self._tokenizer, self._marks = Place(pathlib.Path(corpus)), split, tokenizer, framing
        self.length, self.segments, self.words, self.mentions = length, segments, words, mentions
        self.framing  # noqa: B018 - fails here where it does not fit

    def __getstate__(self) -> dict[str, Any]:
        kept = ("tokenizer", "framing", "documents", "_rows", "fingerprint", "tokens_per_row")
        return {name: value for name, value in self.__dict__.items() if name not in kept}

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The encoder's."""
        return open_framed(self._tokenizer, self._marks)

    @functools.cached_property
    def framing(self) -> Framing:
        """The marks round a segment."""
        return Framing(self.tokenizer, self.length, self._marks)

    @property
    def vocab_size(self) -> int:
        """Pieces of the tokenizer."""
        return len(self.tokenizer)

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
    def tokens_per_row(self) -> int:
        """Pieces of a document with their marks, on average."""
        return max(1, round(float(np.mean([row["inputs"]["mask"].sum() for row in self._rows]))))

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every document was read once; what is left of a pass is in the first batch of the next."""
        return max(1, len(self.documents) // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        return self.take(draws.in_passes("documents", seed, elements, len(self.documents)))

    def take(self, chosen: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """The rows of some documents of the split by number."""
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
