"""The LSTM by cuDNN: its arguments, against JAX's own reference of it; and on a GPU against ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from ctxjax.config import ConfigError
from ctxjax.models import awd_lstm
from ctxjax.models.layers import cudnn, steps
from ctxjax.models.layers.lstm import lstm

T, B, D, H = 6, 3, 5, 4
MASK = jnp.arange(T)[:, None] < jnp.array([[6, 2, 0]])


def example():
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return make(T, B, D), make(D, 4 * H), make(H, 4 * H), make(4 * H), make(B, H), make(B, H)


def ours(x, kernel, recurrent, bias, cell, hidden, mask):
    gates = steps.affine(x[None], kernel[None], bias[None])
    out, cell, hidden = lstm(gates, recurrent[None], cell[None], hidden[None], mask)
    out = out[0] if mask is None else jnp.where(mask[:, :, None], out[0], 0.0)
    return out, cell[0], hidden[0]


def reference(x, h_0, c_0, weights, lengths, inputs, cells, layers, dropout, bidirectional):
    """`rnn.lstm` as JAX documents it, in plain operations."""
    parts = rnn.unpack_lstm_weights(weights, inputs, cells, layers, bidirectional)
    return rnn.lstm_ref(x, h_0, c_0, *parts, lengths, inputs, cells, layers, dropout, bidirectional)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_what_cudnn_is_given_makes_our_lstm(mask, monkeypatch):
    """cuDNN itself stands behind a GPU; what it is defined to compute does not."""
    monkeypatch.setattr(rnn, "lstm", reference)
    monkeypatch.setattr(rnn, "gpu_rnn", object())
    args = example()
    for left, right in zip(cudnn.cudnn_lstm(*args, mask), ours(*args, mask)):
        np.testing.assert_allclose(left, right, atol=2e-6)
    loss = lambda run: lambda *args: sum(jnp.square(part).sum() for part in run(*args, mask))
    gradients = (jax.grad(loss(run), argnums=range(6))(*args) for run in (cudnn.cudnn_lstm, ours))
    for left, right in zip(*gradients):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_there_is_as_much_as_cudnn_wants():
    _, kernel, recurrent, bias, *_ = example()
    assert cudnn.pack(kernel, recurrent, bias).shape == (rnn.get_num_params_in_lstm(D, H, 1, False),)


def test_without_a_gpu_it_says_so():
    if rnn.gpu_rnn is not None:
        pytest.skip("this JAX has cuDNN")
    model = awd_lstm.tiny().clone(lstm_implementation="cudnn")
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        model.init(jax.random.key(0), {"tokens": jnp.zeros((2, 3), jnp.int32)})
    with pytest.raises(ValueError, match="neither empty nor 'cudnn'"):
        awd_lstm.tiny().clone(lstm_implementation="fast").init(
            jax.random.key(0), {"tokens": jnp.zeros((2, 3), jnp.int32)}
        )


@pytest.mark.gpu
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_on_a_gpu_it_is_ours(mask):
    args = example()
    loss = lambda run: lambda *args: sum(jnp.square(part).sum() for part in run(*args, mask))
    with jax.default_matmul_precision("highest"):
        for run in (lambda f: f(*args, mask), lambda f: jax.jit(jax.grad(loss(f), argnums=range(6)))(*args)):
            for left, right in zip(run(cudnn.cudnn_lstm), run(ours)):
                np.testing.assert_allclose(left, right, atol=1e-4)
