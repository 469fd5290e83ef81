"""A left-to-right model in a notebook: vectors, probabilities, continuations, and its way to Hugging Face and back."""

import numpy as np
import pytest

import ctxjax
from ctxjax import convert
from ctxjax.config import ConfigError
from ctxjax.interop import files, hf_gpt2
from ctxjax.text import byte_bpe

TEXT = "The cat sat on the mat, naïvely. 漢字 are fine too; so is 🙂!"
SIZES = {"width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 32, "max_len": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = byte_bpe.learn([TEXT, "the cat and the mat and the bank"] * 3, 290)
    config = {"name": "gpt2", "vocab_size": len(tokenizer), **SIZES}
    rng = np.random.default_rng(1)
    draw = lambda path: (0.3 * rng.standard_normal(hf_gpt2.shape_of(path, config))).astype(np.float32)
    params = {path: draw(path) for path in hf_gpt2.names(config["depth"])}
    place = tmp_path_factory.mktemp("gpt2")
    assert hf_gpt2.write(place, files.Published(config, params, tokenizer)) == ()
    return place


@pytest.fixture(scope="module")
def model(folder):
    return ctxjax.load(folder)


def test_what_it_can(model):
    assert model.can == ("embed", "score", "score_next", "generate") and model.missing == ()
    with pytest.raises(ConfigError, match="cannot fill_mask: it predicts words from those beside them"):
        model.fill_mask("the [MASK]")


def hidden_of(model, ids):
    """The top layer of `<|endoftext|>` and some pieces, straight from the module."""
    tokens = np.array([[model.tokenizer.end_id, *ids]], np.int32)
    return model.runner.hidden([{"tokens": tokens[0]}], top=True).__next__()[1][0]


def test_words_are_the_mean_of_their_pieces(model):
    [found] = model.embed("The cat  sat naïvely", layers="top")
    encoding = model.tokenizer.encode("The cat  sat naïvely")
    assert found.words == ["The", "cat", "sat", "naïvely"] and found.layers.shape == (1, 4, 16)
    assert found.offsets.tolist() == [[0, 3], [4, 7], [9, 12], [13, 20]]
    rows = hidden_of(model, encoding.ids)[1:]
    for word in range(4):
        np.testing.assert_allclose(found.layers[0, word], rows[encoding.words == word].mean(axis=0), atol=1e-5)
    [given] = model.embed([["The", "cat", "sat", "naïvely"]])
    [plain] = model.embed("The cat sat naïvely")
    np.testing.assert_allclose(given.layers, plain.layers, atol=1e-5)
    [pieces] = model.embed("The cat", align="piece")
    assert pieces.words[0] == "<|endoftext|>" and len(pieces.words) == pieces.layers.shape[1] == len(pieces.offsets)


def test_a_score_is_the_chain_rule(model):
    table = np.asarray(model.params["embed"]["tokens"]["embedding"], np.float64)
    for text in (TEXT[:30], "", "a"):
        ids = model.tokenizer.encode(text).ids
        logits = np.asarray(hidden_of(model, ids), np.float64) @ table.T
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        wanted = log_probs[np.arange(len(ids)), ids].sum()
        assert model.score([text])[0] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    both = model.score(["the cat", "the mat and"], per_token=True)
    assert both[1] == pytest.approx(
        model.score("the mat and")[0] / len(model.tokenizer.encode("the mat and").ids), rel=1e-5
    )


def test_long_texts_are_read_in_windows_and_not_scored(model):
    text = "the bank and " * 30
    with pytest.warns(UserWarning, match="1 of 1 texts are longer"):
        [found] = model.embed(text)
    assert found.windows > 1 and found.layers.shape == (3, 90, 16) and np.isfinite(found.layers).all()
    with pytest.raises(ConfigError, match="this model reads 40 at once"):
        model.score(text)


def test_continuations(model):
    one, two = model.generate(["The cat", ""], tokens=8, seed=3)
    assert model.generate(["The cat", ""], tokens=8, seed=3) == [one, two]
    [greedy] = model.generate("The cat", tokens=5, temperature=0.0)
    ids = model.tokenizer.encode("The cat").ids.tolist()
    table = np.asarray(model.params["embed"]["tokens"]["embedding"])
    made = []
    for _ in range(5):
        made.append(int((table @ hidden_of(model, ids + made)[-1]).argmax()))
    ends = [*made, model.tokenizer.end_id].index(model.tokenizer.end_id)
    assert greedy == model.tokenizer.decode(made[:ends])


def test_to_a_run_and_back_to_hugging_face(folder, tmp_path, model):
    convert.convert(str(folder), str(tmp_path / "run"), "ctxjax")
    ours = ctxjax.load(tmp_path / "run")
    assert ours.score(["the cat"])[0] == model.score(["the cat"])[0]
    assert convert.convert(str(tmp_path / "run"), str(tmp_path / "hf"), "hf") == ()
    again = ctxjax.load(tmp_path / "hf")
    assert again.tokenizer.digest() == model.tokenizer.digest()
    with pytest.raises(ConfigError, match="--to elmo is for models of kind bilm"):
        convert.convert(str(folder), str(tmp_path / "elmo"), "elmo")


def test_transformers_reads_the_same_pieces(folder, model):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast.from_pretrained(folder)
    for text in (TEXT, "  two  spaces\n\nlines ", "don't we'll I'M"):
        assert theirs(text)["input_ids"] == model.tokenizer.encode(text).ids.tolist()
