"""What holds for every model file, found by itself: shapes, finite gradients, padding and batching change nothing."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ctxjax.models
from ctxjax import tree
from ctxjax.types import Model

NAMES = [found.name for found in pkgutil.iter_modules(ctxjax.models.__path__) if not found.ispkg]


def rows(model, count=4, length=6, seed=0):
    """A batch in use: rows of different lengths, padded."""
    rng = np.random.default_rng(seed)
    lengths = np.array([length, length - 2, length - 1, 3][:count])
    mask = np.arange(length)[None, :] < lengths[:, None]
    inputs = {"tokens": rng.integers(0, model.vocab_size, (count, length)), "mask": mask}
    if hasattr(model, "max_chars"):
        inputs["chars"] = rng.integers(0, 256, (count, length, model.max_chars))
    if getattr(model, "predicts", "") == "target":
        inputs["decoder_tokens"] = rng.integers(0, model.vocab_size, (count, length))
    return {
        name: jnp.asarray(value if value.dtype == bool else value.astype(np.int32)) for name, value in inputs.items()
    }


@pytest.fixture(scope="module", params=NAMES)
def made(request):
    model = importlib.import_module(f"ctxjax.models.{request.param}").tiny()
    inputs = rows(model)
    params = dict(jax.jit(lambda: model.init(jax.random.key(0), inputs, method="touch"))())
    return model, params.pop("params") if len(params) == 1 else params, inputs


def run(model, params, *args, **kwargs):
    """`params` are all variables of a model that has more than parameters."""
    return model.apply(params if "params" in params else {"params": params}, *args, **kwargs)


def apply(model, params, inputs, **kwargs):
    return run(model, params, inputs, carry=model.init_carry(len(inputs["mask"])), **kwargs)


def puts_to_use(model):
    """A downstream model, whose method says how wide the vector is that its head reads."""
    return callable(getattr(model, "features", None))


def readable(model, outputs):
    """Rows for the readout: a biLM's directions are read one by one, of a downstream model the vectors of texts."""
    if puts_to_use(model) and outputs.pooled is not None:
        return outputs.pooled[:, 0]
    return outputs.hidden[-1][:, 0, : getattr(model, "projection", outputs.hidden[-1].shape[-1])]


def test_shapes(made):
    model, params, inputs = made
    assert isinstance(model, Model)
    outputs = apply(model, params, inputs)
    assert len(outputs.hidden) == model.depth + 1
    width = outputs.hidden[0].shape[-1]
    widths = model.widths() if hasattr(model, "widths") else (width,) * (model.depth + 1)
    assert [layer.shape for layer in outputs.hidden] == [(*inputs["mask"].shape, each) for each in widths]
    if outputs.pooled is not None:
        assert outputs.pooled.shape == (4, 1, model.features() if puts_to_use(model) else width)
    assert jax.tree.structure(outputs.carry) == jax.tree.structure(model.init_carry(4))
    assert [leaf.shape for leaf in jax.tree.leaves(outputs.carry)] == [
        leaf.shape for leaf in jax.tree.leaves(model.init_carry(4))
    ]
    read, table, bias = run(model, params, readable(model, outputs), method="readout")
    outcomes = len(getattr(model, "labels", ())) or model.vocab_size
    assert table.shape == (outcomes, read.shape[1]) and bias.shape == (outcomes,)


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(made):
    model, params, inputs = made

    def loss(params):
        outputs = apply(model, params, inputs)
        total = jnp.square(outputs.hidden[-1]).sum() + jnp.sin(outputs.hidden[-1]).sum()
        read, table, bias = run(model, params, readable(model, outputs), method="readout")
        total += jnp.square(jax.nn.log_softmax(read @ table.T + jnp.broadcast_to(bias[None], (4, len(bias))))).sum()
        if outputs.pooled is not None:
            total += jnp.square(outputs.pooled).sum()
        if getattr(model, "next_sentence", False):
            total += jnp.square(run(model, params, "nsp", outputs.pooled, method="head")).sum()
        touched = jax.tree.leaves(run(model, params, inputs, method="touch"))
        return total + sum(jnp.square(leaf).sum() for leaf in touched)

    # Away from the initial values: behind a table that starts as zeros nothing would have a gradient.
    params = jax.tree.map(lambda leaf: leaf + 0.01 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    for name, gradient in tree.flatten(jax.jit(jax.grad(loss))(params)).items():
        assert np.isfinite(gradient).all(), name
        # A key's bias shifts all scores of a query alike, and softmax does not see that.
        assert np.abs(gradient).max() > 0 or name.endswith("key/bias"), name


def test_padding_changes_nothing(made):
    model, params, inputs = made
    noise = jax.random.randint(jax.random.key(1), inputs["tokens"].shape, 0, model.vocab_size)
    other = dict(inputs, tokens=jnp.where(inputs["mask"], inputs["tokens"], noise))
    if "chars" in inputs:
        keep = inputs["mask"][:, :, None]
        other["chars"] = jnp.where(keep, inputs["chars"], (inputs["chars"] + 1) % 256)
    one, two = (apply(model, params, which) for which in (inputs, other))
    for left, right in zip(one.hidden, two.hidden):
        np.testing.assert_allclose(left[inputs["mask"]], right[inputs["mask"]], atol=2e-6)
    for left, right in zip(jax.tree.leaves(one.carry), jax.tree.leaves(two.carry)):
        np.testing.assert_allclose(left, right, atol=2e-6)
    short = {name: value[:, :8] if value.ndim > 1 else value for name, value in inputs.items()}
    longer = {name: jnp.pad(value, [(0, 0), (0, 2)] + [(0, 0)] * (value.ndim - 2)) for name, value in short.items()}
    wide = apply(model, params, longer)
    np.testing.assert_allclose(wide.hidden[-1][:, :6][inputs["mask"]], one.hidden[-1][inputs["mask"]], atol=2e-6)


def test_a_row_alone_is_the_row_in_a_batch(made):
    model, params, inputs = made
    together = apply(model, params, inputs)
    for row in range(4):
        alone = apply(model, params, {name: value[row : row + 1] for name, value in inputs.items()})
        np.testing.assert_allclose(
            alone.hidden[-1][0][inputs["mask"][row]], together.hidden[-1][row][inputs["mask"][row]], atol=2e-6
        )


def test_dropout_only_in_training_and_only_by_its_key(made):
    model, params, inputs = made
    if not model.dropout:
        pytest.skip("no dropout")
    still = apply(model, params, inputs)
    keys = [{name: jax.random.key(seed) for name in ("dropout", "shared")} for seed in (0, 0, 1)]
    runs = [apply(model, params, inputs, train=True, rngs=rngs).hidden[-1] for rngs in keys]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2]) and not np.allclose(runs[0], still.hidden[-1])
