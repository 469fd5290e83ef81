"""Rows for translation: pairs of sentences side by side, several to a row, so that little of a batch is padding.

Batches must be of one shape, and pairs are of all lengths. Pairs are laid one behind another into rows of `length`
places a side, as tensor2tensor's packed problems do; `pack_ids` keep them apart. A batch of B rows then holds nearly
`B * length` pieces of each side, whatever the lengths are. Reference: Vaswani et al. 2017, section 5.1.
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
from ctxjax.data import draws, parallel, pipeline
from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index

_VERSION = 1  # of the index; part of its key


class Source(CorpusSource):
    """Pairs of a corpus of parallel text.

    Row (T = `length`): inputs {tokens [T], mask [T], pack_ids [T], positions [T]} of the source, each sentence with
    the end mark behind it, and decoder_tokens, decoder_pack_ids, decoder_positions [T], each sentence with the mark
    before it; targets [T], weights [T]: the same with the mark behind. Pairs are numbered from 1, padding is 0.

    Which pairs share a row is fixed; every pass gives the rows in another order.

    Attributes:
      padding: share of the places of both sides that hold no token.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 256,
        packed: bool = True,
        reverse: bool = False,
        verify: bool = False,
    ):
        """Open the corpus; the index is built when it is first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --pairs --output` wrote.
          split: "train" or "heldout".
          length: places of a row, the same on both sides.
          packed: False gives every pair a row of its own.
          reverse: translate from the second file to the first.
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, one that holds no pairs, or none that fits.
        """
        super().__init__(corpus, split, verify)
        if self.corpus.manifest.get("inputs", {}).get("formats") != [parallel.FORMAT]:
            raise ConfigError(
                f"config.source.corpus={os.fspath(corpus)!r} holds no pairs; "
                "translation needs a corpus made by python -m ctxjax.prepare --pairs SOURCE TARGET"
            )
        if length < 2:
            raise ConfigError(f"config.source.length={length} is not at least 2")
        self.length, self.packed, self.reverse = length, packed, reverse
        lengths = self._lengths()
        fitting = (lengths <= length).all(axis=1)
        self.too_long = int((~fitting).sum())
        if not fitting.any():
            raise ConfigError(f"no pair of split {split!r} fits config.source.length={length}; make it larger")
        self.tokens = int(lengths[fitting].sum())

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return self.fingerprint_of("length", "packed", "reverse")

    @property
    def num_rows(self) -> int:
        """Rows of a pass."""
        return len(self._index["starts"]) - 1

    def dropped(self, batch_size: int) -> dict[str, int]:
        """Pairs with a side over `length`, its mark included, which are left out."""
        del batch_size
        return {f"pairs over config.source.length={self.length}": self.too_long}

    @property
    def tokens_per_row(self) -> int:
        """Pieces and marks of both sides, on average."""
        return round(self.tokens / self.num_rows)

    @property
    def padding(self) -> float:
        """Share of the places of both sides that hold no token."""
        return 1.0 - self.tokens / (2 * self.length * self.num_rows)

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every row was read once; what is left of a pass is in the first batch of the next."""
        return max(1, self.num_rows // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        passes, places = np.divmod(elements, self.num_rows)
        numbers = np.empty_like(places)
        for number in np.unique(passes).tolist():
            here = passes == number
            numbers[here] = draws.permute(draws.key("translation", seed, number), places[here], self.num_rows)
        shape = (2, len(elements), self.length)
        read, told, packs, positions = (np.zeros(shape, np.int32) for _ in range(4))
        starts, order, end = self._index["starts"], self._index["order"], self.tokenizer.end_id
        for row, number in enumerate(numbers.tolist()):
            filled = [0, 0]
            for count, pair in enumerate(order[int(starts[number]) : int(starts[number + 1])].tolist(), 1):
                for side, tokens in enumerate(self.pair(pair)):
                    first, last = filled[side], filled[side] + len(tokens)
                    read[side, row, first + side : last + side] = tokens  # the target is shifted by one
                    told[side, row, first:last] = tokens
                    read[side, row, first if side else last] = told[side, row, last] = end
                    packs[side, row, first : last + 1] = count
                    positions[side, row, first : last + 1] = np.arange(last + 1 - first)
                    filled[side] = last + 1
        inputs = {"tokens": read[0], "mask": packs[0] > 0, "pack_ids": packs[0], "positions": positions[0]}
        inputs |= {"decoder_tokens": read[1], "decoder_pack_ids": packs[1], "decoder_positions": positions[1]}
        return {"inputs": inputs, "targets": told[1], "weights": (packs[1] > 0).astype(np.float32)}

    def pair(self, number: int) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " T"]]:
        """The pieces of source and target of a pair of the split, without marks."""
        bounds = self.corpus.sentence_tokens[2 * number : 2 * number + 3].tolist()
        tokens = self.corpus.read_tokens(bounds[0], bounds[2])[0]
        first, second = tokens[: bounds[1] - bounds[0]], tokens[bounds[1] - bounds[0] :]
        return (second, first) if self.reverse else (first, second)

    def _lengths(self) -> Int[np.ndarray, "N 2"]:
        """Places that source and target of every pair take, the mark included."""
        return np.diff(self.corpus.sentence_tokens).reshape(-1, 2) + 1

    @functools.cached_property
    def _index(self) -> dict[str, np.ndarray]:
        """The pairs in order, and where each row begins."""
        options = {"length": self.length, "packed": self.packed}
        key = {"index": "translation", "version": _VERSION, "corpus": self.corpus.fingerprint, **options}
        build = functools.partial(_write_rows, lengths=self._lengths(), **options)
        return open_index(self.corpus.folder, key, build)


def _write_rows(folder: pathlib.Path, *, lengths: Int[np.ndarray, "N 2"], length: int, packed: bool) -> None:
    """Build `order.npy` (pairs that fit, in an order of no meaning) and `starts.npy` (the first of each row).

    A row is closed when the next pair does not fit. The order is by hash of the text already, and drawn anew here, so
    that neighbours in a row are strangers even in a corpus made by other means.
    """
    fitting = np.flatnonzero((lengths <= length).all(axis=1))
    order = fitting[draws.permutation(draws.key("rows"), len(fitting))]
    starts, used = [0], [0, 0]
    for place, (source, target) in enumerate(lengths[order].tolist()):
        used[0], used[1] = used[0] + source, used[1] + target
        if place and (not packed or max(used) > length):
            starts.append(place)
            used = [source, target]
    for name, values, dtype in (("order", order, "<u4"), ("starts", np.array([*starts, len(order)]), "<i8")):
        writer = ArrayWriter(folder / f"{name}.npy", dtype)
        writer.append(values)
        writer.close()


def example() -> Source:
    """A small source on generated pairs."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("byte_bpe", pairs=True), length=48)
