"""Masked blocks of running text: what is masked, how often, and what is kept."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import generated_corpus
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import blocks, masked_blocks

SEED, ROWS = 3, 64


def test_rows_are_blocks_with_a_mark_in_front():
    source = masked_blocks.Source(generated_corpus("wordpiece"), length=32)
    plain = blocks.Source(generated_corpus("wordpiece"), length=31)
    masked, text = (batch_at(one, SEED, ROWS, 2) for one in (source, plain))
    whole = masked["inputs"]["tokens"].copy()
    rows, slots = np.nonzero(masked["weights"])
    whole[rows, masked["target_positions"][rows, slots]] = masked["targets"][rows, slots]
    np.testing.assert_array_equal(whole[:, 1:], text["inputs"]["tokens"])
    assert (whole[:, 0] == source.tokenizer.cls_id).all()


def test_how_much_is_masked_and_with_what():
    source = masked_blocks.Source(generated_corpus("wordpiece"), length=64, mask_prob=0.3)
    batch = batch_at(source, SEED, 256, 0)
    chosen = batch["weights"].sum(axis=1)
    assert batch["targets"].shape[1] == round(0.3 * 64) and (chosen == round(0.3 * 64)).all()
    there = np.take_along_axis(batch["inputs"]["tokens"], batch["target_positions"], axis=1)
    assert np.mean(there == source.tokenizer.mask_id) == pytest.approx(0.8, abs=0.02)
    assert np.mean(there == batch["targets"]) == pytest.approx(0.1, abs=0.02)
    marks = (source.tokenizer.cls_id, source.tokenizer.sep_id)
    assert not np.isin(batch["targets"], marks).any()


def test_masks_are_dynamic_and_belong_to_the_row():
    source = masked_blocks.Source(generated_corpus("wordpiece"), length=32)
    steps = source.steps_per_pass(ROWS)
    one, later = batch_at(source, SEED, ROWS, 0), batch_at(source, SEED, ROWS, steps + 1)
    assert not np.array_equal(one["target_positions"], later["target_positions"])
    row = source.rows(SEED, ROWS)[5]
    np.testing.assert_array_equal(row["inputs"]["tokens"], one["inputs"]["tokens"][5])


def test_isolated_documents_are_numbered_with_the_mark_in_the_first():
    plain, apart = (masked_blocks.Source(generated_corpus("wordpiece"), length=32, isolate=on) for on in (False, True))
    one, two = (batch_at(source, SEED, ROWS, 1) for source in (plain, apart))
    assert "pack_ids" not in one["inputs"] and np.array_equal(one["inputs"]["tokens"], two["inputs"]["tokens"])
    packs, positions = two["inputs"]["pack_ids"], two["inputs"]["positions"]
    assert packs.dtype == positions.dtype == np.int32 and (packs[:, :2] == 1).all() and (packs.max(1) > 1).any()
    begins = np.diff(packs, axis=1)
    assert set(np.unique(begins)) == {0, 1}
    assert (positions[:, 0] == 0).all() and np.array_equal(positions[:, 1:], np.where(begins, 0, positions[:, :-1] + 1))
    before = np.take_along_axis(two["inputs"]["tokens"], np.maximum(np.argmax(begins, axis=1), 0)[:, None], axis=1)
    assert (before[begins.any(axis=1)] == apart.tokenizer.sep_id).all()  # a separator ends each


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="none of which is a mask"):
        masked_blocks.Source(generated_corpus("words"), length=32)
    with pytest.raises(ConfigError, match="0 < mask_prob < 1"):
        masked_blocks.Source(generated_corpus("wordpiece"), mask_prob=1.5)
