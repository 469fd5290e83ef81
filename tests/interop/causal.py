"""What the tests of both left-to-right layouts of Hugging Face ask of a reader and a writer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import config as configs
from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.interop import files
from ctxjax.interop.hf_gpt2 import shape_of


def random_model(layout, config, tokenizer=None):
    """A random model of ours, far from its initial state."""
    rng = np.random.default_rng(1)
    draw = lambda path: (0.4 * rng.standard_normal(shape_of(path, config))).astype(np.float32)
    return files.Published(config, {path: draw(path) for path in layout.names(config["depth"])}, tokenizer)


def outputs(published, tokens):
    """All layers, and the logits."""
    model = configs.build("model", published.config)
    params = tree.unflatten(published.params)
    hidden = jax.jit(lambda *args: model.apply({"params": args[0]}, {"tokens": args[1]}).hidden)(params, tokens)
    logits = hidden[-1] @ published.params["embed/tokens/embedding"].T
    return [np.asarray(layer) for layer in (*hidden, logits)]


def torch_outputs(model, tokens):
    """The same of a model of transformers."""
    import torch

    with torch.no_grad():
        found = model.eval()(input_ids=torch.tensor(tokens, dtype=torch.long), output_hidden_states=True)
    return [layer.numpy() for layer in (*found.hidden_states, found.logits)]


def assert_alike(published, model, rows, length, atol=1e-5):
    """Ours and that of transformers give the same."""
    tokens = np.arange(rows * length, dtype=np.int32).reshape(rows, length) % 37
    for ours, theirs in zip(outputs(published, tokens), torch_outputs(model, tokens), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)


def assert_there_and_back(layout, made, folder, dropouts):
    """All parameters that the model has are written, and read to the last bit."""
    module = configs.build("model", made.config)
    tokens = {"tokens": jnp.zeros((1, 3), jnp.int32)}
    wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, method="touch")["params"])
    assert {name: array.shape for name, array in made.params.items()} == {
        name: leaf.shape for name, leaf in tree.flatten(wanted).items()
    }
    assert layout.write(folder, made) == ()
    found = layout.read(folder)
    assert found.config == made.config | dict.fromkeys(dropouts, 0.1) and found.notes == ()
    assert found.tokenizer is None
    assert all(np.array_equal(found.params[path], array) for path, array in made.params.items())


def assert_refused(layout, made, folder, change, message):
    """A config.json with a change is refused in a sentence."""
    layout.write(folder, made)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        layout.read(folder)


def assert_written_by_transformers_is_read(layout, model, folder):
    """What transformers saves of a model of 41 pieces, 24 wide, is read, and gives the same."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    found = layout.read(folder)
    assert found.tokenizer is None and found.notes == () and found.config["mlp_dim"] == 96
    assert_alike(found, model, 2, 15)
