"""Rows for BERT: `[CLS] A [SEP] B [SEP]` with masked pieces, and whether B really follows A.

Pairs are fixed per pass (see `transforms/pairs.py`) and kept in a memory-mapped index; masks are dynamic: a function of
(seed, epoch, example), whatever the order in which examples come. Reference: Devlin et al. 2019, section 3.1.
"""

from __future__ import annotations

import bisect
import functools
import os
import threading
from typing import Any

import grain
import numpy as np

from ctxjax.config import ConfigError
from ctxjax.data import draws
from ctxjax.data.corpus import Corpus
from ctxjax.data.index import open_index
from ctxjax.data.transforms import pairs
from ctxjax.data.transforms.masking import mask_tokens

_VERSION = 1  # of the index; part of its key


class Source:
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
          verify: compare the digest of every file of the corpus before use.

        Raises:
          ConfigError: no such corpus or split, one that was not made for word pieces, or lengths that make no row.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to what python -m ctxjax.prepare --output wrote")
        self.corpus = Corpus(corpus, split, verify)
        kind = self.corpus.manifest["tokenizer"]["kind"]
        if kind != "wordpiece":
            raise ConfigError(
                f"config.source.corpus={os.fspath(corpus)!r} holds {kind}; "
                "sentence_pairs needs a corpus prepared with a WordPiece vocabulary"
            )
        self.budget = length - (3 if next_sentence else 2)
        if self.budget < 2 or length >= 2**16:
            raise ConfigError(f"config.source.length={length} is not between 5 and {2**16 - 1}")
        if max_predictions < 1 or passes < 1 or static_masks < 0:
            raise ConfigError("config.source needs max_predictions >= 1, passes >= 1 and static_masks >= 0")
        self.length, self.max_predictions, self.mask_prob = length, max_predictions, mask_prob
        self.short_seq_prob, self.next_sentence, self.whole_word = short_seq_prob, next_sentence, whole_word
        self.static_masks, self.pair_seed = static_masks, pair_seed
        self.passes = static_masks or passes
        self._lock = threading.Lock()
        self._indexes: list[dict[str, np.ndarray]] = []
        self._starts = [0]  # cumulative pairs of the passes opened so far

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_pieces", None)
        return state | {"_lock": None, "_indexes": [], "_starts": [0]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": threading.Lock()})

    @property
    def tokenizer(self) -> Any:
        """The WordPiece tokenizer of the corpus."""
        return self.corpus.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return self.corpus.manifest["tokenizer"]["pieces"]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside the seed of the run."""
        options = ("length", "max_predictions", "mask_prob", "short_seq_prob", "next_sentence", "whole_word")
        more = {name: getattr(self, name) for name in (*options, "passes", "static_masks", "pair_seed")}
        return {"source": "sentence_pairs", **self.corpus.fingerprint, **more}

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Real (not padding) positions of a row, on average."""
        index = self._index(0)
        total = index["a_len"].sum(dtype=np.int64) + index["b_len"].sum(dtype=np.int64)
        return round(total / len(index["a_len"])) + self.length - self.budget

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps of the first pass; the pairs of later ones differ in number by a few in a thousand."""
        return max(1, len(self._index(0)["a_len"]) // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        del batch_size
        return grain.MapDataset.source(_Rows(self, seed))

    def row(self, seed: int, element: int) -> dict[str, Any]:
        """The element at a place in the endless order of `seed`: pass after pass, each in its own shuffled order."""
        epoch, place = self._locate(element)
        number = epoch % self.passes
        count = self._starts[number + 1] - self._starts[number]
        return self.example(seed, epoch, draws.permute(_order_key(seed, epoch), place, count))

    def example(self, seed: int, epoch: int, number: int) -> dict[str, Any]:
        """Pair `number` of an epoch with its mask; no order enters."""
        index = self._index(epoch % self.passes)
        a_start, a_len = int(index["a_start"][number]), int(index["a_len"][number])
        b_start, b_len = int(index["b_start"][number]), int(index["b_len"][number])
        cls, sep, mask, pad, continues = self._pieces
        filled = a_len + b_len + self.length - self.budget
        unmasked = np.empty(filled, np.int32)
        unmasked[0], unmasked[a_len + 1], unmasked[-1] = cls, sep, sep
        unmasked[1 : a_len + 1] = self.corpus.read_tokens(a_start, a_start + a_len)[0]
        places = np.arange(1, filled - 1)
        if self.next_sentence:
            unmasked[a_len + 2 : -1] = self.corpus.read_tokens(b_start, b_start + b_len)[0]
            places = np.delete(places, a_len)
        masked = mask_tokens(
            unmasked,
            places,
            draws.fold(_mask_key(seed, epoch % self.passes if self.static_masks else epoch), number),
            vocab_size=self.vocab_size,
            mask_id=mask,
            max_predictions=self.max_predictions,
            mask_prob=self.mask_prob,
            continues=continues,
        )
        tokens, segments = np.full(self.length, pad, np.int32), np.zeros(self.length, np.int32)
        tokens[:filled] = masked.tokens
        segments[a_len + 2 : filled] = 1
        count = len(masked.positions)
        positions, labels = np.zeros((2, self.max_predictions), np.int32)
        positions[:count], labels[:count] = masked.positions, masked.targets
        inputs = {
            "tokens": tokens,
            "segment_ids": segments,
            "mask": np.arange(self.length) < filled,
            "cls_positions": np.zeros(1, np.int32),
        }
        weights = (np.arange(self.max_predictions) < count).astype(np.float32)
        row = {"inputs": inputs, "target_positions": positions, "targets": labels, "weights": weights}
        if self.next_sentence:
            row["is_random"] = np.int32(index["is_random"][number])
        return row

    @functools.cached_property
    def _pieces(self) -> tuple[int, int, int, int, np.ndarray | None]:
        tokenizer = self.tokenizer
        continues = np.array([piece.startswith("##") for piece in tokenizer.pieces]) if self.whole_word else None
        return tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id, continues

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
                self._starts.append(self._starts[-1] + len(index["a_len"]))
        return self._indexes[number]

    def _open(self, number: int) -> dict[str, np.ndarray]:
        options = {
            "seed": self.pair_seed,
            "pass_number": number,
            "budget": self.budget,
            "short_seq_prob": self.short_seq_prob,
            "next_sentence": self.next_sentence,
        }
        layout = pairs.Layout(self.corpus.sentence_tokens, self.corpus.document_sentences)
        key = {"index": "sentence_pairs", "version": _VERSION, "corpus": self.corpus.fingerprint, **options}
        return open_index(self.corpus.folder, key, functools.partial(pairs.write_pairs, layout=layout, **options))


@functools.lru_cache(64)
def _order_key(seed: int, epoch: int) -> int:
    return draws.key("order", seed, epoch)


@functools.lru_cache(64)
def _mask_key(seed: int, epoch: int) -> int:
    return draws.key("mask", seed, epoch)


class _Rows:
    """Random access for Grain."""

    def __init__(self, source: Source, seed: int):
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, element: Any) -> dict[str, Any]:
        return self.source.row(self.seed, int(element))


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("wordpiece"), length=32, max_predictions=5, passes=2)
