"""GPT-2: counts, parity with another implementation, causality, the cache, the initial deviations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import tree
from ctxjax.models import gpt2

KEY = jax.random.key(0)
TOKENS = {"tokens": jnp.zeros((1, 8), jnp.int32)}


@pytest.mark.parametrize(
    ("width", "depth", "heads", "count"),
    [
        (768, 12, 12, 124_439_808),
        (1024, 24, 16, 354_823_168),
        (1280, 36, 20, 774_030_080),
        (1600, 48, 25, 1_557_611_200),
    ],
)
def test_parameter_counts_are_the_published_ones(width, depth, heads, count):
    model = gpt2.Model(width=width, depth=depth, num_heads=heads, mlp_dim=4 * width)
    assert tree.count(jax.eval_shape(lambda: model.init(KEY, TOKENS, method="touch")["params"])) == count


@pytest.mark.parametrize(("scaled", "deviation"), [(True, 0.02 / np.sqrt(6)), (False, 0.02)])
def test_initial_deviations(scaled, deviation):
    model = gpt2.Model(400, width=64, depth=3, num_heads=2, mlp_dim=128, max_len=64, scaled_residuals=scaled)
    params = tree.flatten(model.init(KEY, TOKENS, method="touch")["params"])
    for name, leaf in params.items():
        if name.endswith(("kernel", "embedding")):
            wanted = deviation if name.endswith("out/kernel") else 0.01 if "positions" in name else 0.02
            assert float(leaf.std()) == pytest.approx(wanted, rel=0.06), name
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name


def made(**changes):
    model = gpt2.tiny().clone(dropout=0.0, attention_dropout=0.0, **changes)
    params = model.init(KEY, TOKENS, method="touch")["params"]
    noisy = lambda path, leaf: leaf + 0.2 * jax.random.normal(jax.random.key(hash_of(path)), leaf.shape)
    return model, jax.tree_util.tree_map_with_path(noisy, params)


def hash_of(path):
    return sum(map(ord, jax.tree_util.keystr(path)))


@pytest.mark.parametrize("implementation", [None, "einsum"])
def test_nothing_to_the_right_matters(implementation):
    model, params = made(attention_implementation=implementation)
    x = jax.random.normal(jax.random.key(1), (1, 6, model.width))

    def run(module, x):
        for index in range(model.depth):
            x, _ = getattr(module, f"layer_{index}")(x, None, None)
        return x

    influence = jax.jacobian(lambda x: model.apply({"params": params}, x, method=run))(x)[0, :, :, 0]
    reach = np.abs(np.asarray(influence)).sum(axis=(1, 3))  # [to, from]
    assert (reach[np.triu_indices(6, 1)] == 0).all() and (reach[np.tril_indices(6)] > 0).all()


def test_implementations_agree():
    outputs = [
        model.apply({"params": params}, {"tokens": jnp.arange(14).reshape(2, 7)}).hidden[-1]
        for model, params in (made(attention_implementation=name) for name in (None, "einsum"))
    ]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_cache_read_in_parts_equals_the_whole():
    """Rows of different lengths, padded behind; then one token after the other."""
    model, params = made()
    tokens = jax.random.randint(jax.random.key(2), (3, 12), 0, model.vocab_size)
    lengths = np.array([5, 2, 4])
    whole = model.apply({"params": params}, {"tokens": tokens})
    step = jax.jit(lambda inputs, carry: model.apply({"params": params}, inputs, carry))
    first = {"tokens": tokens[:, :5], "mask": jnp.arange(5)[None] < lengths[:, None]}
    outputs = step(first, model.init_carry(3, 16))
    for row, length in enumerate(lengths):
        for got, wanted in zip(outputs.hidden, whole.hidden):
            np.testing.assert_allclose(got[row, :length], wanted[row, :length], atol=1e-5)
    for offset in range(6):
        where = lengths + offset
        outputs = step({"tokens": tokens[jnp.arange(3), where][:, None]}, outputs.carry)
        for row in range(3):
            np.testing.assert_allclose(outputs.hidden[-1][row, 0], whole.hidden[-1][row, where[row]], atol=1e-5)
    assert outputs.carry["used"].tolist() == (lengths + 6).tolist()


def test_remat_changes_nothing():
    (model, params), (other, _) = made(), made(remat=True)
    loss = lambda module: lambda params: jnp.square(module.apply({"params": params}, TOKENS).hidden[-1]).sum()
    one, two = (jax.grad(loss(module))(params) for module in (model, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


def test_too_long():
    model, params = made()
    with pytest.raises(ValueError, match=r"model\.max_len=24"):
        model.apply({"params": params}, {"tokens": jnp.zeros((1, 25), jnp.int32)})
    with pytest.raises(ValueError, match=r"model\.max_len=24"):
        model.apply({"params": params}, TOKENS, model.init_carry(1, 25))
