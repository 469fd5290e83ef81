"""The Transformer: counts, parity with another implementation, what sees what, the cache, packed rows, sinusoids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import transformer
from tests.programs.test_plan import products

KEY = jax.random.key(0)
ONE = {name: jnp.zeros((1, 4), jnp.int32) for name in ("tokens", "decoder_tokens")}


def counted(**fields):
    model = transformer.Model(**fields)
    return tree.count(jax.eval_shape(lambda: model.init(KEY, ONE, method="touch")["params"]))


def test_parameter_counts_are_the_published_ones():
    """65 and 213 million in the paper, which gives no more digits, with its 37,000 pieces."""
    assert counted() == 63_045_632 == pytest.approx(65e6, rel=0.032)
    assert counted(width=1024, num_heads=16, mlp_dim=4096) == 214_171_648 == pytest.approx(213e6, rel=0.006)


@pytest.mark.parametrize("size", [(512, 8, 2048), (1024, 16, 4096)])
def test_parameter_counts_are_torchs(size):
    torch = pytest.importorskip("torch")
    width, heads, mlp_dim = size
    # Torch normalises once more at both ends.
    theirs = torch.nn.Transformer(width, heads, 6, 6, mlp_dim, batch_first=True, device="meta")
    ours = counted(width=width, num_heads=heads, mlp_dim=mlp_dim, attention_bias=True, pre_norm=True)
    assert ours - 37000 * width == sum(leaf.numel() for leaf in theirs.parameters())


def made(seed=1, **changes):
    """A tiny model, and parameters that leave nothing at its initial value."""
    model, rng = transformer.tiny().clone(**changes), np.random.default_rng(seed)

    def draw(name, leaf):
        return jnp.asarray(name.endswith("scale") + 0.25 * rng.standard_normal(leaf.shape), jnp.float32)

    return model, tree.map_named(draw, jax.eval_shape(lambda: model.init(KEY, ONE, method="touch")["params"]))


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(model, params, inputs, carry=(), method=None):
    return model.apply({"params": params}, inputs, carry, method=method)


def pair(rows=3, source=7, target=5):
    tokens, decoder = (jax.random.randint(jax.random.key(n), (rows, n), 0, 53, jnp.int32) for n in (source, target))
    mask = jnp.arange(source)[None] < jnp.array([source, 3, 5])[:rows, None]
    return {"tokens": tokens, "mask": mask, "decoder_tokens": decoder}


def torch_attention(torch, module, leaves):
    parts = ("query", "key", "value")
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.tensor(np.concatenate([leaves[f"{p}/kernel"] for p in parts], 1).T))
        module.in_proj_bias.copy_(torch.tensor(np.concatenate([leaves[f"{p}/bias"] for p in parts])))
        module.out_proj.weight.copy_(torch.tensor(leaves["out/kernel"].T.copy()))
        module.out_proj.bias.copy_(torch.tensor(leaves["out/bias"]))


def torch_layer(torch, layer, leaves, decoder):
    below = lambda name: {k.removeprefix(f"{name}/"): v for k, v in leaves.items() if k.startswith(f"{name}/")}
    torch_attention(torch, layer.self_attn, below("attention"))
    norms = ["attention_norm", "mlp_norm"]
    if decoder:
        torch_attention(torch, layer.multihead_attn, below("cross_attention"))
        norms = ["attention_norm", "cross_attention_norm", "mlp_norm"]
    with torch.no_grad():
        for number, name in enumerate(norms, 1):
            norm = getattr(layer, f"norm{number}")
            norm.weight.copy_(torch.tensor(leaves[f"{name}/scale"]))
            norm.bias.copy_(torch.tensor(leaves[f"{name}/bias"]))
        for ours, theirs in (("in", layer.linear1), ("out", layer.linear2)):
            theirs.weight.copy_(torch.tensor(leaves[f"mlp/{ours}/kernel"].T.copy()))
            theirs.bias.copy_(torch.tensor(leaves[f"mlp/{ours}/bias"]))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_layers_are_torchs(pre_norm):
    torch = pytest.importorskip("torch")
    model, params = made(attention_bias=True, pre_norm=pre_norm)
    inputs = pair()
    encoded, decoded = run(model, params, inputs, method="encode").hidden, run(model, params, inputs).hidden
    flat = {name: np.asarray(leaf) for name, leaf in tree.flatten(params).items()}
    sizes = {"dropout": 0.0, "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": pre_norm}
    x, y = (torch.tensor(np.asarray(one[0])) for one in (encoded, decoded))
    padding = torch.tensor(~np.asarray(inputs["mask"]))
    future = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    for index in range(2):
        for side in ("encoder", "decoder"):
            kind = torch.nn.TransformerEncoderLayer if side == "encoder" else torch.nn.TransformerDecoderLayer
            prefix = f"{side}/layer_{index}/"
            leaves = {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
            layer = kind(16, 2, 32, **sizes).eval()
            torch_layer(torch, layer, leaves, side == "decoder")
            with torch.no_grad():
                if side == "encoder":
                    x = layer(x, src_key_padding_mask=padding)
                elif index == 0:
                    first = layer
                else:
                    second = layer
    norm = lambda side, x: torch.nn.functional.layer_norm(
        x, (16,), torch.tensor(flat[f"{side}/norm/scale"]), torch.tensor(flat[f"{side}/norm/bias"]), 1e-6
    )
    x = norm("encoder", x) if pre_norm else x
    real = np.asarray(inputs["mask"])
    np.testing.assert_allclose(x.detach().numpy()[real], np.asarray(encoded[-1])[real], atol=2e-5)
    with torch.no_grad():
        for layer in (first, second):
            y = layer(y, x, tgt_mask=future, memory_key_padding_mask=padding)
        y = norm("decoder", y) if pre_norm else y
    np.testing.assert_allclose(y.numpy(), decoded[-1], atol=3e-5)


def test_sinusoids_are_the_two_published_ones():
    width, positions = 10, np.array([[0, 1, 2, 50, 999]])
    papers, released = np.zeros((2, 1, 5, width))
    for i in range(width // 2):
        papers[0, :, 2 * i] = np.sin(positions[0] / 10000 ** (2 * i / width))
        papers[0, :, 2 * i + 1] = np.cos(positions[0] / 10000 ** (2 * i / width))
        angle = positions[0] * np.exp(-i * np.log(10000.0) / (width // 2 - 1))
        released[0, :, i], released[0, :, width // 2 + i] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(transformer.sinusoids(jnp.asarray(positions), width, "interleaved"), papers, atol=1e-4)
    np.testing.assert_allclose(transformer.sinusoids(jnp.asarray(positions), width), released, atol=1e-4)


@pytest.mark.parametrize("sinusoid", ["concatenated", "interleaved"])
def test_the_first_layer_is_the_scaled_table_and_positions(sinusoid):
    model, params = made(sinusoid=sinusoid)
    inputs, table = pair(), params["embed"]["tokens"]["embedding"]
    for name, hidden in (
        ("tokens", run(model, params, inputs, method="encode").hidden),
        ("decoder_tokens", run(model, params, inputs).hidden),
    ):
        places = jnp.arange(inputs[name].shape[1])[None]
        wanted = table[inputs[name]] * 4.0 + transformer.sinusoids(places, 16, sinusoid)
        np.testing.assert_allclose(hidden[0], wanted, atol=1e-6)


def test_initial_deviations():
    model = transformer.Model(400, width=64, depth=1, num_heads=2, mlp_dim=256)
    params = tree.flatten(jax.jit(lambda: model.init(KEY, ONE, method="touch"))()["params"])
    for name, leaf in params.items():
        if name.endswith("embedding"):
            assert float(leaf.std()) == pytest.approx(64**-0.5, rel=0.05)
        elif name.endswith("kernel"):
            limit = np.sqrt(6 / sum(leaf.shape))
            assert float(jnp.abs(leaf).max()) <= limit and float(leaf.std()) == pytest.approx(limit / 3**0.5, rel=0.05)
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name


@pytest.mark.parametrize("implementation", [None, "einsum"])
def test_the_target_sees_its_past_and_all_of_the_source(implementation):
    model, params = made(attention_implementation=implementation)
    inputs = pair(1)

    def reach(name, method, times):
        before = run(model, params, inputs, method=method).hidden[-1]
        found = []
        for place in range(inputs[name].shape[1]):
            other = dict(inputs, **{name: inputs[name].at[0, place].add(1) % 53})
            after = run(model, params, other, method=method).hidden[-1]
            found.append(np.abs(np.asarray(after - before))[0].max(axis=-1) > 1e-6)
        return np.array(found)

    assert (reach("decoder_tokens", None, 5) == np.triu(np.ones((5, 5), bool))).all()
    assert reach("tokens", None, 7).all() and reach("tokens", "encode", 7).all()


def test_implementations_agree():
    one, two = (run(*made(attention_implementation=name), pair()).hidden[-1] for name in (None, "einsum"))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_cache_read_in_parts_equals_the_whole(pre_norm):
    model, params = made(pre_norm=pre_norm)
    inputs = pair()
    whole = run(model, params, inputs).hidden
    first = run(model, params, dict(inputs, decoder_tokens=inputs["decoder_tokens"][:, :2]), model.init_carry(3, 6))
    for got, wanted in zip(first.hidden, whole):
        np.testing.assert_allclose(got, wanted[:, :2], atol=1e-5)
    carry = first.carry
    for place in range(2, 5):
        outputs = run(model, params, {"decoder_tokens": inputs["decoder_tokens"][:, place : place + 1]}, carry)
        np.testing.assert_allclose(outputs.hidden[-1][:, 0], whole[-1][:, place], atol=1e-5)
        assert (outputs.carry["source_key"] == carry["source_key"]).all()
        carry = outputs.carry
    assert carry["used"].tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="needs the source"):
        model.apply({"params": params}, {"decoder_tokens": inputs["decoder_tokens"]}, model.init_carry(3, 6))


@pytest.mark.parametrize("implementation", [None, "einsum"])
def test_pairs_in_one_row_are_pairs_alone(implementation):
    model, params = made(attention_implementation=implementation)
    (a, b), (c, d) = ([5, 9, 2, 7], [8, 3, 1]), ([4, 4, 6], [2, 9, 9, 7])
    row = lambda *parts: jnp.array([[*parts[0], *parts[1], 0]], jnp.int32)
    packs = lambda *parts: row([1] * len(parts[0]), [2] * len(parts[1]))
    places = lambda *parts: row(range(len(parts[0])), range(len(parts[1])))
    packed = {"tokens": row(a, c), "pack_ids": packs(a, c), "positions": places(a, c)}
    packed |= {"decoder_tokens": row(b, d), "decoder_pack_ids": packs(b, d), "decoder_positions": places(b, d)}
    packed["mask"] = packed["pack_ids"] > 0
    together = run(model, params, packed).hidden[-1][0]
    for source, target, where in ((a, b, slice(0, 3)), (c, d, slice(3, 7))):
        alone = run(model, params, {"tokens": jnp.array([source]), "decoder_tokens": jnp.array([target])})
        np.testing.assert_allclose(together[where], alone.hidden[-1][0], atol=1e-5)


def test_remat_changes_nothing():
    (model, params), (other, _) = made(depth=1), made(depth=1, remat=True)
    loss = lambda module: lambda params: jnp.square(module.apply({"params": params}, pair()).hidden[-1][:, 0]).sum()
    one, two = (jax.jit(jax.grad(loss(module)))(params) for module in (model, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, two)


def test_every_dropout_is_drawn():
    for field in ("dropout", "attention_dropout", "mlp_dropout"):
        off = {name: 0.0 for name in ("dropout", "attention_dropout", "mlp_dropout") if name != field}
        model, params = made(depth=1, **off, **{field: 0.5})
        apply = jax.jit(
            lambda key, m=model, p=params: m.apply({"params": p}, pair(), train=True, rngs={"dropout": key})
        )
        one, two = (apply(jax.random.key(seed)).hidden[-1] for seed in (0, 1))
        assert not np.allclose(one, two), field


def test_flops_are_the_products_of_the_program():
    model = transformer.tiny().clone(attention_implementation="einsum")
    inputs = pair()
    params = jax.eval_shape(lambda: model.init(KEY, inputs, method="touch")["params"])
    program = jax.make_jaxpr(lambda params: model.apply({"params": params}, inputs).hidden[-1])(params)
    assert products(program.jaxpr) == model.flops({name: leaf.shape for name, leaf in inputs.items()})


@pytest.mark.parametrize(("field", "match"), [({"num_heads": 3}, "num_heads"), ({"sinusoid": "x"}, "sinusoid='x'")])
def test_mistakes_are_named(field, match):
    with pytest.raises(ValueError, match=match):
        transformer.tiny().clone(**field).init(KEY, ONE, method="touch")
