"""A GRU or LSTM that reads a sentence in both directions, the layer of the published taggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.models.layers import steps
from ctxjax.models.layers.core import uniform
from ctxjax.models.layers.gru import gru
from ctxjax.models.layers.lstm import lstm
from ctxjax.models.layers.turning import pick, turned_places

DIRECTIONS = 2
GATES = {"gru": 3, "lstm": 4}


class RNN(nn.Module):
    """A GRU or LSTM in both directions; the direction is the first axis of every parameter."""

    cell: str
    inputs: int
    width: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init, kind, gates = uniform(self.width**-0.5), self.kinds["param_dtype"], GATES[self.cell] * self.width
        self.input_kernel = self.param("input_kernel", init, (DIRECTIONS, self.inputs, gates), kind)
        self.recurrent_kernel = self.param("recurrent_kernel", init, (DIRECTIONS, self.width, gates), kind)
        self.bias = self.param("bias", init, (DIRECTIONS, gates), kind)
        if self.cell == "gru":
            self.recurrent_bias = self.param("recurrent_bias", init, (DIRECTIONS, self.width), kind)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T W"]:
        """Every step forward beside backward; behind a row's last step anything may stand."""
        dtype = self.kinds["dtype"]
        turned = turned_places(x.shape[1], mask, x.shape[0])
        used = None if mask is None else mask.sum(axis=1, dtype=jnp.int32).max()
        both = jnp.stack([x, pick(x, turned)]).swapaxes(1, 2)
        gates = steps.affine(both, self.input_kernel.astype(dtype), self.bias.astype(dtype), used)
        state = jnp.zeros((DIRECTIONS, x.shape[0], self.width), jnp.float32)
        recurrent = self.recurrent_kernel.astype(dtype)
        if self.cell == "gru":
            out = gru(gates, recurrent, self.recurrent_bias.astype(dtype), state, used=used)[0]
        else:
            out = lstm(gates, recurrent, state, state, used=used)[0]
        out = out.swapaxes(1, 2)
        return jnp.concatenate([out[0], pick(out[1], turned)], axis=-1)


class Layer(nn.Module):
    """The place of a recurrent layer in the parameter tree: `layer_i/rnn`."""

    cell: str
    inputs: int
    width: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.rnn = RNN(self.cell, self.inputs, self.width, self.kinds)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T W"]:
        return self.rnn(x, mask)
