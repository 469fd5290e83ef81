"""Rows for BERT without padding: the masked sentence pairs of `sentence_pairs`, several to a row.

Pairs, short ones among them, and masks are the published ones and to the bit those of `sentence_pairs`; packing only
decides which of them share a row. An example sees itself alone (`pack_ids`), its positions begin at 0, its masks are
counted from its own length, and its next-sentence label is taken at its own [CLS]. A batch of B rows holds more
examples than B. What padding is with and without: experiments/LOG.md, "packing".
"""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws
from ctxjax.data.index import open_index
from ctxjax.data.sources import sentence_pairs
from ctxjax.data.transforms import packing

_VERSION = 1  # of the index; part of its key


class Source(sentence_pairs.Source):
    """Packed masked sentence pairs of a prepared corpus.

    Row (T = `length`; S = `max_examples`; P = `predictions`): inputs {tokens [T], segment_ids [T], pack_ids [T],
    positions [T], mask [T], cls_positions [S]}, target_positions [P], targets [P], weights [P] and, with
    `next_sentence`, is_random [S] and pair_weights [S] (0 where a slot is empty; its [CLS] is then place 0).

    Attributes:
      predictions: masked positions of a row at most, those of all its examples.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 128,
        max_predictions: int = 20,
        mask_prob: float = 0.15,
        short_seq_prob: float = 0.1,
        next_sentence: bool = True,
        whole_word: bool = False,
        passes: int = 10,
        static_masks: int = 0,
        pair_seed: int = 12345,
        verify: bool = False,
        max_examples: int = 8,
        window: int = 16384,
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          length: tokens of a row, and of an example at most.
          max_predictions: masked positions of an example at most.
          max_examples: examples of a row at most.
          window: shuffled examples that are packed together; more leave less padding.
          corpus, split, mask_prob, short_seq_prob, next_sentence, whole_word, passes, static_masks, pair_seed, verify:
            as in `sentence_pairs`.

        Raises:
          ConfigError: as there, or nothing to pack.
        """
        super().__init__(
            corpus, split, length, max_predictions, mask_prob, short_seq_prob, next_sentence, whole_word, passes,
            static_masks, pair_seed, verify,
        )  # fmt: skip
        if max_examples < 1 or window < 1:
            raise ConfigError("config.source needs max_examples >= 1 and window >= 1")
        self.max_examples, self.window = max_examples, window
        shortest = length - self.budget + 1 + next_sentence
        rounded = max(0.5, 1 - mask_prob * shortest)  # by how much one example can be above its share
        room = math.floor(mask_prob * length + rounded * max_examples + 1e-9)
        self.predictions = min(max(1, room), max_examples * max_predictions)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside the seed of the run."""
        return {**super().fingerprint, "max_examples": self.max_examples, "window": self.window}

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Real (not padding) positions of a row, on average."""
        return round(self.length * (1 - self.padding))

    @functools.cached_property
    def padding(self) -> float:
        """Share of the places of the first pass that hold no token."""
        return 1 - self._lengths(self._index(0)).sum() / (self._count(0) * self.length)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together: pass after pass, each in its own shuffled order."""
        del batch_size
        return self.packed(seed, *self._drawn(seed, elements))

    def packed(self, seed: int, epochs: Int[np.ndarray, " B"], numbers: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Rows `numbers` of some epochs with their masks; no order enters."""
        held = [self._held(epoch, number) for epoch, number in zip(epochs.tolist(), numbers.tolist())]
        counts = np.array([len(examples) for examples in held])
        rows, slots = np.repeat(np.arange(len(held)), counts), _within(counts)
        alone = self.examples(seed, epochs[rows], np.concatenate(held))
        real = alone["inputs"]["mask"]
        lengths = real.sum(axis=1)
        starts = np.cumsum(lengths) - lengths  # in all rows laid end to end, then in each
        starts -= np.repeat(starts[np.cumsum(counts) - counts], counts)

        def laid(values: np.ndarray, fill: int = 0) -> np.ndarray:
            out = np.full((len(held), self.length), fill, np.int32)
            out[np.repeat(rows, lengths), np.repeat(starts, lengths) + _within(lengths)] = values
            return out

        def slotted(values: np.ndarray, kind: type) -> np.ndarray:
            out = np.zeros((len(held), self.max_examples), kind)
            out[rows, slots] = values
            return out

        pack_ids = laid(np.repeat(slots + 1, lengths))
        inputs = {
            "tokens": laid(alone["inputs"]["tokens"][real], self.tokenizer.pad_id),
            "segment_ids": laid(alone["inputs"]["segment_ids"][real]),
            "pack_ids": pack_ids,
            "positions": laid(_within(lengths)),
            "mask": pack_ids > 0,
            "cls_positions": slotted(starts, np.int32),
        }
        batch = {"inputs": inputs, **self._predictions(alone, rows, starts, len(held))}
        if self.next_sentence:
            batch |= {"is_random": slotted(alone["is_random"], np.int32)}
            batch |= {"pair_weights": slotted(np.ones(len(rows)), np.float32)}
        return batch

    def _predictions(
        self, alone: dict[str, Any], rows: Int[np.ndarray, " N"], starts: Int[np.ndarray, " N"], count: int
    ) -> dict[str, np.ndarray]:
        """The masked positions of examples, one behind the other in the rows that hold them."""
        wanted = alone["weights"] > 0
        which = np.nonzero(wanted)[0]
        where = rows[which], _within(np.bincount(rows[which], minlength=count))
        out = {}
        for name, values in (("target_positions", alone["target_positions"][wanted] + starts[which]),
                             ("targets", alone["targets"][wanted]), ("weights", alone["weights"][wanted])):  # fmt: skip
            out[name] = np.zeros((count, self.predictions), np.float32 if name == "weights" else np.int32)
            out[name][where] = values
        return out

    def _held(self, epoch: int, number: int) -> Int[np.ndarray, " n"]:
        """The examples of a row."""
        index = self._index(epoch % self.passes)
        return index["order"][int(index["starts"][number]) : int(index["starts"][number + 1])].astype(np.int64)

    def _lengths(self, index: dict[str, np.ndarray]) -> Int[np.ndarray, " N"]:
        """Tokens of every example of a pass, marks included."""
        return index["a_len"].astype(np.int64) + index["b_len"] + self.length - self.budget

    def _size(self, index: dict[str, np.ndarray]) -> int:
        return len(index["starts"]) - 1

    def _open(self, number: int) -> dict[str, np.ndarray]:
        """The pairs of a pass, and their rows: the examples in order, and where each row begins."""
        index = super()._open(number)
        options = {"length": self.length, "most": self.max_examples, "window": self.window}
        key = {"index": "packed_pairs", "version": _VERSION, "pairs": self._key(number), **options}
        shuffled = draws.key("pack", self.pair_seed, number)
        build = functools.partial(packing.write_rows, lengths=self._lengths(index), key=shuffled, **options)
        return {**index, **open_index(self.corpus.folder, key, build)}


def _within(counts: Int[np.ndarray, " N"]) -> Int[np.ndarray, " total"]:
    """0, 1, ... for each count anew."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("wordpiece"), length=64, max_predictions=10, passes=2, max_examples=4)
