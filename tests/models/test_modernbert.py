"""ModernBERT against the published counts and transformers' code, and what rotary positions and windows promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import modernbert
from ctxjax.models.layers import rotary

SIZES = {"width": 32, "depth": 5, "num_heads": 4, "mlp_dim": 24, "max_len": 64, "window": 6, "global_every": 3}
PARTS = ("query", "key", "value")


def abstract(model):
    inputs = {"tokens": jnp.zeros((1, 4), jnp.int32)}
    return jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])


def test_published_counts():
    assert tree.count(abstract(modernbert.Model())) == 149_655_232
    large = modernbert.Model(width=1024, depth=28, num_heads=16, mlp_dim=2624)
    assert tree.count(abstract(large)) == 395_881_664


def params_of(state):
    """Parameters of ours from transformers' state dict."""
    found = {
        "embed/tokens/embedding": state["model.embeddings.tok_embeddings.weight"],
        "embed/norm/scale": state["model.embeddings.norm.weight"],
        "final_norm/scale": state["model.final_norm.weight"],
        "head/mlm/transform/kernel": state["head.dense.weight"].T,
        "head/mlm/norm/scale": state["head.norm.weight"],
        "head/mlm/bias": state["decoder.bias"],
    }
    for i in range(SIZES["depth"]):
        theirs, ours = f"model.layers.{i}", f"layer_{i}"
        for part, kernel in zip(PARTS, np.split(state[f"{theirs}.attn.Wqkv.weight"].T, 3, axis=1)):
            found[f"{ours}/attention/{part}/kernel"] = kernel
        found[f"{ours}/attention/out/kernel"] = state[f"{theirs}.attn.Wo.weight"].T
        found[f"{ours}/mlp/in/kernel"] = state[f"{theirs}.mlp.Wi.weight"].T
        found[f"{ours}/mlp/out/kernel"] = state[f"{theirs}.mlp.Wo.weight"].T
        found[f"{ours}/mlp_norm/scale"] = state[f"{theirs}.mlp_norm.weight"]
        if i:
            found[f"{ours}/attention_norm/scale"] = state[f"{theirs}.attn_norm.weight"]
    return tree.unflatten({name: jnp.asarray(array) for name, array in found.items()})


@pytest.mark.parametrize("implementation", [None, "einsum"])
def test_logits_are_those_of_transformers(implementation):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    marks = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    theirs = transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(
            vocab_size=60, hidden_size=32, intermediate_size=24, num_hidden_layers=5, num_attention_heads=4,
            local_attention=6, global_attn_every_n_layers=3, attn_implementation="eager", **marks,
        )
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    params = params_of({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    model = modernbert.Model(vocab_size=60, attention_implementation=implementation, **SIZES)
    assert tree.diff(params, abstract(model)) == []
    tokens = np.random.default_rng(0).integers(3, 60, (3, 20))
    mask = np.arange(20)[None] < np.array([20, 13, 7])[:, None]
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(int))).logits.numpy()
    top = model.apply({"params": params}, {"tokens": jnp.asarray(tokens), "mask": jnp.asarray(mask)}).hidden[-1]
    rows, table, bias = model.apply({"params": params}, top.reshape(-1, 32), method="readout")
    ours = np.asarray(rows @ table.T + bias[None]).reshape(3, 20, 60)
    np.testing.assert_allclose(ours[mask], expected[mask], atol=1e-5)


def test_a_product_depends_on_the_distance_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(i, j):
        left, right = (
            rotary.rotate(x, rotary.angles(jnp.array([[place]]), 8, 100.0)) for x, place in ((query, i), (key, j))
        )
        return float((left * right).sum())

    assert product(3, 1) == pytest.approx(product(12, 10), abs=1e-5)
    assert abs(product(3, 1) - product(4, 1)) > 1e-3
    angle = np.asarray(rotary.angles(jnp.array([[5]]), 8, 100.0))[0, 0]
    np.testing.assert_allclose(angle, [5 * 100.0 ** (-2 * i / 8) for i in range(4)], rtol=1e-6)


def test_a_narrow_window_blinds():
    from ctxjax.models.layers.attention import attention

    query, key, value = jax.random.normal(jax.random.key(0), (3, 1, 9, 2, 4))
    for implementation in (None, "einsum"):

        def out(value, implementation=implementation):
            return attention(query, key, value, window=2, implementation=implementation)[0, 4].sum()

        seen = np.flatnonzero(np.abs(jax.grad(out)(value)[0]).max(axis=(1, 2)) > 0)
        assert seen.tolist() == [2, 3, 4, 5, 6]
