"""The projected LSTM: NumPy oracle with clipping, torch without, gradients against plain autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.models.layers import steps
from ctxjax.models.layers.lstm import lstm, projected_lstm

S, T, B, D, H, P = 2, 5, 3, 4, 6, 4


def example(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *shape: (scale * rng.normal(size=shape)).astype(np.float32)
    return make(S, T, B, 4 * H), make(S, P, 4 * H), make(S, H, P), make(S, B, H), make(S, B, P)


def oracle(gates, recurrent, projection, cell, hidden, cell_clip, projection_clip, mask=None):
    """`tf.nn.rnn_cell.LSTMCell(num_proj, cell_clip, proj_clip)`, one step after another, in f64."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    outputs = np.zeros((S, T, B, P))
    cells, hiddens = cell.astype(np.float64), hidden.astype(np.float64)
    for s in range(S):
        c, h = cells[s], hiddens[s]
        for t in range(T):
            i, j, f, o = np.split(gates[s, t] + h @ recurrent[s], 4, axis=1)
            new_c = np.clip(sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j), -cell_clip, cell_clip)
            new_h = np.clip((sigmoid(o) * np.tanh(new_c)) @ projection[s], -projection_clip, projection_clip)
            on = np.ones((B, 1), bool) if mask is None else mask[t][:, None]
            c, h = np.where(on, new_c, c), np.where(on, new_h, h)
            outputs[s, t] = h
        cells[s], hiddens[s] = c, h
    return outputs, cells, hiddens


MASK = np.arange(T)[:, None] < np.array([[5, 2, 4]])


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_clipping_is_that_of_the_original(mask):
    args = example(2.0)
    wide = oracle(*args, 99.0, 99.0, mask)
    expected = oracle(*args, 0.8, 0.5, mask)
    assert np.abs(wide[0] - expected[0]).max() > 0.5  # both clips are at work
    out = projected_lstm(*map(jnp.asarray, args), None if mask is None else jnp.asarray(mask), 0.8, 0.5)
    for ours, theirs in zip(out, expected):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def plain(gates, recurrent, projection, cell, hidden, mask, clips):
    """The same recurrence left to autodiff."""
    outputs = []
    for t in range(T):
        z = gates[:, t] + jnp.einsum("sbp,spg->sbg", hidden, recurrent)
        i, j, f, o = jnp.split(z, 4, axis=-1)
        new = jax.nn.sigmoid(f + 1.0) * cell + jax.nn.sigmoid(i) * jnp.tanh(j)
        new = jnp.clip(new, -clips[0], clips[0])
        out = jnp.clip(jnp.einsum("sbh,shp->sbp", jax.nn.sigmoid(o) * jnp.tanh(new), projection), -clips[1], clips[1])
        on = jnp.ones((1, B, 1), bool) if mask is None else mask[t][None, :, None]
        cell, hidden = jnp.where(on, new, cell), jnp.where(on, out, hidden)
        outputs.append(hidden)
    return jnp.stack(outputs, 1), cell, hidden


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("clips", [(0.8, 0.5), (50.0, 50.0)], ids=["clipped", "free"])
def test_the_gradient_by_hand_is_that_of_autodiff(mask, clips):
    args = tuple(map(jnp.asarray, example(1.5)))
    mask = None if mask is None else jnp.asarray(mask)
    wanted = [
        jax.random.normal(key, shape)
        for key, shape in zip(jax.random.split(jax.random.key(1), 3), [(S, T, B, P), (S, B, H), (S, B, P)])
    ]
    loss = lambda function: lambda *args: sum((x * w).sum() for x, w in zip(function(*args), wanted))
    ours = jax.grad(loss(lambda *a: projected_lstm(*a, mask, *clips)), argnums=range(5))(*args)
    theirs = jax.grad(loss(lambda *a: plain(*a, mask, clips)), argnums=range(5))(*args)
    for one, two in zip(ours, theirs):
        np.testing.assert_allclose(one, two, atol=2e-5)
        assert float(jnp.abs(two).max()) > 1e-3


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_without_clips_it_is_the_projected_lstm_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((T, B, D), (D, 4 * H), (4 * H,)))
    _, recurrent, projection, cell, hidden = (leaf[:1] for leaf in example())
    lstm = torch.nn.LSTM(D, H, proj_size=P)
    order = [0, 2, 1, 3]  # torch has i f j o
    turn = lambda matrix: np.concatenate([np.split(matrix, 4, axis=-1)[k] for k in order], -1)
    shifted = bias + np.repeat([0.0, 0.0, 1.0, 0.0], H).astype(np.float32)  # its forget bias is in the parameter
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.tensor(turn(kernel).T))
        lstm.weight_hh_l0.copy_(torch.tensor(turn(recurrent[0]).T))
        lstm.bias_ih_l0.copy_(torch.tensor(turn(shifted)))
        lstm.bias_hh_l0.zero_()
        lstm.weight_hr_l0.copy_(torch.tensor(projection[0].T))
        theirs, (their_hidden, their_cell) = lstm(torch.tensor(x), (torch.tensor(hidden), torch.tensor(cell)))
    out, last_cell, last_hidden = projected_lstm(
        jnp.asarray(x @ kernel + bias)[None], *map(jnp.asarray, (recurrent, projection, cell, hidden))
    )
    np.testing.assert_allclose(out[0], theirs.numpy(), atol=2e-6)
    np.testing.assert_allclose(last_cell, their_cell.numpy(), atol=2e-6)
    np.testing.assert_allclose(last_hidden, their_hidden.numpy(), atol=2e-6)


def reordered(matrix):
    """Gates as torch has them (i f j o) in our order (i j f o), or back."""
    return np.concatenate([np.split(matrix, 4, axis=-1)[k] for k in (0, 2, 1, 3)], -1)


def test_the_plain_one_is_the_lstm_of_torch():
    """Outputs, states and every gradient; its own two biases, no forget bias beside them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    x, kernel, bias, recurrent = draw(T, B, D), draw(D, 4 * H), draw(2, 4 * H), draw(H, 4 * H)
    cell, hidden, wanted = draw(1, B, H), draw(1, B, H), draw(T, B, H)
    theirs = torch.nn.LSTM(D, H)
    given = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T, "bias_ih_l0": bias[0], "bias_hh_l0": bias[1]}
    for name, value in given.items():
        turned = reordered(value.T).T if value.ndim == 2 else reordered(value)
        getattr(theirs, name).data.copy_(torch.tensor(np.ascontiguousarray(turned)))
    inputs = torch.tensor(x, requires_grad=True)
    out, (last_hidden, last_cell) = theirs(inputs, (torch.tensor(hidden), torch.tensor(cell)))
    ((out * torch.tensor(wanted)).sum() + last_cell.square().sum()).backward()

    def loss(x, kernel, bias, recurrent):
        gates = steps.affine(x[None], kernel[None], bias.sum(0)[None])
        ours, last_cell, last_hidden = lstm(gates, recurrent[None], jnp.asarray(cell), jnp.asarray(hidden))
        return (ours[0] * wanted).sum() + jnp.square(last_cell).sum(), (ours, last_cell, last_hidden)

    gradients, ours = jax.grad(loss, argnums=range(4), has_aux=True)(*map(jnp.asarray, (x, kernel, bias, recurrent)))
    for one, two in zip(ours, (out, last_cell, last_hidden)):
        np.testing.assert_allclose(one.reshape(two.shape), two.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(gradients[0], inputs.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(gradients[1], reordered(theirs.weight_ih_l0.grad.numpy().T), atol=3e-5)
    np.testing.assert_allclose(gradients[2][0], reordered(theirs.bias_ih_l0.grad.numpy()), atol=3e-5)
    np.testing.assert_allclose(gradients[2][0], gradients[2][1])
    np.testing.assert_allclose(gradients[3], reordered(theirs.weight_hh_l0.grad.numpy().T), atol=3e-5)


@pytest.mark.parametrize("length", [1, 8, 11, 40])
def test_a_loop_that_ends_early_is_the_window_cut_there(length):
    """Values, and the gradient of everything, with NaN in the blocks (10 of the 40 steps) that are not to be read."""
    rng = np.random.default_rng(length)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))
    x, kernel, bias, recurrent = draw(1, 40, B, D), draw(1, D, 4 * H), draw(1, 4 * H), draw(1, H, 4 * H)
    state, wanted = (draw(1, B, H), draw(1, B, H)), draw(1, 40, B, H)
    poisoned = x.at[:, -(-length // 10) * 10 :].set(jnp.nan)

    def loss(x, kernel, bias, recurrent, cell, hidden, used):
        gates = steps.affine(x, kernel, bias, used)
        out, last_cell, last_hidden = lstm(gates, recurrent, cell, hidden, None, used)
        return (out * wanted[:, : out.shape[1]]).sum() + jnp.square(last_cell).sum() + last_hidden.sum(), out

    grad = jax.jit(jax.grad(loss, argnums=range(6), has_aux=True))
    ours, out = grad(poisoned, kernel, bias, recurrent, *state, jnp.int32(length))
    theirs, cut = jax.grad(loss, argnums=range(6), has_aux=True)(x[:, :length], kernel, bias, recurrent, *state, None)
    np.testing.assert_allclose(out[:, :length], cut, atol=1e-6)
    assert not np.asarray(out[:, length:]).any() and not np.asarray(ours[0][:, length:]).any()
    np.testing.assert_allclose(ours[0][:, :length], theirs[0], atol=2e-6)
    for one, two in zip(ours[1:], theirs[1:]):
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5)
