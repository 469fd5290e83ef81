"""GPT to and from Hugging Face's layout, against transformers itself, and the model in a notebook."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ctxjax
from ctxjax import config as configs
from ctxjax import convert, transfer, tree
from ctxjax.config import ConfigError
from ctxjax.evaluators import words
from ctxjax.interop import hf_gpt
from ctxjax.step import init_state
from ctxjax.text import bpe
from ctxjax.text.words import SPECIALS, Words
from tests.interop import causal

SIZES = {"width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 64, "max_len": 40}
TEXT = "The cat sat on the mat, naïvely. 漢字 are fine too; so is 🙂!"


def random_model(tokenizer=None, rows=37, **changes):
    config = {"name": "gpt", "vocab_size": len(tokenizer) if tokenizer else rows, **SIZES, **changes}
    return causal.random_model(hf_gpt, config, tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = bpe.learn([TEXT, "the cat and the mat and the bank"] * 3, 90)
    place = tmp_path_factory.mktemp("gpt")
    assert hf_gpt.write(place, random_model(tokenizer)) == ()
    return place


@pytest.fixture(scope="module")
def model(folder):
    return ctxjax.load(folder)


def test_there_and_back_to_the_last_bit(tmp_path):
    causal.assert_there_and_back(hf_gpt, random_model(), tmp_path, ("dropout", "attention_dropout", "table_dropout"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not 'openai-gpt'"),
        ({"afn": "relu"}, "afn='relu' is not 'gelu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ({"n_head": 3}, "n_embd=16 is not a multiple of n_head"),
        ({"n_layer": 3}, "no array 'h.2."),
        ({"vocab_size": 38}, "tokens_embed.weight has shape"),
    ],
)
def test_what_is_not_a_gpt(tmp_path, change, message):
    causal.assert_refused(hf_gpt, random_model(), tmp_path, change, message)


def test_what_the_layout_cannot_hold(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.mlp_dim=32 is not four times model\.width=16"):
        hf_gpt.write(tmp_path / "narrow", random_model(mlp_dim=32))
    assert not (tmp_path / "narrow").exists()
    others = Words([*SPECIALS, "the"])
    assert "of kind words" in hf_gpt.write(tmp_path / "words", random_model(others))[0]
    cased = bpe.learn([TEXT], 90, lowercase=False)
    assert "keeps case" in hf_gpt.write(tmp_path / "cased", random_model(cased))[0]
    assert ctxjax.load(tmp_path / "cased").tokenizer is None


def hidden_of(model, ids):
    """The top layer of the line break and some pieces, straight from the module."""
    tokens = jnp.array([[model.tokenizer.end_id, *ids]], jnp.int32)
    return np.asarray(model.model.apply({"params": model.params}, {"tokens": tokens}).hidden[-1][0], np.float64)


def test_vectors_scores_and_continuations(model):
    assert model.can == ("embed", "score", "score_next", "generate") and model.missing == ()
    [found] = model.embed("The  cat sat, naïvely", layers="top")
    encoding = model.tokenizer.encode("The  cat sat, naïvely")
    assert found.words == ["The", "cat", "sat", ",", "naïvely"]
    rows = hidden_of(model, encoding.ids)
    for word in range(5):
        np.testing.assert_allclose(found.layers[0, word], rows[1:][encoding.words == word].mean(axis=0), atol=1e-5)
    table = np.asarray(model.params["embed"]["tokens"]["embedding"], np.float64)
    logits = rows @ table.T
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = log_probs[np.arange(len(encoding.ids)), encoding.ids].sum()
    assert model.score(["The  cat sat, naïvely"])[0] == pytest.approx(wanted, rel=1e-5)
    [greedy] = model.generate("The cat", tokens=5, temperature=0.0)
    made, ids = [], model.tokenizer.encode("The cat").ids.tolist()
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
    assert again.score(["the cat"])[0] == model.score(["the cat"])[0]


def test_special_pieces_are_fresh_rows_behind_the_known_ones(folder, tmp_path, model):
    """What fine-tuning starts from."""
    convert.convert(str(folder), str(tmp_path / "run"), "ctxjax")
    old = model.tokenizer
    grown = bpe.BPE(old.pieces, old.merges, special=("<start>", "<delimiter>", "<classify>"))
    module = configs.build("model", model.config | {"vocab_size": len(grown)})
    fresh = init_state(module, optax.sgd(0.1), {"tokens": jnp.zeros((1, 3), jnp.int32)}, jax.random.key(0))
    found = transfer.init_from(fresh, grown, tmp_path / "run", report=lambda line: None)
    for name, array in tree.flatten(found.params).items():
        known = tree.flatten(model.params)[name]
        np.testing.assert_array_equal(array[: len(known)], known)
        np.testing.assert_array_equal(array[len(known) :], tree.flatten(fresh.params)[name][len(known) :])
    assert len(found.params["embed"]["tokens"]["embedding"]) == len(old) + 3


def test_whole_words_of_the_vocabulary(model):
    found = words.vocabulary(model.tokenizer, 1000)
    assert {"the", "cat"} <= {*found} and all(model.tokenizer.ids[f"{word}</w>"] and word.isalpha() for word in found)


def test_transformers_reads_what_is_written(transformers, folder):
    made = hf_gpt.read(folder)
    model, report = transformers.OpenAIGPTLMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    causal.assert_alike(made, model, 2, 18)


def test_transformers_reads_the_same_pieces(transformers, folder, model):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__.startswith("OpenAIGPTTokenizer")
    for text in (TEXT, "  two  spaces\n\nlines ", "don't we'll I'M"):
        assert theirs(text)["input_ids"] == model.tokenizer.encode(text).ids.tolist()


def test_what_transformers_writes_is_read(transformers, tmp_path):
    config = transformers.OpenAIGPTConfig(vocab_size=41, n_embd=24, n_layer=3, n_head=2, n_positions=16)
    causal.assert_written_by_transformers_is_read(hf_gpt, transformers.OpenAIGPTLMHeadModel(config), tmp_path)
