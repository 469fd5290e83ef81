"""Layers under a scan are the layers unrolled: values, gradients, draws, also for seeds at once; remat policies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import sharding, tree
from ctxjax.models import bert, downstream, gpt, gpt2, modernbert
from ctxjax.models.layers import depth
from ctxjax.step import TrainState

KEY = jax.random.key(0)
TOKENS = jax.random.randint(jax.random.key(1), (3, 9), 0, 53)
INPUTS = {"tokens": TOKENS, "mask": jnp.arange(9)[None] < jnp.array([9, 4, 7])[:, None]}
DROPS = {"dropout": 0.2, "attention_dropout": 0.2}
# ModernBERT of eight layers, global every third: one by itself, two periods, one left over.
CASES = {
    "bert": bert.tiny().clone(depth=4, **DROPS),
    "gpt": gpt.tiny().clone(depth=4, **DROPS),
    "gpt2": gpt2.tiny().clone(depth=4, **DROPS),
    "modernbert": modernbert.tiny().clone(depth=8, global_every=3, dropout=0.2),
}


def params_of(model):
    made = model.init(KEY, INPUTS, method="touch")["params"]
    noisy = {
        name: leaf + 0.1 * jax.random.normal(jax.random.fold_in(KEY, number), leaf.shape)
        for number, (name, leaf) in enumerate(tree.flatten(made).items())
    }
    return tree.unflatten(noisy)


def loss_of(model):
    """Every hidden layer counts, each with a weight of its own."""

    def loss(params, key):
        keys = {"dropout": key, "shared": key}
        hidden = model.apply({"params": params}, INPUTS, train=True, rngs=keys).hidden
        return sum((index + 1) * jnp.sin(leaf).mean() for index, leaf in enumerate(hidden)), hidden

    return loss


def alike(one, two, atol=1e-6):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        *((name, "none") for name in CASES),
        ("bert", "full"),
        pytest.param("gpt2", "dots", marks=pytest.mark.slow),
        pytest.param("modernbert", "full", marks=pytest.mark.slow),
    ],
)
def test_a_scan_is_the_layers_unrolled(name, remat):
    """Losses, every hidden layer and every gradient, with dropout on; and there is a scan in one program alone."""
    plain, other = CASES[name].clone(scan="never"), CASES[name].clone(scan="always", remat=remat)
    params = params_of(plain)
    assert jax.tree.structure(params) == jax.tree.structure(params_of(other))
    found = [jax.jit(jax.value_and_grad(loss_of(model), has_aux=True))(params, KEY) for model in (plain, other)]
    alike(*found)
    texts = [str(jax.make_jaxpr(loss_of(model))(params, KEY)) for model in (plain, other)]
    assert ["scan[" in text for text in texts] == [False, True]


def test_only_deep_models_are_scanned_by_default():
    assert [depth.scans("deep", layers) for layers in (2, 24, 47, 48)] == [False, False, False, True]
    assert bert.Model(vocab_size=9).scan == gpt2.Model().scan == modernbert.Model().scan == "deep"


@pytest.mark.parametrize("model", [gpt.tiny(), gpt2.tiny()], ids=["gpt", "gpt2"])
def test_a_cache_is_read_unrolled(model):
    """The tokens that a scanned model generates are those of the unrolled one: with a cache it is the same program."""
    models = [model.clone(depth=3, scan=scan) for scan in ("never", "always")]
    params = params_of(models[0])
    run = lambda m: lambda carry: m.apply({"params": params}, INPUTS, carry)
    texts = [str(jax.make_jaxpr(run(m))(m.init_carry(3, 16))) for m in models]
    assert texts[0] == texts[1] and "scan[" not in texts[0]
    alike(*(run(m)(m.init_carry(3, 16)) for m in models))


def test_seeds_at_once_are_scanned_as_in_turn():
    model = CASES["modernbert"].clone(scan="always")
    seeds = [jax.tree.map(lambda leaf, s=seed: leaf * (1 + s), params_of(model)) for seed in range(2)]
    keys = jax.random.split(KEY, 2)
    step = jax.value_and_grad(loss_of(model), has_aux=True)
    together = jax.jit(jax.vmap(step))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds), keys)
    for seed, params in enumerate(seeds):
        alike(jax.tree.map(lambda leaf, s=seed: leaf[s], together), jax.jit(step)(params, keys[seed]), atol=1e-5)


def test_an_encoder_of_a_downstream_model_is_scanned():
    fields = {"width": 16, "depth": 4, "num_heads": 2, "mlp_dim": 32, "max_len": 24, **DROPS}
    models = [
        downstream.Model(
            encoder={"name": "bert", "vocab_size": 53, "scan": scan, **fields}, labels=("a", "b"), mix=True, pool="mean"
        )
        for scan in ("never", "always")
    ]
    params = params_of(models[0])
    assert {"embed", "layer_3", "task"} < set(params)
    alike(*(jax.jit(jax.value_and_grad(loss_of(model), has_aux=True))(params, KEY) for model in models))
    assert "scan[" in str(jax.make_jaxpr(loss_of(models[1]))(params, KEY))


def test_policies_keep_less_and_less():
    """Bytes that the backward pass is left: all, then what products of weights gave, then each layer's input."""
    kept = {}
    for remat in depth.REMATS:
        model = CASES["bert"].clone(scan="never", remat=remat)
        params = params_of(model)
        backward = jax.eval_shape(lambda p, m=model: jax.vjp(lambda p: loss_of(m)(p, KEY)[0], p)[1], params)
        kept[remat] = tree.nbytes(backward)
    assert kept["full"] < 0.8 * kept["dots"] < 0.6 * kept["none"]


def test_old_configs_name_the_same_policies():
    assert [depth.remat_policy(remat) for remat in (False, True, "dots")] == ["none", "full", "dots"]


@pytest.mark.parametrize(("field", "value"), [("remat", "some"), ("scan", "yes")])
@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_named(name, field, value):
    with pytest.raises(ValueError, match=rf"model\.{field}='{value}' is not one of"):
        CASES[name].clone(**{field: value}).init(KEY, INPUTS, method="touch")


def placed(model, mesh):
    """Loss and gradient as a program of the mesh, and what it is given."""
    params, rows = params_of(model), sharding.batch_sharding(mesh)
    inputs = {name: jnp.tile(leaf, (8, 1))[:16] for name, leaf in INPUTS.items()}
    shardings = sharding.state_shardings(mesh, TrainState(jnp.zeros(()), params, ()))[0].params

    def loss(params, inputs):
        hidden = model.apply({"params": params}, inputs, train=True, rngs={"dropout": KEY}).hidden
        return sum((index + 1) * jnp.sin(leaf).mean() for index, leaf in enumerate(hidden))

    step = sharding.on(mesh, jax.value_and_grad(loss))
    whole = sharding.replicated(mesh)
    jitted = jax.jit(step, in_shardings=(shardings, rows), out_shardings=(whole, shardings))
    return jitted.lower(params, inputs).compile(), jax.device_put(params, shardings), jax.device_put(inputs, rows)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)], ids=["fsdp", "all"])
def test_a_stack_stays_split(sizes):
    """The same numbers as unrolled on one device; in each turn a layer is gathered, and never the stack of five."""
    model = CASES["bert"].clone(width=64, num_heads=4, mlp_dim=256, depth=5, scan="always")
    program, *given = placed(model, sharding.make_mesh(*sizes))
    alone, *others = placed(model.clone(scan="never"), sharding.make_mesh(1, devices=jax.devices()[:1]))
    alike(program(*given), alone(*others), atol=1e-5)
    gathered = re.findall(r"= \S*?\[([0-9,]*)\]\S* all-gather", program.as_text())
    assert gathered and not [shape for shape in gathered if shape.startswith("5,")]


def test_rows_are_said_where_a_mesh_is_known():
    mesh, x = sharding.make_mesh(2, 2, 2), jnp.ones((8, 3))
    assert sharding.rows(x) is x
    known = sharding.on(mesh, sharding.rows)
    assert "sharding_constraint" in str(jax.make_jaxpr(known)(x))
    split = jax.device_put(x, sharding.replicated(mesh))
    assert jax.jit(known)(split).sharding.is_equivalent_to(sharding.batch_sharding(mesh), 2)
    assert "sharding_constraint" not in str(jax.make_jaxpr(known)(x[:3]))  # three rows of four shards
