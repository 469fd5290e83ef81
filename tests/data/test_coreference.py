"""Rows of documents: segments, words, mentions; what is too long is left out and counted; a model that tells all."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.sources import coreference
from ctxjax.evaluators.coreference import Evaluator
from tests.data.test_conll2012 import ROWS, lines


@pytest.fixture
def make(tmp_path):
    def made(**fields):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / "x_conll").write_text("".join(lines() + lines(ROWS[2:], part=1)))
        generated.make_tokenizer("wordpiece").save(tmp_path / "pieces")
        sizes = {"length": 14, "segments": 2, "words": 13, "mentions": 6}
        return coreference.Source(tmp_path, tokenizer=str(tmp_path / "pieces"), **sizes | fields)

    return made


def test_a_row_is_a_document(make):
    source = make()
    batch, tokenizer = source.take(np.array([1, 0])), source.tokenizer
    inputs = batch["inputs"]
    assert inputs["tokens"].shape == (2, 2, 14) and inputs["mask"].sum((1, 2)).tolist() == [4, 13 + 4]
    assert (inputs["tokens"][:, 0, 0] == tokenizer.cls_id).all()
    document = source.documents[0]
    flat = inputs["tokens"][1].reshape(-1)
    for place, word in zip(batch["word_places"][1], document.words):
        assert flat[place] == tokenizer.encode(word).ids[0]
    assert batch["word_places"][1].tolist() == [*range(1, 12), 15, 16]  # the third sentence is a segment of its own
    assert batch["word_sentences"][1].tolist() == [0] * 10 + [1, 2, 2] and (batch["word_places"][0, 2:] == -1).all()
    expected = [[0, 1, 1], [5, 6, 1], [11, 12, 1], [2, 7, 2], [9, 10, 2], [5, 7, 3]]
    assert batch["targets"][1].tolist() == expected and (batch["weights"][1] == 1).all()
    assert batch["targets"][0].tolist() == [[0, 1, 1]] + [[0, 0, 0]] * 5 and batch["weights"][0].sum() == 3


@pytest.mark.parametrize(
    ("fields", "words", "mentions"),
    [
        ({"words": 12}, 1, 0),
        ({"words": 9}, 4, 2),
        ({"segments": 1}, 2, 1),
        ({"mentions": 4}, 0, 2),
        ({"length": 8}, 2, 1),
    ],
)
def test_what_is_too_long_is_left_out_and_counted(make, capsys, fields, words, mentions):
    source = make(**fields)
    batch = source.take(np.array([0]))
    said = capsys.readouterr().err
    assert (f"train: {words} words left out" in said) == bool(words)
    assert (f"train: {mentions} mentions left out" in said) == bool(mentions)
    assert (batch["word_places"] >= 0).sum() == 13 - words and batch["weights"][0, :, 0].sum() == 6 - mentions


def test_mistakes_are_named(make, tmp_path):
    with pytest.raises(ConfigError, match="segments, words and mentions >= 1"):
        make(segments=0)
    with pytest.raises(ConfigError, match=r"config.source.tokenizer is empty"):
        coreference.Source(tmp_path)
    with pytest.raises(ConfigError, match=r"config.source.split='dev' is not one of"):
        make(split="dev")


def test_a_model_that_tells_the_truth_has_100(make, monkeypatch):
    evaluator = Evaluator.__new__(Evaluator)
    evaluator.source = make()
    monkeypatch.setattr(evaluator, "told", lambda params: [one.clusters for one in evaluator.source.documents])
    assert evaluator.run(None)["f1"] == pytest.approx(100.0)
    monkeypatch.setattr(evaluator, "told", lambda params: [[]] * 2)
    assert evaluator.run(None)["f1"] == 0.0
