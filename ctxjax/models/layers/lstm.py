"""The projected, clipped LSTM of the biLM, all directions at once, with its derivative written by hand.

    gates  z = x W + h R + b = (i, j, f, o)          c' = clip(sigmoid(f + 1) c + sigmoid(i) tanh(j))
    output h' = clip((sigmoid(o) tanh(c')) P)

The published directions are two independent LSTMs of one shape, so they are the leading axis of one scan. What does
not depend on the state stays out of the loop: `x W + b` before it, and after the backward loop the gradients of R and P,
each one product over all steps in place of a rank-B update a step.

Reference: Sak et al. 2014, "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic
Modeling"; Peters et al. 2018; `tf.nn.rnn_cell.LSTMCell(num_proj, cell_clip, proj_clip)` as bilm-tf calls it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

FORGET_BIAS = 1.0


def projected_lstm(
    gates: Float[Array, "T S B G"],
    recurrent: Float[Array, "S P G"],
    projection: Float[Array, "S H P"],
    cell: Float[Array, "S B H"],
    hidden: Float[Array, "S B P"],
    mask: Bool[Array, "T S B"] | None = None,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
) -> tuple[Float[Array, "T S B P"], Float[Array, "S B H"], Float[Array, "S B P"]]:
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
    return _lstm(gates, recurrent, projection, cell, hidden, mask, (cell_clip, projection_clip))


def _clip(x: Array, bound: float) -> Array:
    return jnp.clip(x, -bound, bound) if bound else x


def _inside(x: Array, bound: float) -> Array | float:
    """1 where a clipped value was not clipped (a value that lies exactly on the bound counts as clipped)."""
    return (jnp.abs(x) < bound).astype(x.dtype) if bound else 1.0


def _product(x: Array, weights: Array) -> Array:
    """`[S B X] @ [S X Y]` in the dtype of the weights, summed in f32."""
    return jax.lax.dot_general(
        x.astype(weights.dtype), weights, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float32
    )


def _scan(gates, recurrent, projection, cell, hidden, mask, clips):
    cell_clip, projection_clip = clips

    def step(state, now):
        old_cell, old_hidden = state
        gates, mask = now
        i, j, f, o = jnp.split(gates.astype(jnp.float32) + _product(old_hidden, recurrent), 4, axis=-1)
        i, j, f, o = jax.nn.sigmoid(i), jnp.tanh(j), jax.nn.sigmoid(f + FORGET_BIAS), jax.nn.sigmoid(o)
        cell = _clip(f * old_cell + i * j, cell_clip)
        hidden = _clip(_product(o * jnp.tanh(cell), projection), projection_clip)
        if mask is not None:
            keep = mask[:, :, None]
            cell, hidden = jnp.where(keep, cell, old_cell), jnp.where(keep, hidden, old_hidden)
        return (cell, hidden), (hidden, cell, (i, j, f, o))

    state = (cell.astype(jnp.float32), hidden.astype(jnp.float32))
    return jax.lax.scan(step, state, (gates, mask))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _lstm(gates, recurrent, projection, cell, hidden, mask, clips):
    (cell, hidden), (outputs, _, _) = _scan(gates, recurrent, projection, cell, hidden, mask, clips)
    return outputs, cell, hidden


def _forward(gates, recurrent, projection, cell, hidden, mask, clips):
    (last_cell, last_hidden), (outputs, cells, acts) = _scan(gates, recurrent, projection, cell, hidden, mask, clips)
    dtype = gates.dtype
    saved = tuple(act.astype(dtype) for act in acts)
    kept = (saved, outputs, cells, recurrent, projection, cell, hidden, mask)
    return (outputs, last_cell, last_hidden), kept


def _backward(clips, kept, gradients):
    acts, outputs, cells, recurrent, projection, first_cell, first_hidden, mask = kept
    cell_clip, projection_clip = clips
    d_outputs, d_last_cell, d_last_hidden = gradients
    dtype = acts[0].dtype
    old_cells = jnp.concatenate([first_cell.astype(cells.dtype)[None], cells[:-1]])
    recurrent_t = jnp.swapaxes(recurrent, 1, 2)  # transposed once: a product with a transposed factor costs double
    projection_t = jnp.swapaxes(projection, 1, 2)

    def step(state, now):
        d_cell, d_hidden = state
        d_output, acts, output, cell, old_cell, mask = now
        i, j, f, o = (act.astype(jnp.float32) for act in acts)
        d_hidden = d_hidden + d_output
        tanh_cell = jnp.tanh(cell)
        d_projected = d_hidden * _inside(output, projection_clip)
        d_inner = _product(d_projected, projection_t)
        d_new = (d_cell + d_inner * o * (1 - tanh_cell**2)) * _inside(cell, cell_clip)
        d_gates = jnp.concatenate(
            [
                d_new * j * i * (1 - i),
                d_new * i * (1 - j**2),
                d_new * old_cell * f * (1 - f),
                d_inner * tanh_cell * o * (1 - o),
            ],
            axis=-1,
        )
        d_old = d_new * f
        if mask is not None:
            keep = mask[:, :, None]
            d_gates, d_projected = jnp.where(keep, d_gates, 0.0), jnp.where(keep, d_projected, 0.0)
            d_old = jnp.where(keep, d_old, d_cell)
        d_before = _product(d_gates, recurrent_t)
        if mask is not None:
            d_before = jnp.where(mask[:, :, None], d_before, d_hidden)
        return (d_old, d_before), (d_gates.astype(dtype), d_projected.astype(dtype))

    start = (d_last_cell.astype(jnp.float32), d_last_hidden.astype(jnp.float32))
    steps = (d_outputs.astype(jnp.float32), acts, outputs, cells, old_cells, mask)
    (d_cell, d_hidden), (d_gates, d_projected) = jax.lax.scan(step, start, steps, reverse=True)
    old_hidden = jnp.concatenate([first_hidden.astype(outputs.dtype)[None], outputs[:-1]])
    inner = acts[3].astype(jnp.float32) * jnp.tanh(cells)
    d_recurrent = _outer(old_hidden.astype(recurrent.dtype), d_gates.astype(recurrent.dtype))
    d_projection = _outer(inner.astype(projection.dtype), d_projected.astype(projection.dtype))
    return (
        d_gates,
        d_recurrent.astype(recurrent.dtype),
        d_projection.astype(projection.dtype),
        d_cell.astype(first_cell.dtype),
        d_hidden.astype(first_hidden.dtype),
        None,
    )


def _outer(left: Array, right: Array) -> Array:
    """Sum over steps and rows of the outer products: `[T S B X], [T S B Y] -> [S X Y]`."""
    return jnp.einsum("tsbx,tsby->sxy", left, right, preferred_element_type=jnp.float32)


_lstm.defvjp(_forward, _backward)
