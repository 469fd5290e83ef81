"""Meshes, rules and where every part of a train state lies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ctxjax import sharding, tree
from ctxjax.config import ConfigError
from ctxjax.step import TrainState


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


PARAMS = {
    "embed": {"tokens": {"embedding": struct(1000, 64)}, "positions": {"embedding": struct(512, 64)}},
    "layer_0": {
        "attention": {
            "query": {"kernel": struct(64, 64), "bias": struct(64)},
            "out": {"kernel": struct(64, 64), "bias": struct(64)},
        },
        "mlp": {"in": {"kernel": struct(64, 256)}, "out": {"kernel": struct(256, 64)}},
        "mlp_norm": {"scale": struct(64)},
    },
    "layer_1": {"lstm": {"input_kernel": struct(2, 64, 256), "bias": struct(2, 256)}},
    "head": {"softmax": {"embedding": struct(1001, 64)}},
}


def specs(mesh, rules=sharding.DEFAULT_RULES, tx=None, carry=()):
    tx = tx or optax.adam(1e-3)
    state = TrainState(struct(), PARAMS, jax.eval_shape(tx.init, PARAMS), carry)
    shardings, notes = sharding.state_shardings(mesh, state, rules)
    return {name: leaf.spec for name, leaf in tree.flatten(shardings).items()}, notes


def test_default_rules():
    found, notes = specs(sharding.make_mesh(2, 2, 2))
    assert found["params/embed/tokens/embedding"] == P("tensor", "fsdp")
    assert found["params/embed/positions/embedding"] == P("fsdp", None)
    assert found["params/layer_0/attention/query/kernel"] == P("fsdp", "tensor")
    assert found["params/layer_0/attention/query/bias"] == P("tensor")
    assert found["params/layer_0/attention/out/kernel"] == P("tensor", "fsdp")
    assert found["params/layer_0/mlp/in/kernel"] == P("fsdp", "tensor")
    assert found["params/layer_0/mlp/out/kernel"] == P("tensor", "fsdp")
    assert found["params/layer_0/mlp_norm/scale"] == P()
    assert found["params/layer_1/lstm/input_kernel"] == P("tensor", None, "fsdp")
    assert found["step"] == P() and found["opt_state/0/count"] == P()
    # 1001 rows do not divide by 2: that axis alone is replicated, and a note says so.
    assert found["params/head/softmax/embedding"] == P(None, "fsdp")
    assert len(notes) == 1 and "head/softmax/embedding" in notes[0] and "tensor=2 does not divide 1001" in notes[0]


def test_slots_follow_their_parameter_and_the_carry_its_rows():
    for tx in (optax.adam(1e-3), optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), optax.adagrad(0.1)):
        found, _ = specs(sharding.make_mesh(2, 2, 2), tx=tx, carry={"layer_0": struct(8, 2, 4)})
        slots = [name for name in found if name.startswith("opt_state") and name.endswith("embedding")]
        assert slots
        for name in slots:
            parameter = name[name.index("embed/" if "embed/" in name else "head/") :]
            assert found[name] == found[f"params/{parameter}"]
        assert found["carry/layer_0"] == P(("data", "fsdp"))


def test_a_slot_of_another_shape_is_replicated():
    """A factored optimiser keeps one row and one column of a matrix under the matrix's path."""
    found, _ = specs(sharding.make_mesh(1, 4, 2), tx=optax.adafactor(1e-3, min_dim_size_to_factor=32))
    factored = [name for name in found if "v_row" in name and name.endswith("query/kernel")]
    assert factored and all(found[name] == P() for name in factored)


def test_other_rules(monkeypatch):
    import types

    found, notes = specs(sharding.make_mesh(2, 2, 2), sharding.named_rules("replicated"))
    assert set(found.values()) == {P()} and not notes
    monkeypatch.setitem(
        __import__("sys").modules, "mylab.rules", types.SimpleNamespace(RULES=((r"mlp/in", (None, "tensor")),))
    )
    found, _ = specs(sharding.make_mesh(2, 2, 2), sharding.named_rules("mylab.rules"))
    assert found["params/layer_0/mlp/in/kernel"] == P(None, "tensor")
    assert found["params/layer_0/mlp/out/kernel"] == P()
    with pytest.raises(ConfigError, match=r"config\.rules='fancy'"):
        sharding.named_rules("fancy")
    _, notes = specs(sharding.make_mesh(2, 2, 2), (("mlp_norm", ("fsdp", "tensor")),))
    assert "more axes than the array" in notes[0]


def test_every_sharding_can_be_used():
    mesh = sharding.make_mesh(1, 4, 2)
    state = TrainState(struct(), PARAMS, (), {"c": struct(8, 3)})
    shardings, _ = sharding.state_shardings(mesh, state)
    made = jax.jit(
        lambda: jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), state), out_shardings=shardings
    )()
    kernel = made.params["layer_0"]["mlp"]["in"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (16, 128)
    table = made.params["embed"]["tokens"]["embedding"]
    assert table.addressable_shards[0].data.shape == (500, 16)


@pytest.mark.parametrize(
    "sizes, words",
    [
        (dict(data=3), "does not multiply to the 8 devices"),
        (dict(data=-1, fsdp=3), "does not multiply to the 8 devices"),
        (dict(data=-1, fsdp=-1), "-1 for one axis at the most"),
        (dict(data=0), "at least 1"),
    ],
)
def test_impossible_meshes(sizes, words):
    with pytest.raises(ConfigError, match=words):
        sharding.make_mesh(**sizes)


def test_batches_are_split_over_data_and_fsdp():
    mesh = sharding.make_mesh(2, 2, 2)
    assert sharding.row_shards(mesh) == 4 and sharding.process_rows(mesh) == (0, 1)
    batch = sharding.put({"tokens": np.arange(24).reshape(8, 3)}, mesh)
    assert {shard.data.shape for shard in batch["tokens"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(batch["tokens"], np.arange(24).reshape(8, 3))
