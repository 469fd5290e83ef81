"""`python -m ctxjax.convert`: there and back for BERT and ELMo, and what it refuses."""

import json
import os

import numpy as np
import pytest

import ctxjax
from ctxjax import checkpoint, convert, digests, folders, formats, tree
from ctxjax.config import ConfigError
from ctxjax.interop import elmo, hf_bert
from tests.interop import making


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "bert"
    hf_bert.write(folder, making.bert())
    return folder


def test_bert_to_ours_and_back_is_the_same_file(hf, tmp_path, capsys):
    convert.main([str(hf), str(tmp_path / "run"), "--to", "ctxjax"])
    convert.main([str(tmp_path / "run"), str(tmp_path / "back"), "--to", "hf"])
    assert "wrote" in capsys.readouterr().out
    for name in sorted(os.listdir(hf)):
        assert (hf / name).read_bytes() == (tmp_path / "back" / name).read_bytes(), name


def test_a_converted_run_is_a_checkpoint_like_any_other(hf, tmp_path):
    convert.convert(str(hf), str(tmp_path / "run"), "ctxjax")
    folder = folders.find(tmp_path / "run")
    assert digests.verify(folder) == []
    arrays, meta = checkpoint.read(tmp_path / "run", "^params/")
    published = making.bert()
    assert {name.removeprefix("params/") for name in arrays} == set(published.params)
    for name, array in published.params.items():
        assert np.array_equal(arrays[f"params/{name}"], array)
    assert meta["tokenizer"] == published.tokenizer.digest()
    assert meta["config"]["model"]["name"] == "bert"
    assert formats.read(tmp_path / "run")[0].tokenizer.digest() == published.tokenizer.digest()


def test_init_from_takes_a_converted_run(hf, tmp_path):
    """Continued pretraining starts from published weights by way of this program."""
    import jax
    import jax.numpy as jnp
    import optax

    from ctxjax import config as configs
    from ctxjax import sharding, transfer
    from ctxjax.step import init_state

    convert.convert(str(hf), str(tmp_path / "run"), "ctxjax")
    published = making.bert()
    model = configs.build("model", published.config)
    inputs = {"tokens": jnp.zeros((1, 4), jnp.int32)}
    state = jax.jit(lambda key: init_state(model, optax.sgd(0.1), inputs, key))(jax.random.key(0))
    mesh = sharding.make_mesh()
    state = jax.device_put(state, sharding.state_shardings(mesh, state, sharding.named_rules("default"))[0])
    said = []
    state = transfer.init_from(state, published.tokenizer, tmp_path / "run", report=said.append)
    assert "0 parameters stay fresh" in said[0]
    found = tree.flatten(state.params)
    assert all(np.array_equal(found[name], array) for name, array in published.params.items())


@pytest.mark.parametrize("token", ["chars"])
def test_elmo_to_ours_and_back_is_the_same_file(tmp_path, token):
    published = making.bilm(token)
    elmo.write(tmp_path / "elmo", published)
    convert.convert(str(tmp_path / "elmo"), str(tmp_path / "run"), "ctxjax")
    convert.convert(str(tmp_path / "run"), str(tmp_path / "back"), "elmo")
    for name in ("options.json", "vocab.txt"):
        assert (tmp_path / "elmo" / name).read_text() == (tmp_path / "back" / name).read_text()
    a, b = (elmo.read(tmp_path / name) for name in ("elmo", "back"))
    assert tree.diff(a.params, b.params) == []
    assert all(np.array_equal(a.params[name], b.params[name]) for name in a.params)
    models = [ctxjax.load(tmp_path / name) for name in ("elmo", "run", "back")]
    vectors = [model.embed([["the", "zebra"]])[0].layers for model in models]
    assert np.array_equal(vectors[0], vectors[1]) and np.array_equal(vectors[0], vectors[2])
    assert not any("score" in model.can for model in models)


def test_the_softmax_is_left_out_of_elmos_layout_and_it_is_said(tmp_path, capsys):
    published = making.bilm()
    convert.write_run(tmp_path / "run", published, {}, "made here")
    assert ctxjax.load(tmp_path / "run").can == ("embed", "score")
    convert.main([str(tmp_path / "run"), str(tmp_path / "elmo"), "--to", "elmo"])
    assert "softmax over the vocabulary is no part of ELMo's layout: left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "to, message", [("elmo", "--to elmo is for models of kind bilm"), ("hf", "not an empty folder")]
)
def test_refusals_leave_nothing_behind(hf, tmp_path, to, message):
    target = tmp_path / "out"
    if to == "hf":
        target.mkdir()
        (target / "mine").write_text("here")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        convert.convert(str(hf), str(target), to)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_failure_half_way_leaves_no_folder(hf, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(hf_bert, "write_json", fail)
    with pytest.raises(OSError, match="no space"):
        convert.convert(str(hf), str(tmp_path / "deep" / "out"), "hf")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_damaged_checkpoint_is_not_converted(hf, tmp_path):
    convert.convert(str(hf), str(tmp_path / "run"), "ctxjax")
    [vocabulary] = (tmp_path / "run" / "checkpoints").rglob("tokenizer/vocab.txt")
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"cat", b"dog"))
    with pytest.raises(ConfigError, match="damaged"):
        convert.convert(str(tmp_path / "run"), str(tmp_path / "out"), "hf")


def test_tensorflow_is_asked_for_in_one_sentence(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "bert_config.json").write_text(json.dumps({"vocab_size": 3}))
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"")
    for source in (tmp_path, tmp_path / "bert_model.ckpt", tmp_path / "bert_model.ckpt.index"):
        with pytest.raises(ConfigError, match=r"ctxjax\[tf\]"):
            convert.convert(str(source), str(tmp_path / "out"), "ctxjax")
