"""What sources of tasks share: rows that have numbers, an order anew in every pass, few widths, an encoder's tokenizer.

Rows are as long as they are, arrays are not. A batch is as wide as its longest row needs, of a few widths that are
chosen so that as little as possible is padding, and a step is compiled once for each. With `together` over 1, rows of
like length also stand in one batch.
"""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.transforms.framing import Framing, open_framed

MULTIPLE = 8  # of which widths are


class Place(NamedTuple):
    """Where the files of a task lie."""

    folder: pathlib.Path


def few_widths(lengths: Int[np.ndarray, " N"], count: int, longest: int) -> tuple[int, ...]:
    """At most `count` widths, rising, that hold all rows with the fewest positions in all.

    Args:
      lengths: of the rows, none over `longest`.
      count: how many widths at most.
      longest: no width is more; the others are multiples of 8.
    """
    sizes, rows = np.unique(np.minimum(-(-np.maximum(lengths, 1) // MULTIPLE) * MULTIPLE, longest), return_counts=True)
    # best[k][i]: positions of the first i sizes in k widths, the last of which is sizes[i - 1]
    before = np.concatenate([[0], np.cumsum(rows)])
    best = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf)
    chosen: list[Int[np.ndarray, " _"]] = []
    for _ in range(min(count, len(sizes))):
        cost = best[:, None] + (before[None, 1:] - before[:, None]) * sizes[None]
        cost = np.where(np.arange(len(sizes) + 1)[:, None] < np.arange(1, len(sizes) + 1)[None], cost, np.inf)
        chosen.append(cost.argmin(0))
        best = np.concatenate([[np.inf], cost.min(0)])
    found, place = [], len(sizes)
    for starts in reversed(chosen):
        found.append(int(sizes[place - 1]))
        place = int(starts[place - 1])
    return tuple(reversed(found))


class Shuffled:
    """A source of rows that have numbers, each of which is read once in every pass.

    A subclass has `lengths` and `take`, and says what its rows are in `rows_are`, on which their order depends.

    Attributes:
      length: positions of a row at most.
      widths: how many widths there are at most; 1 pads every row to `length`.
      together: batches whose rows are sorted by length; 1 is a plain random order.
    """

    rows_are = "rows"
    length: int
    widths: int = 1
    together: int = 1

    def pad(self, length: int, widths: int, together: int) -> None:
        """Set how rows are padded.

        Raises:
          ConfigError: fewer than one of either.
        """
        if min(length, widths, together) < 1:
            raise ConfigError("config.source needs length, widths and together >= 1")
        self.length, self.widths, self.together = length, widths, together

    def __getstate__(self) -> dict[str, Any]:
        cached = {
            name
            for kind in type(self).__mro__
            for name, value in vars(kind).items()
            if isinstance(value, functools.cached_property)
        }
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Positions that each row fills."""
        raise NotImplementedError

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """Some rows by number, `width` positions wide, or, of 0, `length`; they must fit."""
        raise NotImplementedError

    @functools.cached_property
    def padded(self) -> tuple[int, ...]:
        """The widths of batches, rising."""
        return (self.length,) if self.widths == 1 else few_widths(self.lengths, self.widths, self.length)

    def width_of(self, chosen: Int[np.ndarray, " B"]) -> int:
        """The width of a batch of some rows."""
        if len(self.padded) == 1:
            return self.padded[0]
        longest = int(self.lengths[chosen].max())
        return next(width for width in self.padded if longest <= width)

    def shapes(self) -> list[dict[str, Any]]:
        """A batch of one row of every width, the widest last."""
        shortest = np.array([int(self.lengths.argmin())]) if len(self.padded) > 1 else np.zeros(1, np.int64)
        return [self.take(shortest, width) for width in self.padded]

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Positions that a row fills, on average."""
        return max(1, round(float(self.lengths.mean())))

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every row was read once; what is left of a pass is in the first batch of the next."""
        return max(1, self.count // batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s, as wide as the batch of that step."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together, as wide as the batches of their steps."""
        steps, places = np.divmod(elements, batch_size)
        whole = {step: self.of_step(seed, batch_size, step) for step in np.unique(steps).tolist()}
        chosen = np.array([whole[step][place] for step, place in zip(steps.tolist(), places.tolist())])
        return self.take(chosen, max(map(self.width_of, whole.values())))

    def of_step(self, seed: int, batch_size: int, step: int) -> Int[np.ndarray, " B"]:
        """The numbers of the rows of one step."""
        window, place = divmod(step, self.together)
        size = self.together * batch_size
        order = draws.in_passes(self.rows_are, seed, np.arange(window * size, (window + 1) * size), self.count)
        if self.together == 1:
            return order
        order = order[np.argsort(-self.lengths[order], kind="stable")].reshape(self.together, batch_size)
        return order[draws.permutation(draws.key("batches", seed, window), self.together)[place]]

    def padding_of(self) -> dict[str, int]:
        """How rows are padded and put together, for the fingerprint."""
        return {"widths": self.widths, "together": self.together}


class Framed(Shuffled):
    """Rows for an encoder, with the marks of its tokenizer round them."""

    def frame(self, tokenizer: str | os.PathLike[str], marks: str) -> None:
        """Set whose tokenizer is used and how a row is framed.

        Args:
          tokenizer: folder or vocabulary of the encoder's; a run fills it in from `config.init_from.path`.
          marks: a key of `transforms.framing.MARKS`; empty for those of the tokenizer.

        Raises:
          ConfigError: no tokenizer is named.
        """
        if not tokenizer:
            raise ConfigError(
                "config.source.tokenizer is empty; name the pretrained run, --config.init_from.path=RUN, or a "
                "tokenizer's folder"
            )
        self._tokenizer, self._marks = os.fspath(tokenizer), marks

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The encoder's, with the marks of its family among its pieces."""
        return open_framed(self._tokenizer, self._marks)

    @functools.cached_property
    def framing(self) -> Framing:
        """How parts become a row."""
        return Framing(self.tokenizer, self.length, self._marks)

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return len(self.tokenizer)
