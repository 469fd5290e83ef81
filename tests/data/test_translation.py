"""Pairs in rows: every pair once a pass, shifted right, marked and apart; what does not fit is counted."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import generated_corpus, pairs
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import translation

LENGTH = 48


@pytest.fixture(scope="module")
def folder():
    return generated_corpus("byte_bpe", pairs=True)


@pytest.fixture(scope="module")
def source(folder):
    return translation.Source(folder, length=LENGTH)


def unpacked(source, steps, batch_size=8, seed=3):
    """The pairs of some batches, read off their rows."""
    end = source.tokenizer.end_id
    for step in range(steps):
        batch = batch_at(source, seed, batch_size, step)
        inputs = batch["inputs"]
        assert (inputs["mask"] == (inputs["pack_ids"] > 0)).all()
        assert (batch["weights"] == (inputs["decoder_pack_ids"] > 0)).all()
        for row in range(batch_size):
            for number in range(1, inputs["pack_ids"][row].max() + 1):
                here, there = inputs["pack_ids"][row] == number, inputs["decoder_pack_ids"][row] == number
                read, given = inputs["tokens"][row][here], inputs["decoder_tokens"][row][there]
                told = batch["targets"][row][there]
                assert read[-1] == end and given[0] == end and told[-1] == end
                assert (given[1:] == told[:-1]).all()
                assert inputs["positions"][row][here].tolist() == list(range(len(read)))
                assert inputs["decoder_positions"][row][there].tolist() == list(range(len(given)))
                yield source.tokenizer.decode(read[:-1]), source.tokenizer.decode(told[:-1])


def test_a_pass_gives_every_pair_that_fits_once(source):
    fits = lambda side: len(source.tokenizer.encode(side).ids) < LENGTH
    whole = [tuple(pair) for pair in pairs(200)]
    fitting = [pair for pair in whole if all(map(fits, pair))]
    assert sorted(unpacked(source, 1, batch_size=source.num_rows)) == sorted(fitting)
    (dropped,) = source.dropped(1).values()
    assert dropped == len(whole) - len(fitting) > 0


def test_rows_are_nearly_full_and_padding_is_what_it_says(folder):
    packed, alone = (translation.Source(folder, length=128, packed=packed) for packed in (True, False))
    assert packed.padding < 0.2 < alone.padding and packed.num_rows < alone.num_rows / 3
    batches = [batch_at(packed, 0, 8, step) for step in range(packed.steps_per_pass(8))]
    real = np.mean([(b["inputs"]["mask"].mean() + b["weights"].mean()) / 2 for b in batches])
    assert real == pytest.approx(1 - packed.padding, abs=0.01)
    assert packed.tokens_per_row == pytest.approx(256 * real, rel=0.02)
    assert max(batch_at(alone, 0, 8, 0)["inputs"]["pack_ids"].max(axis=1)) == 1


def test_reverse_changes_the_sides(folder, source):
    other = translation.Source(folder, length=LENGTH, reverse=True)
    for number in (0, 5):
        assert [side.tolist() for side in other.pair(number)] == [side.tolist() for side in source.pair(number)][::-1]
    assert other.fingerprint != source.fingerprint


def test_mistakes_are_named(folder):
    with pytest.raises(ConfigError, match=r"holds no pairs.*--pairs SOURCE TARGET"):
        translation.Source(generated_corpus("byte_bpe"))
    with pytest.raises(ConfigError, match="corpus is empty"):
        translation.Source()
    with pytest.raises(ConfigError, match="no pair of split 'train' fits"):
        translation.Source(folder, length=2)
