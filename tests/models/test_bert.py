"""BERT: counts, parity with another implementation, masks, remat, FLOPs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import bert

KEY = jax.random.key(0)
TOKENS = {"tokens": jnp.zeros((1, 8), jnp.int32)}


def abstract_params(model, inputs=TOKENS):
    return jax.eval_shape(lambda: model.init(KEY, inputs, method="touch")["params"])


@pytest.mark.parametrize(
    ("sizes", "encoder", "whole"),
    [
        ({}, 109_482_240, 110_106_428),
        ({"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}, 335_141_888, 336_226_108),
        ({"width": 128, "depth": 2, "num_heads": 2, "mlp_dim": 512}, 4_385_920, 4_433_468),
    ],
)
def test_parameter_counts_are_the_published_ones(sizes, encoder, whole):
    params = abstract_params(bert.Model(30522, **sizes))
    assert tree.count(params) - tree.count(params["head"]) == encoder
    width = sizes.get("width", 768)
    assert tree.count(params) == encoder + width * width + width + 2 * width + 30522 + 2 * width + 2 == whole


def test_every_kernel_starts_as_published():
    model = bert.Model(400, width=64, depth=1, num_heads=2, mlp_dim=128, max_len=32)
    params = tree.flatten(model.init(KEY, TOKENS, method="touch")["params"])
    for name, leaf in params.items():
        if name.endswith(("kernel", "embedding")) and leaf.size > 2000:
            assert float(leaf.std()) == pytest.approx(0.0176, rel=0.06), name
            assert float(jnp.abs(leaf).max()) <= 0.04
        elif name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name


def from_torch(state, depth):
    """Parameters of a transformers BertForPreTraining as ours."""
    ours = {}
    dense = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value"}
    dense |= {"out": "attention.output.dense"}
    pairs = {f"attention/{name}": other for name, other in dense.items()}
    pairs |= {"mlp/in": "intermediate.dense", "mlp/out": "output.dense"}
    norms = {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}
    kernels = {f"layer_{i}/{a}": f"bert.encoder.layer.{i}.{b}" for i in range(depth) for a, b in pairs.items()}
    scales = {f"layer_{i}/{a}": f"bert.encoder.layer.{i}.{b}" for i in range(depth) for a, b in norms.items()}
    kernels |= {"pooler": "bert.pooler.dense", "head/nsp": "cls.seq_relationship"}
    kernels |= {"head/mlm/transform": "cls.predictions.transform.dense"}
    scales |= {"embed/norm": "bert.embeddings.LayerNorm", "head/mlm/norm": "cls.predictions.transform.LayerNorm"}
    for name, other in kernels.items():
        ours[f"{name}/kernel"], ours[f"{name}/bias"] = state[f"{other}.weight"].T, state[f"{other}.bias"]
    for name, other in scales.items():
        ours[f"{name}/scale"], ours[f"{name}/bias"] = state[f"{other}.weight"], state[f"{other}.bias"]
    for name, other in {"tokens": "word", "positions": "position", "segments": "token_type"}.items():
        ours[f"embed/{name}/embedding"] = state[f"bert.embeddings.{other}_embeddings.weight"]
    ours["head/mlm/bias"] = state["cls.predictions.bias"]
    return tree.unflatten({name: jnp.asarray(leaf) for name, leaf in ours.items()})


def test_logits_equal_those_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=20,
        hidden_act="gelu_new",  # the tanh approximation of the published code
    )
    other = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for leaf in other.parameters():
            leaf.normal_(std=0.2)
    model = bert.Model(99, width=32, depth=3, num_heads=4, mlp_dim=64, max_len=20)
    params = from_torch({name: leaf.detach().numpy() for name, leaf in other.state_dict().items()}, 3)
    assert tree.diff(abstract_params(model), params) == []
    rng = np.random.default_rng(0)
    tokens, segments = rng.integers(0, 99, (3, 14)), rng.integers(0, 2, (3, 14))
    mask = np.arange(14)[None] < np.array([[14], [9], [5]])
    with torch.no_grad():
        theirs = other(
            input_ids=torch.tensor(tokens),
            token_type_ids=torch.tensor(segments),
            attention_mask=torch.tensor(mask).long(),
            output_hidden_states=True,
        )
    inputs = {"tokens": tokens.astype(np.int32), "segment_ids": segments.astype(np.int32), "mask": mask}
    variables = {"params": params}
    outputs = model.apply(variables, jax.tree.map(jnp.asarray, inputs))
    for ours, hidden in zip(outputs.hidden, theirs.hidden_states, strict=True):
        np.testing.assert_allclose(np.asarray(ours)[mask], hidden.numpy()[mask], atol=1e-5)
    rows, table, bias = model.apply(variables, outputs.hidden[-1].reshape(-1, 32), method="readout")
    logits = (rows @ table.T + bias[None]).reshape(3, 14, 99)
    np.testing.assert_allclose(np.asarray(logits)[mask], theirs.prediction_logits.numpy()[mask], atol=1e-5)
    nsp = model.apply(variables, "nsp", outputs.pooled, method="head")[:, 0]
    np.testing.assert_allclose(nsp, theirs.seq_relationship_logits.numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def tiny():
    model = bert.tiny()
    inputs = {"tokens": jax.random.randint(KEY, (2, 10), 0, 53), "mask": jnp.ones((2, 10), bool).at[1, 6:].set(False)}
    return model, model.init(KEY, inputs, method="touch"), inputs


def test_absent_inputs_have_their_defaults(tiny):
    model, variables, inputs = tiny
    full = inputs | {
        "segment_ids": jnp.zeros((2, 10), jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(10)[None], (2, 10)),
        "cls_positions": jnp.zeros((2, 1), jnp.int32),
    }
    for one, two in zip(jax.tree.leaves(model.apply(variables, inputs)), jax.tree.leaves(model.apply(variables, full))):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_pooled_is_taken_at_each_cls_position(tiny):
    model, variables, inputs = tiny
    outputs = model.apply(variables, inputs | {"cls_positions": jnp.array([[0, 4], [3, 5]])})
    pooler = variables["params"]["pooler"]
    rows = jnp.stack([outputs.hidden[-1][0, jnp.array([0, 4])], outputs.hidden[-1][1, jnp.array([3, 5])]])
    np.testing.assert_allclose(
        outputs.pooled, jnp.tanh(rows @ pooler["kernel"] + pooler["bias"][None, None]), atol=1e-6
    )


def test_remat_changes_no_gradient_and_keeps_less(tiny):
    model, variables, inputs = tiny

    def loss(variables, model):
        outputs = model.apply(variables, inputs, train=True, rngs={"dropout": KEY})
        return sum((leaf**2).sum() for leaf in outputs.hidden) + outputs.pooled.sum()

    again = model.clone(remat="full")
    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(variables, m) for m in (model, again)]
    for one, two in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-4)
    kept = [
        tree.nbytes(jax.eval_shape(lambda v, m=m: jax.vjp(lambda v: loss(v, m), v)[1], variables))
        for m in (model, again)
    ]
    assert kept[1] < 0.6 * kept[0]


def test_bfloat16_computes_close_to_float32_with_float32_parameters(tiny):
    model, variables, inputs = tiny
    half = model.clone(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(KEY, inputs, method="touch"))} == {jnp.dtype("float32")}
    one, two = (m.apply(variables, inputs).hidden[-1].astype(jnp.float32) for m in (model, half))
    assert half.apply(variables, inputs).hidden[-1].dtype == jnp.bfloat16
    assert float(jnp.abs(one - two).max()) < 0.1


def test_mistakes_are_named(tiny):
    model, variables, inputs = tiny
    with pytest.raises(ValueError, match=r"model\.max_len=24"):
        model.apply(variables, {"tokens": jnp.zeros((1, 25), jnp.int32)})
    with pytest.raises(ValueError, match=r"model\.num_heads=3"):
        bert.Model(9, width=16, num_heads=3).init(KEY, inputs)
    with pytest.raises(ValueError, match="no head 'crf'"):
        model.apply(variables, "crf", jnp.zeros((1, 1, 16)), method="head")


def test_flops_are_those_of_the_compiled_products():
    model = bert.Model(512, width=64, depth=2, num_heads=2, mlp_dim=256, max_len=32)
    inputs = {"tokens": jnp.zeros((4, 32), jnp.int32), "mask": jnp.ones((4, 32), bool)}
    variables = jax.eval_shape(lambda: model.init(KEY, inputs, method="touch"))

    def run(variables):
        outputs = model.apply(variables, inputs)
        rows, table, bias = model.apply(variables, outputs.hidden[-1][:, :5].reshape(-1, 64), method="readout")
        return outputs.pooled, rows @ table.T + bias[None]

    counted = jax.jit(run).lower(variables).cost_analysis()["flops"]
    shapes = {name: leaf.shape for name, leaf in inputs.items()}
    expected = model.flops(shapes) + model.readout_flops(20)
    assert math.isclose(expected, counted, rel_tol=0.08) and expected < counted
