"""Labelled texts as their language model read them: sentences with end marks, directions, limits, batches by length."""

import json

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources.long_texts import Source, balanced
from ctxjax.text.words import SPECIALS, Words

WORDS = [*SPECIALS, "xbos", "a", "b", "c", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    Words(WORDS).save(folder / "tokenizer")
    for split, count in (("train", 60), ("heldout", 7)):
        texts = [
            {"text": "xbos " + "a b . C c . "[: 2 + n % 11] + " a" * (n % 17), "label": "yx"[n % 3 == 0]}
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


def open_(folder, **fields):
    return Source(folder, tokenizer=str(folder / "tokenizer"), **{"length": 24} | fields)


def test_sentences_end_with_the_mark_and_directions_turn_the_text(tmp_path):
    Words(WORDS).save(tmp_path / "tokenizer")
    lines = [{"text": "xbos a b.\n\nC d.", "label": "1"}, {"text": "a", "label": "0"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    expected = [WORDS.index(word) for word in ("xbos", "a", "b", ".", "</S>", "<UNK>", "<UNK>", ".", "</S>")]
    for direction, length, words in (
        ("forward", 12, expected),
        ("backward", 12, expected[::-1]),
        ("forward", 4, expected[-4:]),  # what is kept is the end, as it is read
        ("backward", 4, expected[::-1][-4:]),
    ):
        row = open_(tmp_path, direction=direction, length=length).take(np.array([0]))
        assert row["inputs"]["tokens"][0].tolist() == words + [0] * (length - len(words))
        assert row["inputs"]["mask"][0].sum() == len(words) and row["targets"].tolist() == [1]
    assert open_(tmp_path).labels == ("0", "1")
    dropped = open_(tmp_path, length=4).dropped(2)
    assert dropped["words of texts over config.source.length=4"] == 5


def test_a_limit_takes_labels_in_turn_and_smaller_ones_are_part_of_it(folder):
    source = open_(folder, limit=10)
    assert source.count == 10 and np.bincount(source.targets).tolist() == [5, 5]
    assert set(source._chosen) < set(open_(folder, limit=20)._chosen)
    assert open_(folder, split="heldout", limit=10).count == 7
    assert np.bincount(np.array([0, 0, 0, 1])[balanced(np.array([0, 0, 0, 1]), 3)]).tolist() == [2, 1]
    with pytest.raises(ConfigError, match="limit=61 is more than the 60 texts"):
        _ = open_(folder, limit=61).count


def test_batches_hold_texts_of_similar_length_and_every_text_once(folder):
    source = open_(folder, together=50)
    lengths = lambda together: [
        batch_at(open_(folder, together=together), 0, 4, step)["inputs"]["mask"].sum(1) for step in range(15)
    ]
    spread = {together: sum(int(each.max() - each.min()) for each in lengths(together)) for together in (1, 50)}
    assert spread[50] < spread[1] / 3
    seen = np.concatenate([source._order(0, 4, number) for number in range(2)])
    assert sorted(seen[:60]) == sorted(seen[60:]) == list(range(60)) and (seen[:60] != seen[60:]).any()
    assert source.steps_per_pass(7) == 8 and len(set(source._order(0, 7, 0))) == 56
    with pytest.raises(ConfigError, match="batch_size=64 is more than the 60 texts"):
        batch_at(source, 0, 64, 0)


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"has no test\.jsonl or test\.txt"):
        open_(folder, split="test")
    with pytest.raises(ConfigError, match="direction='up' is not one of"):
        open_(folder, direction="up")
    with pytest.raises(ConfigError, match="tokenizer is empty"):
        Source(folder)
    Words(WORDS).save(tmp_path / "tokenizer")
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "1"}\n{"text": "b", "label": "0"}\n')
    (tmp_path / "heldout.jsonl").write_text('{"text": "a", "label": "2"}\n')
    with pytest.raises(ConfigError, match=r"heldout.jsonl, text 1: the label '2' is not in .*train.jsonl"):
        _ = open_(tmp_path, split="heldout").count
    (tmp_path / "heldout.jsonl").write_text('{"text": " ", "label": "1"}\n')
    with pytest.raises(ConfigError, match="text 1: no word is left of"):
        _ = open_(tmp_path, split="heldout").count
