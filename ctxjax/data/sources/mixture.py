"""Rows of several corpora in given shares: which corpus a row is of is fixed for every element of the order.

Weights are taken exactly. They come to whole numbers a_k with the sum N, and of every N rows that follow one another
a_k are of corpus k. Before any row, what a corpus has had differs from its share by less than one row, so in any window
by less than two; batches and the parts of processes are windows. The j-th row of a corpus in the mixture is the j-th of
that corpus by itself, so each is read in whole passes, shuffled anew each time.

Reference: Tijdeman 1980, "The chairman assignment problem", for an order of turns with that bound.
"""

from __future__ import annotations

import fractions
import functools
import importlib
import math
import os
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.data import pipeline

MOST_TURNS = 1 << 16


class Source:
    """Rows of another source over several prepared corpora, which share one tokenizer.

    Attributes:
      sources: name of the corpus -> its source.
      turns: rows of each corpus in every run of `sum(turns.values())` rows.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        weights: Mapping[str, float | int] | None = None,
        of: Mapping[str, Any] | None = None,
    ):
        """Open all corpora.

        Args:
          corpus: the folder that the prepared corpora lie in.
          split: "train" or "heldout".
          weights: folder name of each corpus -> its share of the rows, in any unit; those of weight 0 are not opened.
          of: the source of the rows, its name and fields but for `corpus` and `split`; one that has `batch`.

        Raises:
          ConfigError: weights that are none, corpora of different tokenizers, or a source of continuing text.
        """
        if not weights or not of:
            raise ConfigError("config.source needs weights (corpus -> share) and of (the source that reads each)")
        self.turns = _turns(weights)
        root = os.fspath(corpus)
        self.sources: dict[str, Any] = {
            name: configs.build("source", {**of, "corpus": os.path.join(root, name), "split": split})
            for name in self.turns
        }
        (first, source), *others = self.sources.items()
        for name, other in others:
            if other.tokenizer.digest() != source.tokenizer.digest():
                raise ConfigError(
                    f"the corpora {os.path.join(root, first)} and {os.path.join(root, name)} have different "
                    f"tokenizers; prepare {name} with --vocab {os.path.join(root, first, 'tokenizer')}"
                )
        if "is_first" in pipeline.batch_at(source, 0, 1, 0):
            raise ConfigError(
                f"config.source.of.name={of['name']!r} continues a text from batch to batch, which a mixture would "
                "cut; use a source of separate rows, as blocks, masked_blocks or sentence_pairs"
            )

    def __getattr__(self, name: str) -> Any:
        """What else a source has (`length`, ...) is that of the first."""
        if name.startswith("_") or name in ("sources", "turns"):
            raise AttributeError(name)
        return getattr(next(iter(self.sources.values())), name)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size; the corpora in the order of their names."""
        parts = {
            f"corpus_{k}": {"turns": self.turns[name], **source.fingerprint}
            for k, (name, source) in enumerate(self.sources.items())
        }
        return {"source": "mixture", **parts}

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of every corpus."""
        return next(iter(self.sources.values())).tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return next(iter(self.sources.values())).vocab_size

    @property
    def tokens_per_row(self) -> Any:
        """Of the corpora's rows, by their shares."""
        given = [self.turns[name] * source.tokens_per_row for name, source in self.sources.items()]
        return sum(given) / len(self._table)

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps of as many rows as all corpora have together; `passes` says how often that reads each."""
        return max(1, sum(source.steps_per_pass(1) for source in self.sources.values()) // batch_size)

    def passes(self, batch_size: int, steps: int) -> dict[str, float]:
        """How often each corpus is read in the first `steps` steps."""
        rows = self._before(np.array([steps * batch_size]))
        return {
            name: int(rows[k, 0]) / source.steps_per_pass(1) for k, (name, source) in enumerate(self.sources.items())
        }

    def dropped(self, batch_size: int) -> dict[str, int]:
        """What the corpora's sources do not read, by corpus."""
        del batch_size
        told = {name: source.dropped(1) for name, source in self.sources.items() if hasattr(source, "dropped")}
        return {f"{what} of {name}": number for name, found in told.items() for what, number in found.items()}

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        owners = self._table[elements % len(self._table)]
        before = self._before(elements)
        out: dict[str, Any] = {}
        for k, source in enumerate(self.sources.values()):
            here = np.flatnonzero(owners == k)
            if len(here):
                _scatter(out, source.batch(seed, 1, before[k, here]), here, len(elements))
        return out

    def _before(self, elements: Int[np.ndarray, " B"]) -> Int[np.ndarray, "K B"]:
        """How many rows of each corpus stand before each element."""
        rounds, places = np.divmod(elements, len(self._table))
        return rounds * self._counts[:, -1:] + self._counts[:, places]

    @functools.cached_property
    def _table(self) -> Int[np.ndarray, " N"]:
        return order_of_turns(list(self.turns.values()))

    @functools.cached_property
    def _counts(self) -> Int[np.ndarray, "K N1"]:
        """Turns of each corpus before each of the N, and in all of them."""
        mine = self._table == np.arange(len(self.turns))[:, None]
        return np.pad(np.cumsum(mine, axis=1), ((0, 0), (1, 0)))


def _turns(weights: Mapping[str, float | int]) -> dict[str, int]:
    """The smallest whole numbers in the ratio of the weights, as they are written."""
    if min(weights.values()) < 0 or not math.isfinite(sum(weights.values())) or not sum(weights.values()):
        raise ConfigError(f"config.source.weights={dict(weights)} are not shares: none negative, one positive")
    exact = {name: fractions.Fraction(str(weight)) for name, weight in sorted(weights.items()) if weight}
    unit = math.lcm(*(weight.denominator for weight in exact.values()))
    whole = {name: int(weight * unit) for name, weight in exact.items()}
    common = math.gcd(*whole.values())
    if sum(whole.values()) // common > MOST_TURNS:
        raise ConfigError(
            f"config.source.weights={dict(weights)} repeat only after {sum(whole.values()) // common:,} rows, more "
            f"than {MOST_TURNS:,}; round them"
        )
    return {name: number // common for name, number in whole.items()}


def order_of_turns(turns: list[int]) -> Int[np.ndarray, " N"]:
    """Whose turn it is: at every place, number k has had its share of the turns before to within less than one.

    Args:
      turns: how many of the N turns each number has.
    """
    total, rivals = sum(turns), 2 * len(turns) - 2
    order, had = np.zeros(total, np.int64), [0] * len(turns)
    for place in range(total if rivals else 0):
        # Those that lag by 1 / rivals or more, in units of 1 / (total * rivals); of them the first that would be late.
        lags = [(turn * (place + 1) - total * mine) * rivals for turn, mine in zip(turns, had)]
        ready = [k for k, lag in enumerate(lags) if lag >= total]
        chosen = min(ready, key=lambda k: fractions.Fraction(total * (rivals - 1) - lags[k], turns[k]))
        order[place] = chosen
        had[chosen] += 1
    return order


def _scatter(out: dict[str, Any], batch: Mapping[str, Any], here: Int[np.ndarray, " b"], rows: int) -> None:
    """Put the rows of a batch at their places in another of the same leaves."""
    for name, leaf in batch.items():
        if isinstance(leaf, Mapping):
            _scatter(out.setdefault(name, {}), leaf, here, rows)
        else:
            out.setdefault(name, np.zeros((rows, *leaf.shape[1:]), leaf.dtype))[here] = leaf


def stand_in(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A folder of corpora of these names on generated text, for plans without data."""
    from ctxjax.data.generated import generated_mixture

    module = importlib.import_module(f"ctxjax.data.sources.{fields['of']['name']}")
    kind = module.example().corpus.manifest["tokenizer"]["kind"]
    return {"corpus": generated_mixture(kind, {name: 200 for name in fields["weights"]})}


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_mixture

    folder = generated_mixture("byte_bpe", {"longer": 200, "shorter": 100})
    return Source(folder, weights={"longer": 0.7, "shorter": 0.3}, of={"name": "blocks", "length": 32})
