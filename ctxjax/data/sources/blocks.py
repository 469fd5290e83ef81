"""Rows for left-to-right language models: blocks of running text, documents joined with a separator and cut anywhere.

Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the separator is its
`<|endoftext|>`.
"""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus import Corpus
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index

_VERSION = 1  # of the index; part of its key


class Source(CorpusSource):
    """Blocks of a prepared corpus, whatever its tokenizer.

    Row (T = `length`): inputs {tokens [T]}, targets [T], weights [T]; targets are the tokens one place later. Every
    pass joins the documents in another order, a separator behind each, and gives the blocks of that text shuffled.

    With `isolate` the documents of a row do not see one another: inputs also has pack_ids [T], which number them, and
    positions [T], which begin again in each (and with the row, where it cuts one); a separator belongs to the document
    before it, and what it would tell, the beginning of the next, has no weight.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 1024,
        verify: bool = False,
        isolate: bool = False,
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote.
          split: "train" or "heldout".
          length: tokens of a row.
          verify: compare the digests of the shards before use, and not only of each part when it is read.
          isolate: keep the documents of a row apart; the published models let them see one another.

        Raises:
          ConfigError: no such corpus or split, or one that is shorter than a row.
        """
        super().__init__(corpus, split, verify)
        if length < 1:
            raise ConfigError(f"config.source.length={length} is not at least 1")
        self.length, self.isolate = length, isolate
        self.blocks = (self.corpus.num_tokens + self.corpus.num_documents - 1) // length  # of one pass
        if not self.blocks:
            raise ConfigError(
                f"split {split!r} of corpus {os.fspath(corpus)} has {self.corpus.num_tokens} tokens, less than a row; "
                "lower config.source.length"
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return self.fingerprint_of("length", *(["isolate"] if self.isolate else []))  # runs from before it go on

    @property
    def tokens_per_row(self) -> int:
        """All positions of a row are tokens."""
        return self.length

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every block was read once; what is left of a pass is in the first batch of the next."""
        return max(1, self.blocks // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        text, documents = (np.empty((len(elements), self.length + 1), np.int32) for _ in range(2))
        passes, places = np.divmod(elements, self.blocks)
        for number in np.unique(passes).tolist():
            here = np.flatnonzero(passes == number)
            blocks = draws.permute(draws.key("blocks", seed, number), places[here], self.blocks)
            index = self._pass(seed, number)
            for row, block in zip(here.tolist(), blocks.tolist()):
                start = block * self.length
                self._read(index, start, text[row])
                if self.isolate:
                    documents[row] = index["starts"].searchsorted(np.arange(start, start + self.length + 1), "right")
        inputs = {"tokens": text[:, :-1].copy()}
        weights = np.ones((len(elements), self.length), np.float32)
        if self.isolate:
            weights *= documents[:, 1:] == documents[:, :-1]
            inputs |= apart(documents[:, :-1])
        return {"inputs": inputs, "targets": text[:, 1:].copy(), "weights": weights}

    def _read(self, index: dict[str, np.ndarray], start: int, out: Int[np.ndarray, " T1"]) -> None:
        """Fill `out` with the tokens of a pass from `start` on."""
        order, starts, corpus = index["order"], index["starts"], self.corpus
        place = int(starts.searchsorted(start, "right")) - 1
        filled, skip = 0, start - int(starts[place])
        while filled < len(out):
            document = int(order[place])
            first, last = (int(corpus.sentence_tokens[corpus.document_sentences[document + end]]) for end in (0, 1))
            stop = min(last, first + skip + len(out) - filled)
            if stop > first + skip:
                out[filled : filled + stop - first - skip] = corpus.read_tokens(first + skip, stop)[0]
                filled += stop - first - skip
            if filled < len(out):
                out[filled] = self.tokenizer.end_id
                filled += 1
            place, skip = place + 1, 0

    def _pass(self, seed: int, number: int) -> dict[str, np.ndarray]:
        """The documents of a pass in order, and where each starts; the last two passes stay open."""

        def build() -> dict[str, np.ndarray]:
            key = {"index": "blocks", "version": _VERSION, "corpus": self.corpus.fingerprint}
            key |= {"seed": int(seed), "pass_number": number}
            write = functools.partial(_write_order, corpus=self.corpus, seed=int(seed), pass_number=number)
            return open_index(self.corpus.folder, key, write)

        return self.of_pass((seed, number), build)


def apart(documents: Int[np.ndarray, "B T"]) -> dict[str, Int[np.ndarray, "B T"]]:
    """`pack_ids` and `positions` of rows of running text, from the document of each place, a number that rises by 1."""
    place = np.arange(documents.shape[1])[None]
    begins = np.diff(documents, axis=1, prepend=documents[:, :1]) > 0
    positions = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    return {"pack_ids": documents - documents[:, :1] + 1, "positions": positions.astype(np.int32)}


def _write_order(folder: pathlib.Path, *, corpus: Corpus, seed: int, pass_number: int) -> None:
    """Build `order.npy` (documents) and `starts.npy` (the first token of each, a separator being behind every one)."""
    order = draws.permutation(draws.key("documents", seed, pass_number), corpus.num_documents)
    bounds = corpus.sentence_tokens[corpus.document_sentences]
    starts = np.concatenate([[0], np.cumsum(np.diff(bounds)[order] + 1)])
    for name, values, dtype in (("order", order, "<u4"), ("starts", starts, "<i8")):
        writer = ArrayWriter(folder / f"{name}.npy", dtype)
        writer.append(values)
        writer.close()


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("byte_bpe"), length=32)
