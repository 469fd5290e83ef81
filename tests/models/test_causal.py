"""What GPT and GPT-2 share: causality, the cache, that how it is computed does not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models import gpt, gpt2

KEY = jax.random.key(0)
TOKENS = {"tokens": jnp.zeros((1, 8), jnp.int32)}


@pytest.fixture(params=[gpt, gpt2], ids=["gpt", "gpt2"])
def made(request):
    """A function that makes the model with parameters far from their initial state."""

    def make(**changes):
        model = request.param.tiny().clone(dropout=0.0, attention_dropout=0.0, **changes)
        return model, noise(model)

    return make


def noise(model):
    params = model.init(KEY, TOKENS, method="touch")["params"]
    noisy = lambda path, leaf: leaf + 0.2 * jax.random.normal(jax.random.key(hash_of(path)), leaf.shape)
    return jax.tree_util.tree_map_with_path(noisy, params)


def hash_of(path):
    return sum(map(ord, jax.tree_util.keystr(path)))


@pytest.mark.parametrize("implementation", [None, "einsum"])
def test_nothing_to_the_right_matters(made, implementation):
    model, params = made(attention_implementation=implementation)
    x = jax.random.normal(jax.random.key(1), (1, 6, model.width))

    def run(module, x):
        for index in range(model.depth):
            x, _ = getattr(module, f"layer_{index}")(x, None, None)
        return x

    influence = jax.jacobian(lambda x: model.apply({"params": params}, x, method=run))(x)[0, :, :, 0]
    reach = np.abs(np.asarray(influence)).sum(axis=(1, 3))  # [to, from]
    assert (reach[np.triu_indices(6, 1)] == 0).all() and (reach[np.tril_indices(6)] > 0).all()


def test_implementations_agree(made):
    outputs = [
        model.apply({"params": params}, {"tokens": jnp.arange(14).reshape(2, 7)}).hidden[-1]
        for model, params in (made(attention_implementation=name) for name in (None, "einsum"))
    ]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_cache_read_in_parts_equals_the_whole(made):
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


def test_remat_changes_nothing(made):
    (model, params), (other, _) = made(), made(remat=True)
    loss = lambda module: lambda params: jnp.square(module.apply({"params": params}, TOKENS).hidden[-1]).sum()
    one, two = (jax.grad(loss(module))(params) for module in (model, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


def test_too_long(made):
    model, params = made()
    with pytest.raises(ValueError, match=r"model\.max_len=24"):
        model.apply({"params": params}, {"tokens": jnp.zeros((1, 25), jnp.int32)})
    with pytest.raises(ValueError, match=r"model\.max_len=24"):
        model.apply({"params": params}, TOKENS, model.init_carry(1, 25))
