"""GPT-2 to and from Hugging Face's layout, against transformers itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import config as configs
from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop import files, hf_gpt2

SIZES = {"vocab_size": 37, "width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 48, "max_len": 20}


def random_model():
    """A random GPT-2 of ours, far from its initial state."""
    config = {"name": "gpt2", **SIZES}
    rng = np.random.default_rng(1)
    draw = lambda path: (0.5 * rng.standard_normal(hf_gpt2.shape_of(path, config))).astype(np.float32)
    return files.Published(config, {path: draw(path) for path in hf_gpt2.names(config["depth"])})


def outputs(published, tokens):
    model = configs.build("model", published.config)
    params = tree.unflatten(published.params)
    hidden = jax.jit(lambda *args: model.apply({"params": args[0]}, {"tokens": args[1]}).hidden)(params, tokens)
    return [np.asarray(layer) for layer in hidden], np.asarray(
        hidden[-1] @ published.params["embed/tokens/embedding"].T
    )


def test_there_and_back_to_the_last_bit(tmp_path):
    made = random_model()
    tokens = {"tokens": jnp.zeros((1, 3), jnp.int32)}
    model = configs.build("model", made.config)
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, method="touch")["params"])
    assert {name: array.shape for name, array in made.params.items()} == {
        name: leaf.shape for name, leaf in tree.flatten(wanted).items()
    }
    assert hf_gpt2.write(tmp_path, made) == ()
    found = hf_gpt2.read(tmp_path)
    assert found.config == made.config | {"dropout": 0.1, "attention_dropout": 0.1} and found.notes == ()
    assert all(np.array_equal(found.params[path], array) for path, array in made.params.items())


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
    hf_gpt2.write(tmp_path, random_model())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        hf_gpt2.read(tmp_path)


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    return found


def torch_outputs(model, tokens):
    import torch

    with torch.no_grad():
        found = model.eval()(input_ids=torch.tensor(tokens, dtype=torch.long), output_hidden_states=True)
    return [layer.numpy() for layer in found.hidden_states], found.logits.numpy()


def test_transformers_reads_what_is_written(transformers, tmp_path):
    made = random_model()
    hf_gpt2.write(tmp_path, made)
    model, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens = np.arange(36, dtype=np.int32).reshape(2, 18) % 37
    for ours, theirs in zip(
        [*outputs(made, tokens)[0], outputs(made, tokens)[1]],
        [*torch_outputs(model, tokens)[0], torch_outputs(model, tokens)[1]],
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_what_transformers_writes_is_read(transformers, tmp_path):
    import torch

    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=41, n_embd=24, n_layer=3, n_head=2, n_positions=16)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    found = hf_gpt2.read(tmp_path)
    assert found.tokenizer is None and found.notes == () and found.config["mlp_dim"] == 96
    tokens = np.arange(30, dtype=np.int32).reshape(2, 15)
    (hidden, logits), (wanted, wanted_logits) = outputs(found, tokens), torch_outputs(model, tokens)
    for ours, theirs in zip(hidden, wanted):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(logits, wanted_logits, atol=1e-5)
