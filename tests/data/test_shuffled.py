"""Rows of tasks: each once a pass, few widths, and batches of like length."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.shuffled import Shuffled, few_widths

BATCH, COUNT, LONGEST = 4, 37, 60


class Numbers(Shuffled):
    """Row n has its own number as many times as it is long."""

    tokenizer, vocab_size = None, COUNT

    def __init__(self, widths: int = 1, together: int = 1):
        self.pad(LONGEST, widths, together)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self.padding_of()

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        return 1 + draws.below(draws.key("lengths"), np.arange(COUNT), LONGEST) ** 2 // LONGEST

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        tokens = np.full((len(chosen), width or self.length), -1, np.int32)
        for row, number in enumerate(chosen.tolist()):
            tokens[row, : self.lengths[number]] = number
        return {"inputs": {"tokens": tokens, "mask": tokens >= 0}}


@pytest.mark.parametrize("count", (1, 2, 3, 5, 40))
def test_no_other_widths_are_less_padding(count: int) -> None:
    lengths = draws.below(draws.key("x"), np.arange(50), 90) + 1
    found = few_widths(lengths, count, 85 + 5)
    sizes = np.unique(np.minimum(-(-lengths // 8) * 8, 90)).tolist()

    def cost(widths: tuple[int, ...]) -> int:
        return sum(min(width for width in widths if length <= width) for length in lengths.tolist())

    every = itertools.combinations(sizes[:-1], min(count, len(sizes)) - 1)
    assert cost(found) == min(cost((*some, sizes[-1])) for some in every)
    assert list(found) == sorted(set(found)) and len(found) <= count and found[-1] >= lengths.max()


def test_a_width_is_never_over_the_length() -> None:
    assert few_widths(np.array([3, 61, 63]), 2, 63) == (8, 63)
    assert few_widths(np.array([5, 5, 5]), 4, 63) == (8,)


@pytest.mark.parametrize(("widths", "together"), ((1, 1), (3, 1), (1, 3), (4, 5)))
def test_every_row_is_read_once_in_every_pass(widths: int, together: int) -> None:
    source = Numbers(widths, together)
    steps = together * COUNT  # whole passes and whole windows
    seen = []
    for step in range(steps):
        batch = pipeline.batch_at(source, seed=3, batch_size=BATCH, step=step)["inputs"]["tokens"]
        assert batch.shape[1] in source.padded
        seen += batch[:, 0].tolist()
        assert all((row >= 0).sum() == source.lengths[row[0]] for row in batch)
    assert np.bincount(seen).tolist() == [BATCH * together] * COUNT


def test_widths_leave_order_and_rows_alone() -> None:
    plain, narrow = Numbers(), Numbers(widths=3)
    for step in range(12):
        ours, theirs = (pipeline.batch_at(one, 5, BATCH, step)["inputs"]["tokens"] for one in (narrow, plain))
        assert np.array_equal(ours, theirs[:, : ours.shape[1]]) and (theirs[:, ours.shape[1] :] == -1).all()


def test_together_pads_less() -> None:
    def padding(source: Shuffled) -> float:
        masks = [pipeline.batch_at(source, 1, BATCH, step)["inputs"]["mask"] for step in range(60)]
        return 1.0 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)

    found = [padding(one) for one in (Numbers(), Numbers(4), Numbers(4, 8))]
    assert found[0] > found[1] + 0.05 and found[1] > found[2] + 0.2, found


def test_parts_of_a_batch_are_as_wide_as_the_whole() -> None:
    source = Numbers(widths=4, together=2)
    for step in range(6):
        whole = pipeline.batch_at(source, 0, BATCH, step)["inputs"]["tokens"]
        halves = [
            next(
                pipeline.batches(source, seed=0, batch_size=BATCH, start_step=step, process_index=part, process_count=2)
            )
            for part in (0, 1)
        ]
        assert np.array_equal(np.concatenate([half["inputs"]["tokens"] for half in halves]), whole)
        rows = [source.rows(0, BATCH)[step * BATCH + place]["inputs"]["tokens"] for place in range(BATCH)]
        assert np.array_equal(np.stack(rows), whole)


def test_what_was_made_stays_behind() -> None:
    source = Numbers(widths=3)
    assert source.padded and "padded" not in pickle.loads(pickle.dumps(source)).__dict__


@pytest.mark.parametrize("fields", ({"widths": 0}, {"together": 0}))
def test_bad_fields(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="widths and together >= 1"):
        Numbers(**fields)
