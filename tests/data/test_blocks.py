"""Blocks of running text: every token once a pass, documents whole, separators between them."""

import itertools

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import blocks


@pytest.fixture(scope="module")
def source():
    return blocks.example()


def text_of_pass(source, seed, number):
    """The blocks of a pass put in the order of the text, from what `rows` gives."""
    elements = np.arange(number * source.blocks, (number + 1) * source.blocks)
    made = source.batch(seed, 1, elements)
    rows = np.concatenate([made["inputs"]["tokens"], made["targets"][:, -1:]], axis=1)
    by_start = {row[:-1].tobytes(): row for row in rows}
    index = source._pass(seed, number)
    out, whole = np.empty(source.length + 1, np.int32), []
    for block in range(source.blocks):
        source._read(index, block * source.length, out)
        whole.append(by_start.pop(out[:-1].tobytes())[:-1])
    assert not by_start
    return np.concatenate([*whole, out[-1:]])


def test_a_pass_is_every_document_once_with_a_separator_behind_it(source):
    corpus, separator = source.corpus, source.tokenizer.end_id
    text = text_of_pass(source, 3, 1)
    bounds = corpus.sentence_tokens[corpus.document_sentences]
    wanted = sorted((*corpus.read_tokens(int(a), int(b))[0].tolist(), separator) for a, b in itertools.pairwise(bounds))
    total = corpus.num_tokens + corpus.num_documents
    assert 0 <= total - len(text) < source.length  # what is behind the last whole block
    ends = np.flatnonzero(text == separator)
    found = [tuple(part.tolist()) for part in np.split(text, ends + 1)]
    assert set(found[:-1]) <= set(wanted) and len(found) - 1 >= len(wanted) - 2


def test_targets_are_the_tokens_one_place_later_across_documents(source):
    made = batch_at(source, 0, 64, 0)
    assert np.array_equal(made["inputs"]["tokens"][:, 1:], made["targets"][:, :-1])
    assert (made["inputs"]["tokens"] == source.tokenizer.end_id).any() and made["weights"].all()


def test_passes_and_seeds_join_the_documents_otherwise(source):
    orders = [source._pass(seed, number)["order"] for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert len({order.tobytes() for order in orders}) == 3
    assert all(np.array_equal(np.sort(order), np.arange(source.corpus.num_documents)) for order in orders)


def test_passes_follow_without_a_gap(source):
    """The last batch of a pass that it does not fill is filled from the next."""
    size = 7
    step = source.blocks // size
    made = batch_at(source, 0, size, step)["inputs"]["tokens"]
    left = source.blocks - step * size
    again = source.batch(0, 1, np.arange(source.blocks, source.blocks + size - left))["inputs"]["tokens"]
    assert np.array_equal(made[left:], again)


def test_isolated_documents_are_numbered_and_positions_begin_again(source):
    apart = blocks.Source(source.corpus.folder, length=source.length, isolate=True)
    plain, made = (batch_at(one, 0, 64, 1) for one in (source, apart))
    inputs, end, several = made["inputs"], source.tokenizer.end_id, 0
    assert np.array_equal(plain["inputs"]["tokens"], inputs["tokens"])
    assert np.array_equal(plain["targets"], made["targets"])
    assert apart.fingerprint != source.fingerprint == blocks.Source(source.corpus.folder, length=32).fingerprint
    for tokens, packs, positions, weights in zip(
        inputs["tokens"], inputs["pack_ids"], inputs["positions"], made["weights"]
    ):
        begins = [0, *(np.flatnonzero(tokens[:-1] == end) + 1).tolist()]  # the separator ends a document
        expected = np.searchsorted(begins, np.arange(source.length), "right")
        assert packs.tolist() == expected.tolist()
        assert positions.tolist() == [place - begins[pack - 1] for place, pack in enumerate(expected)]
        assert np.array_equal(weights == 0, tokens == end)  # what a separator would tell is of the next document
        several += len(begins) > 1
    assert several > 3


def test_a_row_longer_than_the_text(source):
    with pytest.raises(ConfigError, match=r"less than a row; lower config\.source\.length"):
        blocks.Source(source.corpus.folder, length=10**7)
    with pytest.raises(ConfigError, match="length=0"):
        blocks.Source(source.corpus.folder, length=0)
