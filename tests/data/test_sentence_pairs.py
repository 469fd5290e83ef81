"""The source for BERT: rows are the pairs of the index, masks belong to examples, passes come one after another."""

import hashlib
import pickle

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.corpus import Corpus
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources import sentence_pairs
from ctxjax.data.sources.sentence_pairs import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    generated.write_corpus(folder, "wordpiece", count=60)
    return folder


def unmasked(batch):
    """The rows with their targets put back."""
    tokens = batch["inputs"]["tokens"].copy()
    rows, columns = np.nonzero(batch["weights"])
    tokens[rows, batch["target_positions"][rows, columns]] = batch["targets"][rows, columns]
    return tokens


def test_rows_are_the_pairs_of_the_index(folder):
    source = Source(folder, length=48, max_predictions=7)
    tokenizer, index = source.tokenizer, source._index(0)
    everything, _ = source.corpus.read(0, source.corpus.num_sentences)
    count = len(index["a_len"])
    batch = source.examples(0, np.zeros(count, np.int64), np.arange(count))
    tokens = unmasked(batch)
    for row in range(count):
        a = everything[index["a_start"][row] :][: index["a_len"][row]].tolist()
        b = everything[index["b_start"][row] :][: index["b_len"][row]].tolist()
        expected = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
        padding = 48 - len(expected)
        assert tokens[row].tolist() == expected + [tokenizer.pad_id] * padding
        segments = [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        assert batch["inputs"]["segment_ids"][row].tolist() == segments
        assert batch["inputs"]["mask"][row].tolist() == [True] * len(expected) + [False] * padding
        assert batch["is_random"][row] == index["is_random"][row]
    assert not batch["inputs"]["cls_positions"].any() and batch["inputs"]["cls_positions"].shape == (count, 1)
    assert source.tokens_per_row == round(batch["inputs"]["mask"].sum() / count)


def test_true_next_sentences_follow_and_random_ones_come_from_elsewhere(folder):
    source = Source(folder, length=48)
    index, corpus = source._index(0), source.corpus
    bounds = corpus.sentence_tokens[corpus.document_sentences]
    of_a = np.searchsorted(bounds, index["a_start"], "right")
    of_b = np.searchsorted(bounds, index["b_start"], "right")
    true = index["is_random"] == 0
    assert (of_a[true] == of_b[true]).all() and (of_a[~true] != of_b[~true]).all()  # ten tries among 60 documents
    assert (index["b_start"][true] >= (index["a_start"] + index["a_len"])[true]).all()


def elements(source, seed, first, count):
    batch = source.batch(seed, 1, np.arange(first, first + count))
    names = [hashlib.sha256(row.tobytes()).hexdigest() for row in unmasked(batch)]
    return names, [row.tobytes() for row in batch["inputs"]["tokens"]]


def test_the_mask_does_not_depend_on_the_shuffle(folder, monkeypatch):
    def epoch(order):
        source = Source(folder, length=48)
        if order:
            keyed = sentence_pairs._order_key
            monkeypatch.setattr(sentence_pairs, "_order_key", lambda seed, epoch: keyed(seed + order, epoch))
        return elements(source, 5, 0, source.steps_per_pass(1))

    (names, masked), (other_names, other_masked) = epoch(0), epoch(1)
    assert names != other_names and sorted(masked) == sorted(other_masked)


def test_masks_differ_by_epoch_and_seed_and_pairs_by_pass(folder):
    source = Source(folder, length=48, passes=1)
    count = source.steps_per_pass(1)
    names, masked = elements(source, 5, 0, count)
    again, masked_again = elements(source, 5, count, count)
    assert names != again and sorted(names) == sorted(again)
    assert len(set(masked) & set(masked_again)) < 0.05 * count
    _, other_seed = elements(source, 6, 0, count)
    assert len(set(masked) & set(other_seed)) < 0.05 * count
    two = Source(folder, length=48, passes=2)
    first, second = len(two._index(0)["a_len"]), len(two._index(1)["a_len"])
    assert sorted(elements(two, 5, 0, first)[0]) == sorted(names)
    assert sorted(elements(two, 5, first, second)[0]) != sorted(names)
    assert sorted(elements(two, 5, first + second, first)[0]) == sorted(names)  # the passes come again


def test_static_masks_repeat(folder):
    source = Source(folder, length=48, static_masks=2)
    sizes = [len(source._index(number)["a_len"]) for number in range(2)]
    first = elements(source, 5, 0, sizes[0])[1]
    second = elements(source, 5, sizes[0], sizes[1])[1]
    third = elements(source, 5, sum(sizes), sizes[0])[1]
    assert sorted(first) == sorted(third) and first != third
    assert not set(first) & set(second)


def test_every_pair_comes_once_a_pass_and_a_batch_may_span_two(folder):
    source = Source(folder, length=48, passes=3)
    count, epochs = len(source._index(0)["a_len"]), []
    got = [source._locate(element) for element in range(2 * count)]
    assert [place for epoch, place in got if epoch == 0] == list(range(count))
    fresh = Source(folder, length=48, passes=3)  # asked for the far end first, as after a resume
    batch = fresh.batch(1, 8, np.arange(count - 4, count + 4))
    singles = [source.batch(1, 8, np.array([element])) for element in range(count - 4, count + 4)]
    epochs = np.concatenate([unmasked(single) for single in singles])
    assert (unmasked(batch) == epochs).all()
    assert (batch["inputs"]["tokens"] == np.concatenate([single["inputs"]["tokens"] for single in singles])).all()


def test_only_the_passes_that_are_needed_are_built(folder):
    source = Source(folder, length=40, passes=10)
    source.batch(0, 4, np.arange(4))
    assert len(source._indexes) == 1


def test_options(folder):
    plain = batch_at(Source(folder, length=48, next_sentence=False), 0, 16, 0)
    assert "is_random" not in plain and not plain["inputs"]["segment_ids"].any()
    sep = Source(folder).tokenizer.sep_id
    assert (unmasked(plain) == sep).sum() == 16
    source = Source(folder, length=48, whole_word=True, max_predictions=20)
    batch = batch_at(source, 0, 64, 0)
    chosen = np.zeros(batch["inputs"]["tokens"].shape, bool)
    rows, columns = np.nonzero(batch["weights"])
    chosen[rows, batch["target_positions"][rows, columns]] = True
    tokens, continues = unmasked(batch), source._continues
    inside = continues[tokens] & ~np.isin(np.roll(tokens, 1, axis=1), [source.tokenizer.cls_id, sep])
    assert inside.sum() > 100 and (chosen[inside] == np.roll(chosen, 1, axis=1)[inside]).all()
    ids = batch_at(Source(folder, split="heldout", length=48), 0, 4, 0)
    assert ids["inputs"]["tokens"].shape == (4, 48)


def test_fingerprint_names_what_decides_the_rows(folder, tmp_path):
    base = Source(folder).fingerprint
    assert base == pickle.loads(pickle.dumps(Source(folder))).fingerprint
    assert str(folder) not in str(base)
    changes = {"split": "heldout", "length": 64, "max_predictions": 3, "mask_prob": 0.2, "short_seq_prob": 0.2}
    changes |= {"next_sentence": False, "whole_word": True, "passes": 4, "static_masks": 2, "pair_seed": 1}
    for name, value in changes.items():
        assert Source(folder, **{name: value}).fingerprint != base, name
    generated.write_corpus(tmp_path, "wordpiece", count=61)
    assert Source(tmp_path).fingerprint != base


def test_mistakes_are_one_sentence(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.source\.corpus is empty"):
        Source()
    with pytest.raises(ConfigError, match="is not prepared"):
        Source(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"config\.source\.length=4 is not between"):
        Source(folder, length=4)
    with pytest.raises(ConfigError, match="max_predictions >= 1"):
        Source(folder, max_predictions=0)
    generated.write_corpus(tmp_path, "words", count=5)
    with pytest.raises(ConfigError, match="needs a corpus made with --tokenizer wordpiece"):
        Source(tmp_path)


def test_the_heldout_split_is_other_text(folder):
    train, heldout = Corpus(folder), Corpus(folder, "heldout")
    assert train.fingerprint != heldout.fingerprint and heldout.num_documents == 6
