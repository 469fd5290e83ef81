"""The variables of google-research/bert's checkpoints -> our parameters; TensorFlow only where it is installed."""

import json
import sys

import numpy as np
import pytest

from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop import hf_bert, tf_bert

DESCRIBED = {
    "vocab_size": 11,
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
# Written out by hand for one layer, from the variable scopes of modeling.py and run_pretraining.py.
SHAPES = {
    "bert/embeddings/word_embeddings": (11, 4),
    "bert/embeddings/token_type_embeddings": (2, 4),
    "bert/embeddings/position_embeddings": (8, 4),
    "bert/embeddings/LayerNorm/gamma": (4,),
    "bert/embeddings/LayerNorm/beta": (4,),
    "bert/pooler/dense/kernel": (4, 4),
    "bert/pooler/dense/bias": (4,),
    "cls/predictions/transform/dense/kernel": (4, 4),
    "cls/predictions/transform/dense/bias": (4,),
    "cls/predictions/transform/LayerNorm/gamma": (4,),
    "cls/predictions/transform/LayerNorm/beta": (4,),
    "cls/predictions/output_bias": (11,),
    "cls/seq_relationship/output_weights": (2, 4),
    "cls/seq_relationship/output_bias": (2,),
}
LAYER = {
    "attention/self/query/kernel": (4, 4),
    "attention/self/query/bias": (4,),
    "attention/self/key/kernel": (4, 4),
    "attention/self/key/bias": (4,),
    "attention/self/value/kernel": (4, 4),
    "attention/self/value/bias": (4,),
    "attention/output/dense/kernel": (4, 4),
    "attention/output/dense/bias": (4,),
    "attention/output/LayerNorm/gamma": (4,),
    "attention/output/LayerNorm/beta": (4,),
    "intermediate/dense/kernel": (4, 6),
    "intermediate/dense/bias": (6,),
    "output/dense/kernel": (6, 4),
    "output/dense/bias": (4,),
    "output/LayerNorm/gamma": (4,),
    "output/LayerNorm/beta": (4,),
}


def variables(seed=0):
    shapes = SHAPES | {f"bert/encoder/layer_{i}/{name}": shape for i in range(2) for name, shape in LAYER.items()}
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_every_variable_has_one_place():
    found = variables()
    model = tf_bert.from_variables(found, DESCRIBED, "bert_model.ckpt")
    assert model.missing == () and model.notes == ()
    assert sorted(tf_bert.names(2).values()) == sorted(found)
    assert tree.count(model.params) == sum(array.size for array in found.values())
    kernel = "bert/encoder/layer_1/intermediate/dense/kernel"
    assert np.array_equal(model.params["layer_1/mlp/in/kernel"], found[kernel])  # [in, out] in both
    assert np.array_equal(model.params["head/nsp/kernel"], found["cls/seq_relationship/output_weights"].T)
    assert np.array_equal(model.params["embed/norm/scale"], found["bert/embeddings/LayerNorm/gamma"])
    assert np.array_equal(model.params["layer_0/attention_norm/bias"],
                          found["bert/encoder/layer_0/attention/output/LayerNorm/beta"])  # fmt: skip


def test_gelu_is_the_tanh_approximation_here(tmp_path):
    model = tf_bert.from_variables(variables(), DESCRIBED, "bert_model.ckpt")
    assert model.config.get("activation", "gelu_tanh") == "gelu_tanh"
    hf_bert.write(tmp_path, model)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_act"] == "gelu_new"


def test_transformers_computes_the_same_from_the_converted_file(tmp_path):
    """The published equations, in torch's words: what comes out of the mapping is what transformers runs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    found = variables()
    hf_bert.write(tmp_path, tf_bert.from_variables(found, DESCRIBED, "bert_model.ckpt"))
    model, report = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        hidden = model.eval().bert(torch.tensor([[3, 1, 4]]))
        logits = model.cls.seq_relationship(hidden.pooler_output)
    pooled = (
        hidden.last_hidden_state[0, 0].numpy() @ found["bert/pooler/dense/kernel"] + found["bert/pooler/dense/bias"]
    )
    want = np.tanh(pooled) @ found["cls/seq_relationship/output_weights"].T + found["cls/seq_relationship/output_bias"]
    assert np.abs(logits[0].numpy() - want).max() < 1e-5


def test_slots_and_strangers_are_counted():
    more = {f"{name}/{slot}": array for name, array in variables().items() for slot in ("adam_m", "adam_v")}
    model = tf_bert.from_variables(
        variables() | more | {"global_step": np.zeros(()), "classifier/kernel": np.ones(3)}, DESCRIBED, "ckpt"
    )
    assert f"{len(more) + 1} variables of the optimiser" in model.notes[0]
    assert "classifier/kernel" in model.notes[1] and len(model.notes) == 2


def test_without_heads():
    found = {name: array for name, array in variables().items() if not name.startswith("cls/")}
    model = tf_bert.from_variables(found, DESCRIBED, "ckpt")
    assert model.missing == ("mlm", "nsp") and model.config["next_sentence"] is False


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"hidden_size": 6}, "has shape"),
        ({"num_hidden_layers": 3}, "no array 'bert/encoder/layer_2"),
    ],
)
def test_a_config_that_does_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        tf_bert.from_variables(variables(), DESCRIBED | change, "bert_model.ckpt")


def test_without_tensorflow_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    (tmp_path / "bert_config.json").write_text(json.dumps(DESCRIBED))
    with pytest.raises(ConfigError, match=r"no bert_model\.ckpt\.index"):
        tf_bert.read(tmp_path)
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"ctxjax\[tf\]"):
        tf_bert.read(tmp_path)


def test_a_real_checkpoint(tmp_path):
    tf = pytest.importorskip("tensorflow")
    found = variables()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [tf.compat.v1.get_variable(name, initializer=array) for name, array in found.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(made).save(session, str(tmp_path / "bert_model.ckpt"))
    (tmp_path / "bert_config.json").write_text(json.dumps(DESCRIBED))
    (tmp_path / "vocab.txt").write_text(
        "".join(f"{p}\n" for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"))
    )
    model = tf_bert.read(tmp_path)
    for path, name in tf_bert.names(2).items():
        want = found[name].T if path == "head/nsp/kernel" else found[name]
        assert np.array_equal(model.params[path], want)
    assert model.tokenizer is not None and len(model.tokenizer) == 11
