"""The plain LSTM by cuDNN, on NVIDIA GPUs alone: one call for all steps, forward and backward.

Its cell is that of `lstm.lstm`; one with a projection or clips is not to be had there. Products are in TF32 or f32, as
`jax_default_matmul_precision` says: JAX's call takes no bfloat16.

Reference: `jax.experimental.rnn`; NVIDIA, cuDNN API, CUDNN_LSTM.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.experimental import rnn
from jaxtyping import Array, Bool, Float

from ctxjax.config import ConfigError


def cudnn_lstm(
    x: Float[Array, "T B D"],
    kernel: Float[Array, "D G"],
    recurrent: Float[Array, "H G"],
    bias: Float[Array, " G"],
    cell: Float[Array, "B H"],
    hidden: Float[Array, "B H"],
    mask: Bool[Array, "T B"] | None = None,
) -> tuple[Float[Array, "T B H"], Float[Array, "B H"], Float[Array, "B H"]]:
    """Run an LSTM over T steps; G = 4 H, gate order i j f o, as `lstm.lstm` has it.

    Args:
      cell, hidden: the state before the first step.
      mask: which steps a row has, all in front; behind them its outputs are zero, and its state stays.

    Returns:
      The hidden state of every step, the last cell and the last hidden state, in f32.

    Raises:
      ConfigError: this machine's JAX has no cuDNN.
    """
    if rnn.gpu_rnn is None:
        raise ConfigError(
            "config.model.lstm_implementation='cudnn' needs an NVIDIA GPU and the extra [cuda]; leave it empty"
        )
    steps, rows, inputs = x.shape
    cells = hidden.shape[-1]
    lengths = jnp.full((rows,), steps, jnp.int32) if mask is None else mask.sum(axis=0, dtype=jnp.int32)
    weights = pack(kernel, recurrent, bias)
    out, last_hidden, last_cell = rnn.lstm(
        x.swapaxes(0, 1).astype(jnp.float32), hidden[None].astype(jnp.float32), cell[None].astype(jnp.float32), weights,
        jnp.maximum(lengths, 1), inputs, cells, 1, 0.0, False,
    )  # fmt: skip
    any_step = (lengths > 0)[:, None]  # cuDNN reads one step at least
    out = jnp.where(any_step[:, None], out, 0.0).swapaxes(0, 1)
    return out, jnp.where(any_step, last_cell[0], cell), jnp.where(any_step, last_hidden[0], hidden)


def pack(kernel: Float[Array, "D G"], recurrent: Float[Array, "H G"], bias: Float[Array, " G"]) -> Float[Array, " W"]:
    """The weights as cuDNN has them: transposed, gates i f j o, one behind the other; all of the bias in its first."""

    def reordered(weight: Array) -> Array:
        first, inner, forget, out = jnp.split(weight.astype(jnp.float32).T, 4)
        return jnp.concatenate([first, forget, inner, out]).reshape(-1)

    bias = reordered(bias)
    return jnp.concatenate([reordered(kernel), reordered(recurrent), bias, jnp.zeros_like(bias)])
