"""Rows for BERT: `[CLS] A [SEP] B [SEP]` with masked pieces, and whether B really follows A.

Pairs are fixed per pass (see `transforms/pairs.py`) and kept in a memory-mapped index; masks are dynamic: a function of
(seed, epoch, example), whatever the order in which examples come. Reference: Devlin et al. 2019, section 3.1.
"""

from __future__ import annotations

import bisect
import functools
import os
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index
from ctxjax.data.transforms import pairs
from ctxjax.data.transforms.masking import mask_rows

_VERSION = 1  # of the index; part of its key


class _Spans(NamedTuple):
    """First tokens and lengths of both halves, and the label, `[B]` each; names as in the index."""

    a_start: np.ndarray
    a_len: np.ndarray
    b_start: np.ndarray
    b_len: np.ndarray
    is_random: np.ndarray


class Source(CorpusSource):
    """Masked sentence pairs of a prepared corpus.

    Row (padded to `length` = T; P = `max_predictions`): inputs {tokens [T], segment_ids [T], mask [T], cls_positions
    [1]}, target_positions [P], targets [P], weights [P] and, with `next_sentence`, is_random [] (1 = B is random).
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
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote, with a WordPiece vocabulary.
          split: "train" or "heldout".
          length: tokens of a row.
          max_predictions: masked positions of a row at most (published: 20 at 128, 77 or 80 at 512).
          mask_prob: share of the positions that are predicted.
          short_seq_prob: how often a document is cut into shorter rows.
          next_sentence: False gives rows of one segment and no label.
          whole_word: mask whole words instead of pieces.
          passes: how many different pairings of the corpus there are before pairs (not masks) come again; the
            published `dupe_factor`, although here a pass is finished before the next begins.
          static_masks: k > 0 is the published way: k passes whose pairs and masks then repeat.
          pair_seed: draws the pairs. The seed of a run draws order and masks, so runs of many seeds share one index.
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, one that was not made for word pieces, or lengths that make no row.
        """
        super().__init__(corpus, split, verify, "wordpiece")
        self.budget = length - (3 if next_sentence else 2)
        if self.budget < 2 or length >= 2**16:
            raise ConfigError(f"config.source.length={length} is not between 5 and {2**16 - 1}")
        if max_predictions < 1 or passes < 1 or static_masks < 0:
            raise ConfigError("config.source needs max_predictions >= 1, passes >= 1 and static_masks >= 0")
        self.length, self.max_predictions, self.mask_prob = length, max_predictions, mask_prob
        self.short_seq_prob, self.next_sentence, self.whole_word = short_seq_prob, next_sentence, whole_word
        self.static_masks, self.pair_seed = static_masks, pair_seed
        self.passes = static_masks or passes

    def forget(self) -> None:
        """Open no index."""
        super().forget()
        self._indexes: list[dict[str, np.ndarray]] = []
        self._starts = [0]  # cumulative sizes of the passes opened so far

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside the seed of the run."""
        options = ("length", "max_predictions", "mask_prob", "short_seq_prob", "next_sentence", "whole_word")
        return self.fingerprint_of(*options, "passes", "static_masks", "pair_seed")

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Real (not padding) positions of a row, on average."""
        index = self._index(0)
        total = index["a_len"].sum(dtype=np.int64) + index["b_len"].sum(dtype=np.int64)
        return round(total / len(index["a_len"])) + self.length - self.budget

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps of the first pass; the pairs of later ones differ in number by a few in a thousand."""
        return max(1, self._count(0) // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together: pass after pass, each in its own shuffled order."""
        del batch_size
        return self.examples(seed, *self._drawn(seed, elements))

    def _drawn(self, seed: int, elements: Int[np.ndarray, " B"]) -> tuple[np.ndarray, np.ndarray]:
        """The epochs of some elements, and which of the things that an epoch shuffles each is."""
        epochs, places = np.array([self._locate(element) for element in elements.tolist()]).reshape(-1, 2).T
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            numbers[here] = draws.permute(_order_key(seed, epoch), places[here], self._count(epoch))
        return epochs, numbers

    def examples(self, seed: int, epochs: Int[np.ndarray, " B"], numbers: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Pairs `numbers` of some epochs with their masks; no order enters."""
        spans, keys = self._spans(epochs, numbers), np.empty(len(numbers), np.uint64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            masks = epoch % self.passes if self.static_masks else epoch
            keys[here] = draws.bits(draws.key("mask", seed, masks), numbers[here])
        tokens = np.full((len(numbers), self.length), self.tokenizer.pad_id, np.int32)
        for row, a_start, a_len, b_start, b_len in zip(tokens, *(values.tolist() for values in spans[:4])):
            row[1 : a_len + 1] = self.corpus.read_tokens(a_start, a_start + a_len)[0]
            row[a_len + 2 : a_len + 2 + b_len] = self.corpus.read_tokens(b_start, b_start + b_len)[0]
        a_end, lengths = spans.a_len + 1, spans.a_len + spans.b_len + self.length - self.budget
        rows, place = np.arange(len(tokens)), np.arange(self.length)[None]
        tokens[:, 0] = self.tokenizer.cls_id
        tokens[rows, a_end] = tokens[rows, lengths - 1] = self.tokenizer.sep_id
        real = place < lengths[:, None]
        special = (place == 0) | (place == a_end[:, None]) | (place == lengths[:, None] - 1)
        masked = mask_rows(
            tokens,
            lengths,
            real & ~special,
            keys,
            vocab_size=self.vocab_size,
            mask_id=self.tokenizer.mask_id,
            max_predictions=self.max_predictions,
            mask_prob=self.mask_prob,
            continues=self._continues,
        )
        inputs = {
            "tokens": masked.tokens,
            "segment_ids": (real & (place > a_end[:, None])).astype(np.int32),
            "mask": real,
            "cls_positions": np.zeros((len(tokens), 1), np.int32),
        }
        batch = {"inputs": inputs, "target_positions": masked.positions}
        batch |= {"targets": masked.targets, "weights": masked.weights}
        return batch | ({"is_random": spans.is_random.astype(np.int32)} if self.next_sentence else {})

    def _spans(self, epochs: np.ndarray, numbers: np.ndarray) -> _Spans:
        """Where the tokens of each example are."""
        found = [np.empty(len(numbers), np.int64) for _ in _Spans._fields]
        for epoch in np.unique(epochs).tolist():
            here, index = epochs == epoch, self._index(epoch % self.passes)
            for values, name in zip(found, _Spans._fields):
                values[here] = index[name][numbers[here]]
        return _Spans(*found)

    def _count(self, epoch: int) -> int:
        return self._size(self._index(epoch % self.passes))

    def _size(self, index: dict[str, np.ndarray]) -> int:
        """How many things the epochs of an index shuffle: its pairs."""
        return len(index["a_len"])

    @functools.cached_property
    def _continues(self) -> np.ndarray | None:
        """Which pieces continue a word, where whole words are masked."""
        return np.array([piece.startswith("##") for piece in self.tokenizer.pieces]) if self.whole_word else None

    def _locate(self, element: int) -> tuple[int, int]:
        """(epoch, place within it) of an element. Passes are opened as far as they are needed and no further."""
        while element >= self._starts[-1] and len(self._indexes) < self.passes:
            self._index(len(self._indexes))
        cycle, rest = 0, element
        if element >= self._starts[-1]:
            cycle, rest = divmod(element, self._starts[-1])
        number = bisect.bisect_right(self._starts, rest) - 1
        return cycle * self.passes + number, rest - self._starts[number]

    def _index(self, number: int) -> dict[str, np.ndarray]:
        if number < len(self._indexes):
            return self._indexes[number]
        with self._lock:
            while len(self._indexes) <= number:
                index = self._open(len(self._indexes))
                if not len(index["a_len"]):
                    raise ConfigError(f"split {self.corpus.split!r} of corpus {self.corpus.folder} holds no sentence")
                self._indexes.append(index)
                self._starts.append(self._starts[-1] + self._size(index))
        return self._indexes[number]

    def _options(self, number: int) -> dict[str, Any]:
        return {
            "seed": self.pair_seed,
            "pass_number": number,
            "budget": self.budget,
            "short_seq_prob": self.short_seq_prob,
            "next_sentence": self.next_sentence,
        }

    def _key(self, number: int) -> dict[str, Any]:
        """All that the pairs of a pass depend on."""
        fixed = {"index": "sentence_pairs", "version": _VERSION, "corpus": self.corpus.fingerprint}
        return fixed | self._options(number)

    def _open(self, number: int) -> dict[str, np.ndarray]:
        layout = pairs.Layout(self.corpus.sentence_tokens, self.corpus.document_sentences)
        build = functools.partial(pairs.write_pairs, layout=layout, **self._options(number))
        return open_index(self.corpus.folder, self._key(number), build)


@functools.lru_cache(64)
def _order_key(seed: int, epoch: int) -> int:
    return draws.key("order", seed, epoch)


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("wordpiece"), length=32, max_predictions=5, passes=2)
