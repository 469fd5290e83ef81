"""LSTMs with their derivative written by hand: the projected, clipped one of the biLM, all directions at once, and the
plain one.

    gates  z = x W + h R + b = (i, j, f, o)          c' = clip(sigmoid(f + 1) c + sigmoid(i) tanh(j))
    output h' = clip((sigmoid(o) tanh(c')) P)

The published directions are two independent LSTMs of one shape, so they are the leading axis of one loop. What does
not depend on the state stays out of it: `x W + b` before, and after the backward loop the gradients of R and P, each
one product over all steps in place of a rank-B update a step. The plain LSTM has no P, no clips and no forget bias
beside b, and may stop before the end of a window.

Reference: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory"; Sak et al. 2014, "Long Short-Term Memory Recurrent
Neural Network Architectures for Large Scale Acoustic Modeling"; Peters et al. 2018;
`tf.nn.rnn_cell.LSTMCell(num_proj, cell_clip, proj_clip)` as bilm-tf calls it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers import steps

FORGET_BIAS = 1.0


class _Options(NamedTuple):
    cell_clip: float = 0.0
    projection_clip: float = 0.0
    forget_bias: float = 0.0


def projected_lstm(
    gates: Float[Array, "S T B G"],
    recurrent: Float[Array, "S P G"],
    projection: Float[Array, "S H P"],
    cell: Float[Array, "S B H"],
    hidden: Float[Array, "S B P"],
    mask: Bool[Array, "T B"] | None = None,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
) -> tuple[Float[Array, "S T B P"], Float[Array, "S B H"], Float[Array, "S B P"]]:
    """Run S independent LSTMs over T steps; G = 4 H, gate order i j f o.

    Args:
      gates: `x W + b` of every step.
      recurrent, projection: the products are taken in their dtype, the state is f32.
      cell, hidden: the state before the first step.
      mask: a step where it is False keeps the state, and gives the kept hidden state once more.
      cell_clip, projection_clip: bounds of |c| and |h|; 0 for none.

    Returns:
      The hidden state of every step, the last cell and the last hidden state, in f32.
    """
    options = _Options(cell_clip, projection_clip, FORGET_BIAS)
    return _lstm(gates, recurrent, projection, cell, hidden, mask, None, options)


def lstm(
    gates: Float[Array, "S T B G"],
    recurrent: Float[Array, "S H G"],
    cell: Float[Array, "S B H"],
    hidden: Float[Array, "S B H"],
    mask: Bool[Array, "T B"] | None = None,
    used: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "S T B H"], Float[Array, "S B H"], Float[Array, "S B H"]]:
    """Run S independent LSTMs without projection, clips or a forget bias of their own: `torch.nn.LSTM`.

    Args:
      gates, recurrent, cell, hidden, mask: as of `projected_lstm`; torch has the gates in the order i f j o.
      used: the loops end after this many steps, and the hidden state of later ones is zero; None for all.

    Returns:
      The hidden state of every step, the last cell and the last hidden state, in f32.
    """
    return _lstm(gates, recurrent, None, cell, hidden, mask, used, _Options())


def _clip(x: Array, bound: float) -> Array:
    return jnp.clip(x, -bound, bound) if bound else x


def _inside(x: Array, bound: float) -> Array | float:
    """1 where a clipped value was not clipped (a value that lies exactly on the bound counts as clipped)."""
    return (jnp.abs(x) < bound).astype(x.dtype) if bound else 1.0


def _run(gates, recurrent, projection, cell, hidden, mask, used, options: _Options, keep: bool):
    """The loop over steps; `keep` writes what the backward loop needs: the cells and the gates' values."""
    directions, length, rows, _ = gates.shape

    def step(t, state):
        old_cell, old_hidden, outputs, kept = state
        z = steps.at(gates, t).astype(jnp.float32) + steps.product(old_hidden, recurrent)
        i, j, f, o = jnp.split(z, 4, axis=-1)
        i, j, f, o = jax.nn.sigmoid(i), jnp.tanh(j), jax.nn.sigmoid(f + options.forget_bias), jax.nn.sigmoid(o)
        cell = steps.chosen(mask, t, _clip(f * old_cell + i * j, options.cell_clip), old_cell)
        inner = o * jnp.tanh(cell)
        out = inner if projection is None else _clip(steps.product(inner, projection), options.projection_clip)
        hidden = steps.chosen(mask, t, out, old_hidden)
        if keep:
            kept = tuple(steps.put(leaf, t, value) for leaf, value in zip(kept, (cell, i, j, f, o)))
        return cell, hidden, steps.put(outputs, t, hidden), kept

    lead = (directions, length, rows)
    outputs = jnp.zeros((*lead, hidden.shape[-1]), jnp.float32)
    dtypes = (jnp.float32, *[gates.dtype] * 4) if keep else ()
    kept = tuple(jnp.zeros((*lead, cell.shape[-1]), dtype) for dtype in dtypes)
    state = (cell.astype(jnp.float32), hidden.astype(jnp.float32), outputs, kept)
    last_cell, last_hidden, outputs, kept = jax.lax.fori_loop(0, length if used is None else used, step, state)
    return (outputs, last_cell, last_hidden), kept


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _lstm(gates, recurrent, projection, cell, hidden, mask, used, options):
    return _run(gates, recurrent, projection, cell, hidden, mask, used, options, keep=False)[0]


def _forward(gates, recurrent, projection, cell, hidden, mask, used, options):
    out, kept = _run(gates, recurrent, projection, cell, hidden, mask, used, options, keep=True)
    return out, (out[0], kept, recurrent, projection, cell, hidden, mask, used)


def _backward(options, residuals, gradients):
    outputs, kept, recurrent, projection, first_cell, first_hidden, mask, used = residuals
    cells, i, j, f, o = kept
    d_outputs, d_last_cell, d_last_hidden = gradients
    dtype, length = i.dtype, i.shape[1] if used is None else used
    # Transposed once: in the loop, a product with a transposed factor costs double.
    recurrent_t = jnp.swapaxes(recurrent, 1, 2)
    projection_t = None if projection is None else jnp.swapaxes(projection, 1, 2)
    old_cells = jnp.concatenate([first_cell.astype(cells.dtype)[:, None], cells[:, :-1]], axis=1)

    def step(back, state):
        d_cell, d_hidden, d_gates, d_projected = state
        t = length - 1 - back
        i_t, j_t, f_t, o_t = (steps.at(leaf, t).astype(jnp.float32) for leaf in (i, j, f, o))
        cell = steps.at(cells, t)
        d_hidden = d_hidden + steps.at(d_outputs, t)
        tanh_cell = jnp.tanh(cell)
        d_out = steps.chosen(mask, t, d_hidden * _inside(steps.at(outputs, t), options.projection_clip), 0.0)
        d_inner = d_out if projection_t is None else steps.product(d_out, projection_t)
        d_new = (d_cell + d_inner * o_t * (1 - tanh_cell**2)) * _inside(cell, options.cell_clip)
        d_new = steps.chosen(mask, t, d_new, 0.0)
        d_z = jnp.concatenate(
            [
                d_new * j_t * i_t * (1 - i_t),
                d_new * i_t * (1 - j_t**2),
                d_new * steps.at(old_cells, t) * f_t * (1 - f_t),
                d_inner * tanh_cell * o_t * (1 - o_t),
            ],
            axis=-1,
        )
        d_cell = steps.chosen(mask, t, d_new * f_t, d_cell)
        d_hidden = steps.chosen(mask, t, steps.product(d_z, recurrent_t), d_hidden)
        d_projected = None if d_projected is None else steps.put(d_projected, t, d_out)
        return d_cell, d_hidden, steps.put(d_gates, t, d_z), d_projected

    state = (
        d_last_cell.astype(jnp.float32),
        d_last_hidden.astype(jnp.float32),
        jnp.zeros((*i.shape[:3], recurrent.shape[-1]), dtype),
        None if projection is None else jnp.zeros(outputs.shape, dtype),
    )
    d_cell, d_hidden, d_gates, d_projected = jax.lax.fori_loop(0, length, step, state)
    old_hidden = jnp.concatenate([first_hidden.astype(outputs.dtype)[:, None], outputs[:, :-1]], axis=1)
    d_projection = None
    if projection is not None:
        inner = o.astype(jnp.float32) * jnp.tanh(cells)
        d_projection = steps.outer(inner.astype(dtype), d_projected, used).astype(projection.dtype)
    return (
        d_gates,
        steps.outer(old_hidden.astype(dtype), d_gates, used).astype(recurrent.dtype),
        d_projection,
        d_cell.astype(first_cell.dtype),
        d_hidden.astype(first_hidden.dtype),
        None,
        None,
    )


_lstm.defvjp(_forward, _backward)
