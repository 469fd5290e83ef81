"""Rows of tagged sentences: words, characters, tags and stored vectors of the same sentence; mistakes; the store."""

import functools
import pathlib
import types

import numpy as np
import pytest

import ctxjax
from ctxjax import storing
from ctxjax.config import ConfigError
from ctxjax.data import generated, stored
from ctxjax.data.sources import tagged
from ctxjax.text import characters, tags

TEXT = "EU NNP I-ORG\nrejects VBZ O\nGerman JJ I-MISC\nlamb NN O\n\nPeter NNP I-PER\nBlackburn NNP I-PER\n\n"
TEXT += "1996-08-22 CD O\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("eng.train", "eng.testa", "eng.testb"):
        (tmp_path / name).write_text(TEXT)
    return tmp_path


def test_a_row_is_its_sentence(folder):
    source = tagged.Source(folder, length=5, max_chars=12)
    kinds = ("MISC", "ORG", "PER")
    assert source.labels == ("O", *(f"{mark}-{kind}" for kind in kinds for mark in "BIES"))
    assert source.tokenizer.pieces[3:] == sorted("eu rejects german lamb peter blackburn 0000-00-00".split())
    batch = source.take(np.array([1, 0, 2]))
    assert batch["weights"].sum(1).tolist() == [2, 4, 1] and np.array_equal(
        batch["weights"] > 0, batch["inputs"]["mask"]
    )
    told = [[source.labels[tag] for tag in row] for row in batch["targets"].tolist()]
    assert told[0] == ["B-PER", "E-PER", "O", "O", "O"] and told[1][:4] == ["S-ORG", "O", "S-MISC", "O"]
    words = [source.tokenizer.pieces[token] for token in batch["inputs"]["tokens"][1, :4]]
    assert words == ["eu", "rejects", "german", "lamb"]
    assert source.tokenizer.pieces[batch["inputs"]["tokens"][2, 0]] == "0000-00-00"
    expected = characters.table(["EU", "rejects", "German", "lamb"], 12)
    assert np.array_equal(batch["inputs"]["chars"][1, :4], expected)
    assert (batch["inputs"]["chars"][1, 4:] == characters.PAD).all() and "features" not in batch["inputs"]


def test_a_pass_has_every_sentence_once():
    source = tagged.Source(generated.generated_tags(), length=64, max_chars=0)
    count = len(source.sentences)
    order = [source.batch(3, 10, np.arange(pass_ * count, (pass_ + 1) * count))["inputs"]["tokens"] for pass_ in (0, 1)]
    rows = [sorted(row.tobytes() for row in one) for one in order]
    assert rows[0] == rows[1] == sorted(row.tobytes() for row in source.take(np.arange(count))["inputs"]["tokens"])
    assert not np.array_equal(*order)


def test_parts_of_speech_say_no_spans(folder):
    source = tagged.Source(folder, length=5, read="", scheme="", tag=1)
    assert source.labels == ("CD", "JJ", "NN", "NNP", "VBZ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 3}, r"eng.train, line 1: a sentence of 4 words is longer than config.source.length=3"),
        ({"read": "BIO"}, r"eng.train, line 1: 'I-ORG' does not stand at the beginning of a sentence in BIO"),
        ({"read": ""}, r"config.source.read='': both are one of IOB1, BIO, BIOES"),
        ({"split": "dev"}, r"config.source.split='dev' is not one of train, heldout, test"),
        ({"train": "none"}, r"config.source.train: there is no file .*none"),
        ({"vectors_of": ("nowhere",)}, r"config.source.vectors_of: nowhere does not exist"),
    ],
)
def test_mistakes_are_named(folder, fields, message):
    with pytest.raises(ConfigError, match=message):
        source = tagged.Source(folder, **{"length": 5, **fields})
        source.take(np.array([0]))


def test_tags_that_training_does_not_have_are_named(folder):
    (folder / "eng.testa").write_text("Rome NNP I-LOC\n")
    with pytest.raises(ConfigError, match=r"eng.testa, line 1: the tag 'S-LOC' is not in .*eng.train"):
        tagged.Source(folder, "heldout", length=5).take(np.array([0]))


class Still:
    """As `ctxjax.load` opens a model of three layers; layer l of a word is l, its letters, and the words around it."""

    can = ("embed",)

    def __init__(self):
        self.runner = types.SimpleNamespace(longest=None)

    def need(self, method):
        one_piece = lambda words: types.SimpleNamespace(owners=np.arange(len(words)))
        return types.SimpleNamespace(encode=one_piece, marks=2)

    def stream(self, texts, layers="all", pool="mean"):
        for words in texts:
            rows = [[[layer, len(word), len(words)] for word in words] for layer in range(3)]
            yield types.SimpleNamespace(layers=np.array(rows[-1:] if layers == "top" else rows, np.float32))


def test_any_layers_are_stored_and_all_of_them_serve_for_some(folder):
    (folder / "model").write_text("")
    make = lambda **fields: tagged.Source(folder, length=5, max_chars=0, vectors_of=(f"{folder}/model",), **fields)
    last_two = make(layers="-2:")
    assert storing.store(last_two, 0, Still()).shape == (7, 2, 3)
    assert (last_two.features, last_two.feature_layers) == (3, 2)
    batch = last_two.take(np.array([1, 0]))["inputs"]["features"]
    assert batch.shape == (2, 5, 2, 3) and batch[0, :2, :, 0].tolist() == [[1, 2], [1, 2]] and not batch[0, 2:].any()
    with pytest.raises(ConfigError, match="are not stored: run python -m"):
        make(layers="0").take(np.array([0]))
    with pytest.raises(ConfigError, match=r"config\.source\.layers='3' are none of the 3 layers"):
        storing.store(make(layers="3"), 0, Still())
    storing.store(make(layers="all"), 0, Still())
    token = make(layers="0")  # a view of what is stored of all layers: no model runs
    assert token.take(np.array([0]))["inputs"]["features"].shape == (1, 5, 3) and token.feature_layers == 0
    assert not token.take(np.array([0]))["inputs"]["features"][..., 0].any()
    assert make(layers="1:").take(np.array([0]))["inputs"]["features"][0, 0, :, 0].tolist() == [1, 2]
    with pytest.raises(ConfigError, match=r"config\.source\.layers='last' is none of"):
        make(layers="last")


def test_context_is_the_document_round_a_sentence(folder):
    (folder / "model").write_text("")
    whole = tagged.Source(folder, length=5, vectors_of=(f"{folder}/model",), context=6)
    rows = storing.store(whole, 0, Still())[:, 0]
    assert rows[:, 1].tolist() == [2, 7, 6, 4, 5, 9, 10]  # each word's own letters, in order
    assert rows[:, 2].tolist() == [6, 6, 6, 6, 6, 6, 6]  # of the seven words six are read at once
    given = list(stored.texts_of(whole.sentences, [1] * 7, 6))
    assert [words[first : first + len(one.words)] for (words, first), one in zip(given, whole.sentences)] == [
        list(one.words) for one in whole.sentences
    ]


def test_vectors_are_those_of_the_loaded_models_and_made_once():
    """Two models side by side, embedded beforehand; without that the source says which command does it."""
    folder = pathlib.Path(generated.generated_tags())
    second = folder / "second.txt"
    second.write_text((folder / "model.txt").read_text().replace(" -2 ", " 7 "))
    models = (str(folder / "model.txt"), str(second))
    source = tagged.Source(folder, "test", length=64, max_chars=0, vectors_of=models)
    with pytest.raises(
        ConfigError, match=r"model.txt gives the words of .*eng.testb are not stored: run python -m ctx"
    ):
        source.take(np.array([0]))
    opened = []
    for number, path in enumerate(models):
        opening = functools.partial(lambda path: opened.append(path) or ctxjax.load(path), path)
        assert [storing.store(source, number, opening).shape[1:] for _ in range(2)] == [(1, 3), (1, 3)]
    assert opened == list(models)
    assert source.features == 6
    batch = source.take(np.array([4, 0]))
    for row, sentence in enumerate((4, 0)):
        words = list(source.sentences[sentence].words)
        expected = [ctxjax.load(path).embed([words], layers="top")[0].layers[0] for path in models]
        np.testing.assert_array_equal(batch["inputs"]["features"][row, : len(words)], np.concatenate(expected, -1))
        assert not batch["inputs"]["features"][row, len(words) :].any()
    assert len({stored.model_digest(path) for path in models}) == 2 == len(set(source.fingerprint["models"]))
    assert tags.compare([one.tags for one in source.sentences], [one.tags for one in source.sentences])[""].f1 == 1.0
