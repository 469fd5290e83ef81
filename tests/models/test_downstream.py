"""An encoder with a head: paths of pre-training, vectors of a text, the mix, choices, for every kind of encoder."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.models import downstream
from ctxjax.models.layers.heads import POOLS

ENCODERS = ("bert", "gpt", "gpt2", "modernbert", "bilm", "awd_lstm", "word2vec", "glove", "fasttext")
LABELS = ("a", "b", "c")


def fields_of(name):
    """The tiny model of a name as a config has it."""
    model = importlib.import_module(f"ctxjax.models.{name}").tiny()
    return {"name": name} | {
        field: getattr(model, field) for field in model.__dataclass_fields__ if field not in ("parent", "name")
    }


def rows(fields, count=4, length=6, seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.array([length, length - 2, length - 1, 3])[:count]
    inputs = {
        "tokens": rng.integers(0, fields["vocab_size"], (count, length)),
        "mask": np.arange(length)[None] < lengths[:, None],
        "cls_positions": lengths[:, None] - 1,
    }
    if "max_chars" in fields:
        inputs["chars"] = rng.integers(0, 256, (count, length, fields["max_chars"]))
    return {name: jnp.asarray(leaf if leaf.dtype == bool else leaf.astype(np.int32)) for name, leaf in inputs.items()}


def shallow(name):
    """A model of one layer where one is as good as two, which compile for twice as long."""
    model = importlib.import_module(f"ctxjax.models.{name}").tiny()
    return model.clone(depth=1) if name in ("bert", "gpt") else model


def make(name, **more):
    """A shallow model with parameters away from their initial values, without running its initialisers, and inputs."""
    fields = fields_of(name) | {"depth": shallow(name).depth}
    model = downstream.Model(encoder=fields, **{"labels": LABELS, **more})
    inputs = rows(model.encoder)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch")["params"])
    draw = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw.normal(size=leaf.shape), leaf.dtype), shapes)
    if "mix" in drawn.get("task", {}):
        drawn["task"]["mix"] = {"weights": jnp.zeros_like(drawn["task"]["mix"]["weights"]), "gamma": jnp.ones(())}
    return model, drawn, inputs


def apply(model, params, *args, **kwargs):
    return jax.jit(lambda params, *args: model.apply({"params": params}, *args, **kwargs))(params, *args)


@pytest.mark.parametrize("name", ENCODERS)
def test_paths_are_those_of_pretraining_and_heads_are_left_out(name):
    model, params, inputs = make(name, pool="mean")
    alone = shallow(name)
    theirs = tree.flatten(jax.eval_shape(lambda: alone.init(jax.random.key(0), inputs, method="touch")["params"]))
    ours = {path: leaf.shape for path, leaf in tree.flatten(params).items()}
    new = {path for path in ours if path.startswith("task/")}
    assert new == {"task/classify/kernel", "task/classify/bias"}
    assert {path: leaf.shape for path, leaf in theirs.items() if not path.startswith("head/")} == {
        path: shape for path, shape in ours.items() if path not in new
    }
    outputs = jax.eval_shape(lambda: model.apply({"params": params}, inputs))
    assert [layer.shape[-1] for layer in outputs.hidden] == list(model.widths())
    assert outputs.pooled.shape == (4, 1, model.head_width()) and outputs.carry == ()
    vectors = jnp.zeros(outputs.pooled.shape)
    scores = jax.eval_shape(lambda: model.apply({"params": params}, "classify", vectors, method="head"))
    assert scores.shape == (4, 1, 3) and scores.dtype == jnp.float32


@pytest.mark.parametrize(
    "name", ["gpt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bilm", "awd_lstm"))]
)
def test_states_are_those_of_the_encoder(name):
    model, params, inputs = make(name, pool="mean")
    alone = shallow(name)
    encoder_params = {key: value for key, value in params.items() if key != "task"}
    ours = apply(model, params, inputs).hidden
    theirs = apply(alone, encoder_params, inputs, alone.init_carry(4)).hidden
    for left, right in zip(ours, theirs):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_vector_of_a_text():
    """BERT's pooler at its position; elsewhere the state there; means and maxima of what is not padding."""
    model, params, inputs = make("bert")
    outputs = apply(model, params, inputs)
    top, places = np.asarray(outputs.hidden[-1]), np.asarray(inputs["cls_positions"])[:, 0]
    at = top[np.arange(4), places]
    kernel, bias = (np.asarray(params["pooler"][name]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(outputs.pooled[:, 0], np.tanh(at @ kernel + bias), atol=1e-6)
    model, params, inputs = make("gpt")
    outputs = apply(model, params, inputs)
    top, mask = np.asarray(outputs.hidden[-1]), np.asarray(inputs["mask"])
    np.testing.assert_array_equal(outputs.pooled[:, 0], top[np.arange(4), places])
    means, maxima = (POOLS[name](outputs.hidden[-1], inputs["mask"]) for name in ("mean", "max"))
    for row in range(4):
        there = top[row][mask[row]]
        np.testing.assert_allclose(means[row], there.mean(0), atol=1e-6)
        np.testing.assert_array_equal(maxima[row], there.max(0))
    nothing = jnp.zeros((4, 6), bool)
    assert not any(np.any(POOLS[name](outputs.hidden[-1], nothing)) for name in POOLS)


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("awd_lstm", "bilm"))]
)
def test_layers_mixed_and_side_by_side(name):
    """A fresh mix is the mean of all layers, narrower ones filled up; chosen layers stand side by side."""
    model, params, inputs = make(name, mix=True, pool="mean")
    encoder_params = {key: value for key, value in params.items() if key != "task"}
    alone = shallow(name)
    plain = apply(alone, encoder_params, inputs, alone.init_carry(4))
    widest = max(layer.shape[-1] for layer in plain.hidden)
    wide = [np.pad(layer, ((0, 0), (0, 0), (0, widest - layer.shape[-1]))) for layer in plain.hidden]
    outputs = apply(model, params, inputs)
    np.testing.assert_allclose(outputs.hidden[-1], np.mean(wide, axis=0), atol=1e-6)
    weights = model.apply({"params": params}, "mix", method="head")
    assert weights.shape == (model.depth + 1,) and not weights.any()

    def loss(params):
        return jnp.square(model.apply({"params": params}, inputs, method="touch")).sum()

    gradient = jax.jit(jax.grad(loss))(params)["task"]["mix"]
    assert np.abs(gradient["weights"]).min() > 0 and gradient["gamma"] != 0
    model = make(name, layers=(0, -1), pool="mean")[0]
    top = apply(model, {**encoder_params, "task": {}}, inputs).hidden[-1]
    np.testing.assert_allclose(top, np.concatenate([plain.hidden[0], plain.hidden[-1]], axis=-1), atol=1e-6)


@pytest.mark.parametrize("name", ["bert", pytest.param("bilm", marks=pytest.mark.slow)])
def test_choices_are_rows(name):
    """`[B C T]` gives every choice what it has alone, and one score each."""
    model, params, inputs = make(name, task="choose", labels=())
    several = {key: jnp.stack([leaf, leaf[::-1]], axis=1) for key, leaf in inputs.items()}
    outputs, alone = (apply(model, params, which) for which in (several, inputs))
    assert outputs.pooled.shape == (4, 2, model.head_width())
    np.testing.assert_allclose(outputs.pooled[:, 0], alone.pooled[:, 0], atol=1e-6)
    np.testing.assert_allclose(outputs.pooled[:, 1], alone.pooled[::-1, 0], atol=1e-6)
    assert model.apply({"params": params}, "choose", outputs.pooled, method="head").shape == (4, 2, 1)
    again = jax.eval_shape(lambda: model.init(jax.random.key(0), several, method="touch")["params"])
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, params)
    shapes = {key: leaf.shape for key, leaf in several.items()}
    assert model.flops(shapes) == 2 * model.flops({key: leaf.shape for key, leaf in inputs.items()})


def test_language_model_goes_on():
    model, params, _ = make("gpt", language_model=True)
    states = jnp.ones((4, 16))
    _, table, _ = model.apply({"params": params}, "language_model", states, method="head")
    np.testing.assert_array_equal(table, params["embed"]["tokens"]["embedding"])
    with pytest.raises(ValueError, match="no head 'language_model'"):
        make("gpt")[0].apply({"params": params}, "language_model", states, method="head")


def test_dropout_of_the_head_is_for_training_and_may_be_shared():
    fields = {"task": "choose", "labels": (), "dropout": 0.5}
    model, params, _ = make("word2vec", **fields, options={"shared_dropout": True, "width": 8})
    vectors = jnp.ones((5, 3, 8))
    still = model.apply({"params": params}, "choose", vectors, method="head")
    rngs = {name: jax.random.key(1) for name in ("dropout", "shared")}
    dropped = model.apply({"params": params}, "choose", vectors, method="head", rngs=rngs)
    assert not np.allclose(still, dropped)
    np.testing.assert_allclose(dropped, np.broadcast_to(dropped[:, :1], dropped.shape), rtol=1e-6)
    assert len(np.unique(np.round(dropped[:, 0, 0], 6))) > 1
    model, params, _ = make("word2vec", **fields)
    apart = model.apply({"params": params}, "choose", vectors, method="head", rngs=rngs)
    assert not np.allclose(apart[:, 0], apart[:, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "clasify"}, "config.model.task='clasify'; did you mean 'classify'"),
        ({"pool": "min"}, "config.model.pool='min'"),
        ({"labels": ("a",)}, "not two or more"),
        ({"mix": True, "language_model": True}, "reads the last layer"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        make("gpt", **fields)
