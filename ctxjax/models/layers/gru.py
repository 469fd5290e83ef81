"""A gated recurrent unit with its derivative written by hand, all directions at once: `torch.nn.GRU`.

    r, z = sigmoid(x W + h R)        n = tanh(x W_n + b_n + r (h R_n + c))        h' = (1 - z) n + z h

What does not depend on the state is outside the loop, as in `lstm.py`.

Reference: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", with the reset gate behind the
product as in cuDNN and PyTorch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers import steps


def gru(
    gates: Float[Array, "S T B G"],
    recurrent: Float[Array, "S H G"],
    bias: Float[Array, "S H"],
    hidden: Float[Array, "S B H"],
    mask: Bool[Array, "T B"] | None = None,
    used: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "S T B H"], Float[Array, "S B H"]]:
    """Run S independent GRUs over T steps; G = 3 H, gate order r z n.

    Args:
      gates: `x W + b` of every step.
      recurrent: its products are taken in its dtype, the state is f32.
      bias: c, which stands beside the recurrent product of n.
      hidden: the state before the first step.
      mask: a step where it is False keeps the state, and gives it once more.
      used: the loops end after this many steps, and the hidden state of later ones is zero; None for all.

    Returns:
      The hidden state of every step, and the last one, in f32.
    """
    return _gru(gates, recurrent, bias, hidden, mask, used)


def _run(gates, recurrent, bias, hidden, mask, used, keep: bool):
    lead, width = gates.shape[:3], hidden.shape[-1]

    def step(t, state):
        old, outputs, kept = state
        x_r, x_z, x_n = jnp.split(steps.at(gates, t).astype(jnp.float32), 3, axis=-1)
        h_r, h_z, h_n = jnp.split(steps.product(old, recurrent), 3, axis=-1)
        h_n = h_n + bias.astype(jnp.float32)[:, None, :]
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        n = jnp.tanh(x_n + r * h_n)
        new = steps.chosen(mask, t, (1.0 - z) * n + z * old, old)
        kept = tuple(steps.put(leaf, t, value) for leaf, value in zip(kept, (r, z, n, h_n)))
        return new, steps.put(outputs, t, new), kept

    kept = tuple(jnp.zeros((*lead, width), gates.dtype) for _ in range(4 if keep else 0))
    state = (hidden.astype(jnp.float32), jnp.zeros((*lead, width), jnp.float32), kept)
    last, outputs, kept = jax.lax.fori_loop(0, lead[1] if used is None else used, step, state)
    return (outputs, last), kept


@jax.custom_vjp
def _gru(gates, recurrent, bias, hidden, mask, used):
    return _run(gates, recurrent, bias, hidden, mask, used, keep=False)[0]


def _forward(gates, recurrent, bias, hidden, mask, used):
    out, kept = _run(gates, recurrent, bias, hidden, mask, used, keep=True)
    return out, (out[0], kept, recurrent, bias, hidden, mask, used)


def _backward(residuals, gradients):
    outputs, kept, recurrent, bias, first, mask, used = residuals
    d_outputs, d_last = gradients
    dtype, length = kept[0].dtype, outputs.shape[1] if used is None else used
    recurrent_t = jnp.swapaxes(recurrent, 1, 2)
    before = jnp.concatenate([first.astype(outputs.dtype)[:, None], outputs[:, :-1]], axis=1)

    def step(back, state):
        d_hidden, d_gates, d_inner = state
        t = length - 1 - back
        r, z, n, h_n = (steps.at(leaf, t).astype(jnp.float32) for leaf in kept)
        d_hidden = d_hidden + steps.at(d_outputs, t)
        d_new = steps.chosen(mask, t, d_hidden, 0.0)
        d_n = d_new * (1.0 - z) * (1.0 - n**2)
        d_z = d_new * (steps.at(before, t) - n) * z * (1.0 - z)
        d_r = d_n * h_n * r * (1.0 - r)
        d_h_n = d_n * r
        through = steps.product(jnp.concatenate([d_r, d_z, d_h_n], axis=-1), recurrent_t)
        d_hidden = steps.chosen(mask, t, d_new * z + through, d_hidden)
        d_gates = steps.put(d_gates, t, jnp.concatenate([d_r, d_z, d_n], axis=-1))
        return d_hidden, d_gates, steps.put(d_inner, t, d_h_n)

    lead = outputs.shape[:3]
    state = (
        d_last.astype(jnp.float32),
        jnp.zeros((*lead, recurrent.shape[-1]), dtype),
        jnp.zeros(outputs.shape, dtype),
    )
    d_hidden, d_gates, d_inner = jax.lax.fori_loop(0, length, step, state)
    width = outputs.shape[-1]
    d_products = jnp.concatenate([d_gates[..., : 2 * width], d_inner], axis=-1)
    return (
        d_gates,
        steps.outer(before.astype(dtype), d_products, used).astype(recurrent.dtype),
        d_inner.sum((1, 2), dtype=jnp.float32).astype(bias.dtype),
        d_hidden.astype(first.dtype),
        None,
        None,
    )


_gru.defvjp(_forward, _backward)
