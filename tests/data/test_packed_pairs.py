"""Packed rows hold the examples of `sentence_pairs` to the bit, each once a pass, and little else."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import packed_pairs, sentence_pairs

LENGTH = 64
FIELDS = {"length": LENGTH, "max_predictions": 10, "passes": 2}


@pytest.fixture(scope="module")
def folder():
    from ctxjax.data.generated import generated_corpus

    return generated_corpus("wordpiece")


@pytest.fixture(scope="module")
def source(folder):
    return packed_pairs.Source(folder, max_examples=5, **FIELDS)


def unpacked(batch):
    """The examples of rows, each in lists."""
    inputs = batch["inputs"]
    assert (inputs["mask"] == (inputs["pack_ids"] > 0)).all() and (batch["pair_weights"].sum(1) >= 1).all()
    for row in range(len(inputs["tokens"])):
        count = int(batch["pair_weights"][row].sum())
        assert inputs["pack_ids"][row].max() == count and (batch["pair_weights"][row, :count] == 1).all()
        told = batch["weights"][row] > 0
        places = batch["target_positions"][row][told]
        assert (np.diff(places) > 0).all() and not told[told.sum() :].any()
        for slot in range(count):
            here = np.flatnonzero(inputs["pack_ids"][row] == slot + 1)
            assert (np.diff(here) == 1).all() and here[0] == inputs["cls_positions"][row, slot]
            assert inputs["positions"][row][here].tolist() == list(range(len(here)))
            mine = np.isin(places, here)
            yield (
                inputs["tokens"][row][here].tolist(),
                inputs["segment_ids"][row][here].tolist(),
                (places[mine] - here[0]).tolist(),
                batch["targets"][row][told][mine].tolist(),
                int(batch["is_random"][row, slot]),
            )


def alone(batch):
    for row in range(len(batch["is_random"])):
        real, told = batch["inputs"]["mask"][row], batch["weights"][row] > 0
        yield (
            batch["inputs"]["tokens"][row][real].tolist(),
            batch["inputs"]["segment_ids"][row][real].tolist(),
            batch["target_positions"][row][told].tolist(),
            batch["targets"][row][told].tolist(),
            int(batch["is_random"][row]),
        )


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_pass_is_the_examples_of_sentence_pairs_to_the_bit(folder, source, epoch):
    plain = sentence_pairs.Source(folder, **FIELDS)
    count = plain._count(epoch)
    single = plain.examples(4, np.full(count, epoch), np.arange(count))
    rows = source._count(epoch)
    packed = source.packed(4, np.full(rows, epoch), np.arange(rows))
    assert sorted(unpacked(packed)) == sorted(alone(single))
    assert rows < count and packed["is_random"].shape == (rows, 5)


def test_a_batch_over_the_end_of_a_pass_has_rows_of_both(source):
    first = source._count(0)
    elements = np.arange(first - 3, first + 3)
    together = source.batch(4, 6, elements)
    for row, element in enumerate(elements):
        single = source.batch(4, 1, np.array([element]))
        assert (single["inputs"]["tokens"][0] == together["inputs"]["tokens"][row]).all()
        assert (single["targets"][0] == together["targets"][row]).all()


def test_padding_is_what_it_says_and_small(folder, source):
    rows = source._count(0)
    mask = source.packed(0, np.zeros(rows, np.int64), np.arange(rows))["inputs"]["mask"]
    assert source.padding == pytest.approx(1 - mask.mean()) and source.tokens_per_row == round(mask.sum() / rows)
    plain = sentence_pairs.Source(folder, **FIELDS)
    assert source.padding < 0.02 < 0.08 < 1 - plain.tokens_per_row / LENGTH
    assert packed_pairs.Source(folder, max_examples=1, **FIELDS)._count(0) == plain._count(0)


@pytest.mark.parametrize("mask_prob", [0.05, 0.15, 0.4])
@pytest.mark.parametrize("next_sentence", [True, False])
def test_predictions_of_a_row_always_fit(folder, mask_prob, next_sentence):
    fields = {**FIELDS, "max_predictions": 64, "mask_prob": mask_prob, "next_sentence": next_sentence}
    source = packed_pairs.Source(folder, short_seq_prob=0.9, **fields)
    rows = source._count(0)
    batch = source.packed(0, np.zeros(rows, np.int64), np.arange(rows))
    assert batch["weights"].shape[1] == source.predictions < 0.6 * LENGTH
    counts = batch["weights"].sum(1)
    assert counts.max() > 0.4 * source.predictions
    assert ("is_random" in batch) == ("pair_weights" in batch) == next_sentence


def test_what_decides_the_rows_is_in_the_fingerprint(folder, source):
    changes = {"max_examples": 4, "window": 100, "length": 48, "short_seq_prob": 0.2}
    for name, value in changes.items():
        other = packed_pairs.Source(folder, **{"max_examples": 5, **FIELDS, name: value})
        assert other.fingerprint != source.fingerprint, name
    fewer = packed_pairs.Source(folder, window=20, max_examples=5, **FIELDS)
    assert fewer._count(0) > source._count(0)
    assert batch_at(fewer, 0, 4, 0)["inputs"]["tokens"].shape == (4, LENGTH)


def test_mistakes_are_one_sentence(folder):
    with pytest.raises(ConfigError, match="max_examples >= 1 and window >= 1"):
        packed_pairs.Source(folder, max_examples=0)
    with pytest.raises(ConfigError, match="corpus is empty"):
        packed_pairs.Source()
