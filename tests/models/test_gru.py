"""The GRU: PyTorch's, forward and backward; a mask; and stopping early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models.layers.gru import gru

S, T, B, D, H = 2, 5, 3, 4, 6
MASK = jnp.arange(T)[:, None] < jnp.array([[4, 2, 3]])


def example(seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return make(S, T, B, 3 * H), make(S, H, 3 * H), make(S, H), make(S, B, H)


def plain(gates, recurrent, bias, hidden, mask):
    """The same recurrence left to autodiff."""
    outputs = []
    for t in range(T):
        x_r, x_z, x_n = jnp.split(gates[:, t], 3, axis=-1)
        h_r, h_z, h_n = jnp.split(jnp.einsum("sbh,shg->sbg", hidden, recurrent), 3, axis=-1)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        new = (1 - z) * jnp.tanh(x_n + r * (h_n + bias[:, None])) + z * hidden
        hidden = new if mask is None else jnp.where(mask[t][None, :, None], new, hidden)
        outputs.append(hidden)
    return jnp.stack(outputs, 1), hidden


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_gradients_are_those_of_autodiff(mask):
    args = example()
    rng = np.random.default_rng(1)
    wanted = rng.normal(size=(S, T, B, H)), rng.normal(size=(S, B, H))
    loss = lambda run: lambda *args: sum((out * want).sum() for out, want in zip(run(*args, mask), wanted))
    ours, theirs = (jax.value_and_grad(loss(run), (0, 1, 2, 3))(*args) for run in (gru, plain))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for one, two in zip(ours[1], theirs[1]):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_it_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = rng.normal(size=(T, B, D)).astype(np.float32)
    net = torch.nn.GRU(D, H, bidirectional=True)
    with torch.no_grad():
        out, last = net(torch.from_numpy(x))
    named = {name: value.detach().numpy() for name, value in net.named_parameters()}
    pick = lambda name: np.stack([named[f"{name}_l0"], named[f"{name}_l0_reverse"]])
    recurrent = pick("weight_hh").swapaxes(1, 2)
    beside = pick("bias_ih")
    beside[:, : 2 * H] += pick("bias_hh")[:, : 2 * H]
    both = np.stack([x, x[::-1]])
    gates = np.einsum("stbd,sdg->stbg", both, pick("weight_ih").swapaxes(1, 2)) + beside[:, None, None]
    args = (gates, recurrent, pick("bias_hh")[:, 2 * H :], np.zeros((S, B, H), np.float32))
    ours, ended = gru(*map(jnp.asarray, args))
    np.testing.assert_allclose(np.concatenate([ours[0], ours[1][::-1]], -1), out.numpy(), atol=2e-6)
    np.testing.assert_allclose(ended, last.numpy(), atol=2e-6)


def test_stopping_early_changes_no_used_step():
    args = example(3)
    loss = lambda used: lambda *args: (gru(*args, MASK, used)[0][:, :4] ** 2).sum()
    whole, short = (jax.value_and_grad(loss(used), (0, 1, 2, 3))(*args) for used in (None, jnp.int32(4)))
    np.testing.assert_allclose(short[0], whole[0], rtol=1e-6)
    for one, two in zip(short[1], whole[1]):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert not np.asarray(gru(*args, MASK, jnp.int32(4))[0])[:, 4:].any()
