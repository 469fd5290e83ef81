"""GPT-2 to and from Hugging Face's layout, against transformers itself."""

import pytest

from ctxjax.interop import hf_gpt2
from tests.interop import causal

SIZES = {"vocab_size": 37, "width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 48, "max_len": 20}


def random_model():
    return causal.random_model(hf_gpt2, {"name": "gpt2", **SIZES})


def test_there_and_back_to_the_last_bit(tmp_path):
    causal.assert_there_and_back(hf_gpt2, random_model(), tmp_path, ("dropout", "attention_dropout"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert' is not 'gpt2'"),
        ({"activation_function": "relu"}, "activation_function='relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"n_head": 3}, "n_embd=16 is not a multiple of n_head"),
        ({"n_layer": 3}, "no array 'h.2."),
        ({"vocab_size": 38}, "has shape"),
        ({"embd_pdrop": 0.2}, "embd_pdrop and resid_pdrop differ"),
    ],
)
def test_what_is_not_a_gpt2(tmp_path, change, message):
    causal.assert_refused(hf_gpt2, random_model(), tmp_path, change, message)


def test_transformers_reads_what_is_written(transformers, tmp_path):
    made = random_model()
    hf_gpt2.write(tmp_path, made)
    model, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    causal.assert_alike(made, model, 2, 18, atol=2e-5)


def test_what_transformers_writes_is_read(transformers, tmp_path):
    config = transformers.GPT2Config(vocab_size=41, n_embd=24, n_layer=3, n_head=2, n_positions=16)
    causal.assert_written_by_transformers_is_read(hf_gpt2, transformers.GPT2LMHeadModel(config), tmp_path)
