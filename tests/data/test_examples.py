"""Rows of tasks: what a model is given of a pair, of both its orders, of choices and of words' characters."""

import json

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import make_tokenizer
from ctxjax.data.pipeline import batch_at
from ctxjax.data.sources.examples import Source, example, stand_in
from ctxjax.data.tasks.files import BROKEN
from ctxjax.text import characters

PAIRS = [("bade figo", "kula"), ("sa te vi", "wo zu"), ("kula kula", "bade")]


@pytest.fixture
def folder(tmp_path):
    for kind in ("wordpiece", "bpe", "words"):
        make_tokenizer(kind).save(tmp_path / kind)
    write(tmp_path / "train.jsonl", [{"texts": pair, "label": f"{place}"} for place, pair in enumerate(PAIRS)])
    write(tmp_path / "heldout.jsonl", [{"texts": PAIRS[1], "label": "2"}, {"texts": PAIRS[0], "label": "0"}])
    write(tmp_path / "test.jsonl", [{"texts": PAIRS[2]}])
    return tmp_path


def write(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def make(folder, kind="wordpiece", split="train", task="own.pairs", **more):
    return Source(folder, split, task, str(folder / kind), **{"length": 16, **more})


def pieces(source, tokens, mask):
    return [source.tokenizer.pieces[token] for token in tokens[mask].tolist()]


def plain(source, text):
    return [source.tokenizer.pieces[token] for token in source.tokenizer.encode(text).ids.tolist()]


def test_pairs_of_bert(folder):
    source = make(folder)
    assert source.labels == ("0", "1", "2") and source.steps_per_pass(2) == 1
    rows = source.take(np.array([1]))
    inputs = rows["inputs"]
    a, b = (plain(source, text) for text in PAIRS[1])
    assert pieces(source, inputs["tokens"][0], inputs["mask"][0]) == ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
    assert inputs["segment_ids"][0].sum() == len(b) + 1 and inputs["cls_positions"].tolist() == [[0]]
    assert rows["targets"].tolist() == [1] and rows["targets"].dtype == np.int32 and rows["weights"].tolist() == [1.0]
    assert source.lengths.tolist() == [len(plain(source, a)) + len(plain(source, b)) + 3 for a, b in PAIRS]
    short = source.take(np.array([1]), 12)["inputs"]["tokens"]
    assert np.array_equal(short, inputs["tokens"][:, :12])


def test_both_orders_of_gpt(folder):
    source = make(folder, "bpe", task="own.scores", both_orders=True)
    inputs = source.take(np.array([0]))["inputs"]
    a, b = (plain(source, text) for text in PAIRS[0])
    assert "segment_ids" not in inputs and inputs["tokens"].shape == (1, 2, 16)
    for order, (one, two) in enumerate([(a, b), (b, a)]):
        row = pieces(source, inputs["tokens"][0, order], inputs["mask"][0, order])
        assert row == ["<start>", *one, "<delimiter>", *two, "<classify>"]
        assert inputs["cls_positions"][0, order, 0] == len(row) - 1
    assert source.take(np.array([2]))["targets"].tolist() == [2.0] and source.labels == ()
    with pytest.raises(ConfigError, match=r"both_orders: the two texts of own.pairs may not change places"):
        make(folder, both_orders=True)


def test_texts_apart(folder):
    source = make(folder, "words", apart=True, framing="bare")
    inputs = source.take(np.array([0]))["inputs"]
    assert [pieces(source, inputs["tokens"][0, row], inputs["mask"][0, row]) for row in (0, 1)] == [
        plain(source, text) for text in PAIRS[0]
    ]


def test_choices(folder):
    write(folder / "train.jsonl", [{"texts": ["bade", "kula", "sa te"], "label": 1}])
    source = make(folder, task="own.choices")
    rows = source.take(np.array([0]))
    assert rows["inputs"]["tokens"].shape == (1, 2, 16) and rows["targets"].tolist() == [1]
    for row, choice in enumerate(["kula", "sa te"]):
        found = pieces(source, rows["inputs"]["tokens"][0, row], rows["inputs"]["mask"][0, row])
        assert found == ["[CLS]", *plain(source, "bade"), "[SEP]", *plain(source, choice), "[SEP]"]


def test_characters_are_those_of_words_outside_the_vocabulary_too(folder):
    write(folder / "train.jsonl", [{"texts": ["xyzzy Qué", "bade plugh"], "label": "a"}] * 3)
    source = make(folder, "words", max_chars=12)
    inputs = source.take(np.array([2]))["inputs"]
    words = ["<S>", "xyzzy", "Qué", "</S>", "<S>", "bade", "plugh", "</S>"]
    assert np.array_equal(inputs["chars"][0, : len(words)], characters.table(words, 12))
    assert (inputs["chars"][0, len(words) :] == characters.PAD).all() and inputs["cls_positions"][0, 0] == len(
        words
    ) - 1


def test_a_pass_is_a_permutation_and_a_limit_a_part(folder):
    source = make(folder)
    seen = np.concatenate([batch_at(source, 3, 1, step)["targets"] for step in range(6)])
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]
    many = [{"texts": PAIRS[place % 3], "label": str(place % 2)} for place in range(50)]
    write(folder / "train.jsonl", many)
    ids = [[one.id for one in make(folder, limit=limit).examples] for limit in (0, 10, 20)]
    assert [len(each) for each in ids] == [50, 10, 20] and set(ids[1]) < set(ids[2]) < set(ids[0])
    assert len(make(folder, split="heldout", limit=1).examples) == 2


def test_splits_without_a_file_are_drawn_from_the_training_file(tmp_path):
    make_tokenizer("wordpiece").save(tmp_path / "wordpiece")
    lines = [f"{place % 2} word{place} figo\n" for place in range(400)]
    (tmp_path / "rt-polarity.all").write_text("".join(lines))
    parts = {
        split: make(tmp_path, split=split, task="sentiment.mr", share=0.2) for split in ("train", "heldout", "test")
    }
    ids = [one.id for part in parts.values() for one in part.examples]
    assert sorted(ids, key=int) == [str(place) for place in range(400)]
    assert 50 < len(parts["heldout"].examples) < 110 and 50 < len(parts["test"].examples) < 110
    whole = make(tmp_path, task="sentiment.mr", share=0.0)
    assert len(whole.examples) == 400
    with pytest.raises(ConfigError, match="no examples of the split 'heldout'"):
        _ = make(tmp_path, split="heldout", task="sentiment.mr", share=0.0).examples


def test_what_is_left_out_or_cut_is_counted(tmp_path):
    make_tokenizer("wordpiece").save(tmp_path / "wordpiece")
    rows = ["1\t2\t3\ta b\tc\t1", "4\t5\tbroken", f"1\t2\t3\t{'kula ' * 30}\tc\t0", "1\t2\t3\ta\tc\t"]
    text = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n" + "".join(f"{row}\n" for row in rows)
    (tmp_path / "train.tsv").write_text(text)
    source = make(tmp_path, task="glue.qqp")
    assert [one.target for one in source.examples] == ["1", "0"] and BROKEN not in source.labels
    assert list(source.dropped(1).values()) == [1, 1, 1]
    assert source.lengths.max() == 16


def test_mistakes_are_named(folder):
    write(folder / "heldout.jsonl", [{"texts": PAIRS[0], "label": "9"}])
    with pytest.raises(ConfigError, match=r"heldout.jsonl, line 1: the label '9' is not one of 0, 1, 2"):
        make(folder, split="heldout").take(np.array([0]))
    write(folder / "train.jsonl", [{"texts": ["a", " "], "label": "0"}])
    with pytest.raises(ConfigError, match=r"train.jsonl, line 1: an empty text"):
        _ = make(folder).examples
    for fields, message in (
        ({"task": "own.pair"}, "did you mean 'pairs'"),
        ({"split": "dev"}, "config.source.split='dev' is no split of own.pairs"),
        ({"task": ""}, "config.source.task is empty"),
        ({"limit": -1}, "limit >= 0"),
        ({"task": "own.labels", "apart": True}, "has no pairs"),
        ({"task": "glue.rte"}, "has no train.tsv for 'train'"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(folder, **fields)
    assert make(folder, split="test").targets() is None
    with pytest.raises(ConfigError, match=r"config.source.tokenizer is empty"):
        Source(folder, task="own.pairs")


@pytest.mark.parametrize("task", ["glue.cola", "glue.stsb", "glue.rte", "choices.swag", "choices.dream"])
def test_a_stand_in_has_the_shapes(task):
    fields = stand_in({"task": task, "framing": ""})
    choices = {"choices.swag": (4,), "choices.dream": (3,)}.get(task, ())
    assert Source(**fields).take(np.array([0]))["inputs"]["tokens"].shape == (1, *choices, 128)
    assert example().task.kind == "classify"
