"""Several corpora in given shares: exact in every window, one order, one tokenizer."""

import fractions
import importlib
import itertools

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import generated_corpus, generated_mixture
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import blocks, mixture

BLOCKS = {"name": "blocks", "length": 16}


@pytest.fixture(scope="module")
def folder():
    return generated_mixture("byte_bpe", {"a": 60, "b": 30, "c": 30})


def test_turns_are_within_one_of_their_share_before_every_row():
    """All ratios of up to five small numbers, by exact arithmetic."""
    for turns in itertools.chain(
        itertools.product(range(1, 8), repeat=2),
        itertools.product(range(1, 6), repeat=3),
        itertools.product(range(1, 4), repeat=5),
    ):
        order = mixture.order_of_turns(list(turns))
        total = sum(turns)
        assert [int((order == k).sum()) for k in range(len(turns))] == list(turns)
        for k, turn in enumerate(turns):
            had = np.cumsum(order == k)
            apart = [abs(int(had[place]) - fractions.Fraction(turn * (place + 1), total)) for place in range(total)]
            assert max(apart) < 1


def test_rows_are_those_of_the_corpora_in_their_own_order(folder):
    source = mixture.Source(folder, weights={"b": 1, "a": 0.5, "c": 0}, of=BLOCKS)
    assert source.turns == {"a": 1, "b": 2}
    rows = [batch_at(source, 3, 10, step)["inputs"]["tokens"] for step in range(40)]
    found = np.concatenate(rows)
    singles = {name: blocks.Source(f"{folder}/{name}", length=16) for name in "ab"}
    had = {"a": 0, "b": 0}
    for place, row in enumerate(found):
        name = "ab"[int(source._table[place % 3])]
        alone = batch_at(singles[name], 3, 1, had[name])["inputs"]["tokens"][0]
        assert np.array_equal(row, alone)
        had[name] += 1
    assert had == {"a": 133, "b": 267} or had == {"a": 134, "b": 266}
    passes = source.passes(10, 40)
    assert passes == {name: had[name] / singles[name].blocks for name in "ab"}
    for low in range(0, 400, 7):  # any window
        for size in (1, 5, 50):
            mine = (source._table[np.arange(low, low + size) % 3] == 0).sum()
            assert abs(mine - size / 3) < 2


def test_the_batch_size_moves_no_row(folder):
    source = mixture.Source(folder, weights={"a": 3, "b": 2, "c": 1}, of=BLOCKS)
    small = np.concatenate([batch_at(source, 0, 4, step)["targets"] for step in range(6)])
    assert np.array_equal(small, batch_at(source, 0, 24, 0)["targets"])
    total = sum(source.steps_per_pass(1) for source in source.sources.values())
    assert source.steps_per_pass(4) == total // 4 and source.length == 16 and source.tokens_per_row == 16


def test_one_corpus_alone_is_that_corpus(folder):
    source = mixture.Source(folder, weights={"a": 7}, of=BLOCKS)
    alone = blocks.Source(f"{folder}/a", length=16)
    assert np.array_equal(batch_at(source, 1, 8, 2)["targets"], batch_at(alone, 1, 8, 2)["targets"])


def test_weights_and_contents_are_in_the_fingerprint(folder):
    def made(**weights):
        return mixture.Source(folder, weights=weights, of=BLOCKS).fingerprint

    assert made(a=1, b=2) == made(b=4, a=2) != made(a=1, b=1)
    assert made(a=1, b=2) != made(a=1, c=2) or made(b=1) == made(c=1)  # b and c hold the same text


@pytest.mark.parametrize(
    "weights, of, message",
    [
        ({}, BLOCKS, "needs weights"),
        ({"a": 1}, {}, "and of"),
        ({"a": -1, "b": 2}, BLOCKS, "are not shares"),
        ({"a": 0}, BLOCKS, "are not shares"),
        ({"a": float("nan")}, BLOCKS, "are not shares"),
        ({"a": 1 / 3, "b": 1}, BLOCKS, "round them"),
        ({"a": 1, "z": 1}, BLOCKS, "z is not prepared"),
        ({"a": 1}, {"name": "block"}, "did you mean 'blocks'"),
        ({"a": 1}, BLOCKS | {"lenght": 3}, "did you mean 'length'"),
    ],
)
def test_mistakes_are_one_sentence(folder, weights, of, message):
    with pytest.raises(ConfigError, match=message):
        mixture.Source(folder, weights=weights, of=of)


def test_other_tokenizers_and_continuing_text_are_refused(folder, tmp_path):
    (tmp_path / "a").symlink_to(f"{folder}/a")
    (tmp_path / "pieces").symlink_to(generated_corpus("wordpiece"))
    with pytest.raises(ConfigError, match=r"/a and .*/pieces have different tokenizers; prepare pieces with --vocab"):
        mixture.Source(tmp_path, weights={"a": 1, "pieces": 1}, of=BLOCKS)
    (tmp_path / "words").symlink_to(generated_corpus("words"))
    with pytest.raises(ConfigError, match=r"'streams' continues a text"):
        mixture.Source(tmp_path, weights={"words": 1}, of={"name": "streams", "length": 5})


def test_a_plan_needs_no_corpus():
    fields = {"weights": {"wiki": 3, "books": 1}, "of": {"name": "masked_blocks", "length": 32}}
    given = importlib.import_module("ctxjax.data.sources.mixture").stand_in(fields)
    assert mixture.Source(**given, **fields).tokens_per_row == 32
