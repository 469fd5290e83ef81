"""Labelled texts in both layouts, to a trained classifier and the official tool."""

import json

import numpy as np
import pytest

import ctxjax
from ctxjax import config as configs
from ctxjax import convert, loop
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.data.sources.labelled_texts import Source
from ctxjax.text.subwords import text_rows

LINES = [("nature", "the river runs"), ("money", "the bank lent money"), ("nature", "the river bank")]


def write(folder, form):
    for split in ("train", "heldout"):
        if form == "txt":
            text = "".join(f"__label__{label} {words}\n" for label, words in LINES) + "no label here\n"
        else:
            text = "".join(json.dumps({"text": words, "label": label}) + "\n" for label, words in LINES)
        (folder / f"{split}.{form}").write_text(text)


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_rows_are_those_of_the_texts(tmp_path, form):
    write(tmp_path, form)
    options = {"buckets": 20, "word_ngrams": 2, "shortest": 3, "longest": 3}
    source = Source(tmp_path, length=64, **options)
    assert source.labels == ("nature", "money")
    assert source.tokenizer.pieces[3:8] == ["</s>", "the", "bank", "river", "lent"]
    batch = source.batch(0, 3, np.arange(3))
    found = {
        tuple(tokens[mask].tolist()): label
        for tokens, mask, label in zip(batch["inputs"]["tokens"], batch["inputs"]["mask"], batch["targets"])
    }
    expected = {
        tuple(text_rows(source.tokenizer, words, options).tolist()): ("nature", "money").index(label)
        for label, words in LINES
    }
    assert found == expected


def test_long_texts_are_cut_and_counted(tmp_path, capfd):
    write(tmp_path, "txt")
    batch = Source(tmp_path, length=4).batch(0, 3, np.arange(3))
    assert batch["inputs"]["mask"].sum(1).tolist().count(4) == 3
    said = capfd.readouterr().err
    assert "1 texts cut to source.length" in said and "1 texts without a label, left out" in said


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no train.txt or train.jsonl"):
        Source(tmp_path)
    write(tmp_path, "txt")
    with pytest.raises(ConfigError, match=r"buckets=0 has no rows"):
        Source(tmp_path, word_ngrams=2)
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"train.jsonl, line 1"):
        _ = Source(tmp_path).labels


def test_a_trained_classifier_in_use_and_in_the_official_tool(tmp_path):
    config = configs.load("experiments/fasttext/classify.py:size=pairs,smoke")
    with config.unlocked():
        config.total = "60 steps"
    import jax

    assert loop.train(config, tmp_path / "run", devices=jax.devices()[:1]) == 0
    model = ctxjax.load(tmp_path / "run")
    assert "classify" in model.can
    with open(f"{config.source.corpus}/heldout.txt") as file:
        lines = [line.strip().split(" ", 1) for line in file]
    texts = [text for _, text in lines]
    found = model.classify(texts)
    right = np.mean([f"__label__{best[0][0]}" == label for best, (label, _) in zip(found, lines)])
    assert right > 0.9
    fasttext = pytest.importorskip("fasttext")
    convert.convert(str(tmp_path / "run"), str(tmp_path / "out"), "fasttext")
    theirs = fasttext.load_model(str(tmp_path / "out" / "model.bin"))
    for text, [(label, probability)] in zip(texts[:20], found):
        labels, probabilities = theirs.predict(text)
        assert labels[0] == f"__label__{label}" and probabilities[0] == pytest.approx(probability, abs=2e-5)


def test_a_model_with_other_labels_or_rows_than_the_texts_is_refused():
    """JAX would take a row beyond the table for its last one, and say nothing."""
    config = configs.load("experiments/fasttext/classify.py:smoke")
    for field, value in (("labels", ("a", "b")), ("buckets", 7)):
        with configs.load("experiments/fasttext/classify.py:smoke").unlocked() as other:
            other.model[field] = value
            with pytest.raises(ConfigError, match=rf"config.model.{field}=.* is not config.source.{field}="):
                runs.assemble(other)
    assert runs.assemble(config).source.labels == config.model.labels
