"""Files of word vectors: our own round trips, files of gensim and of the official fastText, damaged headers."""

import struct

import numpy as np
import pytest

import ctxjax
from ctxjax import convert, formats
from ctxjax.config import ConfigError
from ctxjax.interop import fasttext_bin, word_vectors
from ctxjax.interop.files import Published
from ctxjax.text.words import Words

WORDS = ["the", "river", "bank", "naïve", "new_york"]


@pytest.fixture
def published():
    return word_vectors.publish(WORDS, np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt"])
def test_word2vec_files_come_back(published, tmp_path, name):
    word_vectors.write_word2vec(tmp_path / "out", published)
    again, _ = formats.read(tmp_path / "out" / name)
    assert again.tokenizer.pieces == published.tokenizer.pieces and again.config == published.config
    np.testing.assert_array_equal(again.params[word_vectors.TABLE], published.params[word_vectors.TABLE])


def test_glove_files_come_back_with_their_unknown_word(published, tmp_path):
    published.params[word_vectors.TABLE][2] = 7.0
    word_vectors.write_glove(tmp_path / "out", published)
    lines = (tmp_path / "out" / "vectors.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[-1].split(" ")[0] == "<unk>"
    again, _ = formats.read(tmp_path / "out" / "vectors.txt")
    np.testing.assert_array_equal(again.params[word_vectors.TABLE], published.params[word_vectors.TABLE])


def test_words_with_blanks_in_text(tmp_path):
    """As in the published GloVe of Common Crawl."""
    (tmp_path / "vectors.txt").write_text("a 1 2 3\n. . . 4 5 6\nb 7 8 9\n")
    again, _ = formats.read(tmp_path / "vectors.txt")
    assert again.tokenizer.pieces[3:] == ["a", ". .", "b"] or again.tokenizer.pieces[3:] == ["a", ". . .", "b"]
    np.testing.assert_array_equal(again.params[word_vectors.TABLE][3:], np.arange(1.0, 10.0).reshape(3, 3))


def test_a_repeated_word_is_noted(tmp_path):
    (tmp_path / "vectors.txt").write_text("2 2\na 1 2\na 3 4\n")
    again, _ = formats.read(tmp_path / "vectors.txt")
    np.testing.assert_array_equal(again.params[word_vectors.TABLE][3:], [[1.0, 2.0]])
    assert "more than once" in again.notes[0]


@pytest.mark.parametrize(
    "name, content",
    [
        ("v.bin", b"9999999999 300\nthe " + b"\0" * 50),
        ("v.bin", b"2 4\nthe " + b"\0" * 16 + b"river" + b"\0" * 30),
        ("v.txt", b"999999 3\nthe 1 2 3\n"),
        ("v.txt", b"2 3\nthe 1 2 3\nriver 1 2\n"),
        ("v.txt", b"3 3\nthe 1 2 3\nriver 1 2 3\n"),
        ("v.txt", b"2 3\nthe 1 2 3\nriver 1 2 x\n"),
        ("v.bin", struct.pack("<2i", fasttext_bin.MAGIC, 12) + b"\xff" * 200),
        ("v.bin", struct.pack("<2i", fasttext_bin.MAGIC, 99) + b"\0" * 200),
        ("v.bin", struct.pack("<2i", fasttext_bin.MAGIC, 12) + b"\0" * 30),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        formats.read(tmp_path / name)


def test_other_bins_are_still_pickles(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04abc")
    with pytest.raises(ConfigError, match="pickle"):
        formats.read(tmp_path / "pytorch_model.bin")


def test_a_loaded_table_in_use(published, tmp_path):
    word_vectors.write_word2vec(tmp_path / "out", published)
    model = ctxjax.load(tmp_path / "out" / "vectors.bin")
    assert model.can == ("embed", "vector", "nearest")
    rows = published.params[word_vectors.TABLE]
    np.testing.assert_array_equal(model.vector("river"), rows[4])
    [text] = model.embed("the bank unheard")
    assert text.layers.shape == (1, 3, 6) and text.words == ["the", "bank", "unheard"]
    np.testing.assert_array_equal(text.layers[0], [rows[3], rows[5], np.zeros(6)])
    unit = rows[3:] / np.linalg.norm(rows[3:], axis=1, keepdims=True)
    order = [i for i in np.argsort(-(unit @ unit[1])) if i != 1]
    found = model.nearest("river", 3)
    assert [word for word, _ in found] == [WORDS[i] for i in order[:3]]
    assert found[0][1] == pytest.approx(float(unit[order[0]] @ unit[1]), abs=1e-6)
    assert len(model.nearest(rows[4], 50)) == 5
    with pytest.raises(ConfigError, match="'unheard' is not among"):
        model.vector("unheard")
    for method in (model.score, model.generate, model.fill_mask):
        with pytest.raises(ConfigError, match="it can embed and vector and nearest"):
            method("the river")


@pytest.mark.parametrize("to, name", [("word2vec", "vectors.bin"), ("glove", "vectors.txt"), ("ctxjax", "")])
def test_convert(published, tmp_path, to, name):
    word_vectors.write_word2vec(tmp_path / "out", published)
    convert.convert(str(tmp_path / "out" / "vectors.txt"), str(tmp_path / "new"), to)
    again, _ = formats.read(tmp_path / "new" / name)
    np.testing.assert_array_equal(again.params[word_vectors.TABLE], published.params[word_vectors.TABLE])
    with pytest.raises(ConfigError, match="--to fasttext is for models of kind fasttext"):
        convert.convert(str(tmp_path / "out" / "vectors.txt"), str(tmp_path / "other"), "fasttext")


def test_glove_of_ours_is_the_sum_of_its_tables_with_the_mean_of_the_rarest(tmp_path):
    rng = np.random.default_rng(0)
    tokenizer = Words(["<S>", "</S>", "<UNK>", *WORDS])
    params = {
        f"embed/{name}/embedding": rng.standard_normal((8, 6)).astype(np.float32) for name in ("tokens", "context")
    }
    sums = params["embed/tokens/embedding"] + params["embed/context/embedding"]
    params |= {f"embed/{name}/bias": np.zeros(8, np.float32) for name in ("tokens", "context")}
    config = {"name": "glove", "vocab_size": 8, "width": 6, "rare": 2}
    convert.write_run(tmp_path / "run", Published(config, params, tokenizer), {}, "made here")
    convert.convert(str(tmp_path / "run"), str(tmp_path / "out"), "glove")
    for path in (tmp_path / "run", tmp_path / "out" / "vectors.txt"):
        model = ctxjax.load(path)
        for row, word in enumerate(WORDS, 3):
            np.testing.assert_allclose(model.vector(word), sums[row], atol=1e-6)
        np.testing.assert_allclose(model.embed(["unheard"])[0].layers[0, 0], sums[-2:].mean(0), atol=1e-6)


@pytest.mark.parametrize("binary", [False, True])
def test_files_of_gensim(published, tmp_path, binary):
    models = pytest.importorskip("gensim.models")
    theirs = models.KeyedVectors(6)
    theirs.add_vectors(WORDS, published.params[word_vectors.TABLE][3:])
    path = tmp_path / ("theirs.bin" if binary else "theirs.txt")
    theirs.save_word2vec_format(str(path), binary=binary)
    model = ctxjax.load(path)
    for word in WORDS:
        np.testing.assert_allclose(model.vector(word), theirs[word], atol=1e-7)
    word_vectors.write_word2vec(tmp_path / "out", published)
    ours = tmp_path / "out" / path.name.replace("theirs", "vectors")
    back = models.KeyedVectors.load_word2vec_format(str(ours), binary=binary)
    np.testing.assert_array_equal(back.vectors, published.params[word_vectors.TABLE][3:])


# Ten threads, since the official tool leaves a tenth of its tables uninitialised for each one fewer.
TEXT = "the old river runs to the sea\nnaïve people cross the river by boat\nthe bank lent money to people\n" * 20


@pytest.fixture
def official(tmp_path):
    module = pytest.importorskip("fasttext")
    (tmp_path / "text.txt").write_text(TEXT)
    return module, tmp_path


@pytest.mark.parametrize("kind, longest", [("skipgram", 6), ("cbow", 4), ("skipgram", 0)])
def test_vectors_of_the_official_fasttext(official, kind, longest):
    """In and out of the vocabulary; written again, the official tool opens it with the same vectors."""
    module, folder = official
    theirs = module.train_unsupervised(
        str(folder / "text.txt"),
        model=kind,
        dim=8,
        epoch=1,
        minCount=1,
        bucket=1000,
        maxn=longest,
        thread=10,
        verbose=0,
    )
    theirs.save_model(str(folder / "theirs.bin"))
    model = ctxjax.load(folder / "theirs.bin")
    unheard = ["rivers", "Überfluß", "x", "日本語"] if longest else []
    for word in [*theirs.get_words(), *unheard]:
        np.testing.assert_allclose(model.vector(word), theirs.get_word_vector(word), atol=1e-6, err_msg=word)
    convert.convert(str(folder / "theirs.bin"), str(folder / "ours"), "fasttext")
    again = module.load_model(str(folder / "ours" / "model.bin"))
    assert again.get_words() == theirs.get_words()
    for word in [*theirs.get_words(), *unheard]:
        np.testing.assert_array_equal(again.get_word_vector(word), theirs.get_word_vector(word))
    np.testing.assert_array_equal(again.get_output_matrix(), theirs.get_output_matrix())
    vectors = ctxjax.load(folder / "ours" / "model.vec")
    np.testing.assert_allclose(vectors.vector("river"), theirs.get_word_vector("river"), atol=1e-6)


@pytest.mark.parametrize("ngrams, longest", [(1, 0), (2, 0), (3, 4)])
def test_a_classifier_of_the_official_fasttext(official, ngrams, longest):
    module, folder = official
    lines = [f"__label__{'money' if 'bank' in line else 'nature'} {line}" for line in TEXT.splitlines()]
    (folder / "labelled.txt").write_text("\n".join(lines) + "\n")
    theirs = module.train_supervised(
        str(folder / "labelled.txt"),
        dim=8,
        epoch=3,
        wordNgrams=ngrams,
        maxn=longest,
        minn=2,
        bucket=500,
        thread=10,
        verbose=0,
    )
    theirs.save_model(str(folder / "theirs.bin"))
    model = ctxjax.load(folder / "theirs.bin")
    convert.convert(str(folder / "theirs.bin"), str(folder / "ours"), "fasttext")
    again = module.load_model(str(folder / "ours" / "model.bin"))
    for text in ("the bank lent money", "people cross the unheard river"):
        labels, probabilities = theirs.predict(text, k=2)
        [found] = model.classify(text, count=2)
        assert [f"__label__{label}" for label, _ in found] == list(labels)
        np.testing.assert_allclose([value for _, value in found], probabilities, atol=2e-5)
        np.testing.assert_array_equal(again.predict(text, k=2)[1], probabilities)


def test_a_quantised_model_is_refused(official):
    module, folder = official
    (folder / "labelled.txt").write_text("".join(f"__label__a {line}\n" for line in TEXT.splitlines()))
    theirs = module.train_supervised(
        str(folder / "labelled.txt"), dim=8, wordNgrams=2, bucket=500, thread=10, verbose=0
    )
    theirs.quantize(input=str(folder / "labelled.txt"), retrain=False)
    theirs.save_model(str(folder / "theirs.ftz"))
    with pytest.raises(ConfigError, match="quantised"):
        formats.read(folder / "theirs.ftz")
