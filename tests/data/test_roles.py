"""Rows of predicates: where the predicate, its mark and the tags are; mistakes; the official count of arguments."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.sources import roles
from ctxjax.evaluators.roles import Evaluator, arguments
from tests.data.test_conll2012 import ROWS, lines


@pytest.fixture
def make(tmp_path):
    def made(split="train", kind="wordpiece", heldout=ROWS, **fields):
        for name, rows in (("train", ROWS), ("development", heldout)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "x_conll").write_text("".join(lines(rows)))
        generated.make_tokenizer(kind).save(tmp_path / kind)
        return roles.Source(tmp_path, split, tokenizer=str(tmp_path / kind), **{"length": 60} | fields)

    return made


def test_a_row_for_each_predicate(make):
    source = make()
    assert [sentence.words[0] for sentence in source.sentences] == ["Mary", "Mary", "She"]
    assert source.labels == ("O", "B-ARG0", "I-ARG0", "B-ARG1", "I-ARG1", "B-V", "I-V")
    batch = source.take(np.array([1, 0, 2]))
    inputs, tokenizer = batch["inputs"], source.tokenizer
    for row, (number, predicate) in enumerate(((1, 8), (0, 1), (2, 1))):
        sentence = source.sentences[number]
        pieces = tokenizer.encode_words(sentence.words)
        size = len(pieces.ids)
        own = pieces.words == predicate
        expected = [tokenizer.cls_id, *pieces.ids, tokenizer.sep_id, *pieces.ids[own], tokenizer.sep_id]
        assert inputs["tokens"][row, inputs["mask"][row]].tolist() == expected
        marked = [0, *own.astype(int), 0, *[1] * (own.sum() + 1)]
        assert inputs["segment_ids"][row].tolist() == marked + [0] * (60 - len(marked))
        firsts = batch["weights"][row] > 0
        assert firsts.sum() == len(sentence.words) and not firsts[size + 1 :].any()
        assert tuple(source.labels[tag] for tag in batch["targets"][row, firsts]) == sentence.tags


def test_other_families_have_the_second_part_alone(make):
    batch = make(kind="byte_bpe", length=90).take(np.arange(3))
    assert set(batch["inputs"]) == {"tokens", "mask"} and batch["weights"].sum(1).tolist() == [10, 10, 2]


def test_mistakes_are_named(make, tmp_path):
    with pytest.raises(
        ConfigError, match=r"x_conll, line 2: a sentence and its predicate take 14 pieces, more than config.source"
    ):
        make(length=12).lengths  # noqa: B018
    strange = [[("a", "X", "(ARG7*)", "-"), ("b", "X", "(V*)", "-")]]
    with pytest.raises(ConfigError, match=r"x_conll, line 2: the tag 'B-ARG7' is not in .*train"):
        make("heldout", heldout=strange).take(np.array([0]))
    with pytest.raises(ConfigError, match="development has no predicate"):
        _ = make("heldout", heldout=[[("a", "X", "-")]]).sentences
    with pytest.raises(ConfigError, match=r"config.source.split='dev' is not one of train, heldout, test"):
        make("dev")
    with pytest.raises(ConfigError, match=r"config.source.tokenizer is empty"):
        roles.Source(tmp_path)


def test_the_predicate_is_no_argument(make):
    """Against seqeval: all spans in BIO but those of V."""
    metrics = pytest.importorskip("seqeval.metrics")
    source = make()
    draw = np.random.default_rng(0)
    source.sentences = source.sentences * 40
    told = [[source.labels[tag] for tag in draw.integers(0, 7, len(one.tags))] for one in source.sentences]
    evaluator = Evaluator.__new__(Evaluator)
    evaluator.by_kind, evaluator.source = True, source
    for row, one in zip(told[::2], source.sentences[::2]):
        row[:] = one.tags
    evaluator.told = lambda params: told
    found = evaluator.run(None)
    told, there = ([arguments(row) for row in some] for some in (told, [one.tags for one in source.sentences]))
    assert found["f1"] == pytest.approx(100 * metrics.f1_score(there, told))
    assert found["recall"] == pytest.approx(100 * metrics.recall_score(there, told)) and 10 < found["recall"] < 90
    assert set(found) == {"precision", "recall", "f1", "f1_ARG0", "f1_ARG1"}
