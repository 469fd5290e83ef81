"""The token layer of the taggers: words from a table beside words from their characters.

Reference: Lample et al. 2016, "Neural Architectures for Named Entity Recognition" (recurrent); Ma and Hovy 2016,
"End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF" (convolutions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers import char_cnn
from ctxjax.models.layers.birnn import RNN
from ctxjax.models.layers.core import Embed, uniform
from ctxjax.models.layers.encoders import Convolution
from ctxjax.text import characters
from ctxjax.types import Inputs

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


class Embeddings(nn.Module):
    """Words from a table beside words from their characters; either may be left out."""

    vocab_size: int
    width: int
    chars: str
    activation: str
    char_dim: int
    char_width: int
    max_chars: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        kind = self.kinds["param_dtype"]
        if self.width:
            self.tokens = Embed(self.vocab_size, self.width, uniform(math.sqrt(3.0 / self.width)), param_dtype=kind)
        if self.chars != "none":
            init = uniform(math.sqrt(3.0 / self.char_dim))
            self.char_table = Embed(characters.NUM_CHARS, self.char_dim, init, param_dtype=kind, name="chars")
        if self.chars == "cnn":
            self.conv_3 = Convolution(3, self.char_dim, self.char_width, self.activation, kind)
        elif self.chars == "gru":
            self.char_rnn = RNN("gru", self.char_dim, self.char_width, self.kinds)

    def __call__(self, inputs: Inputs) -> Float[Array, "B T E"]:
        dtype, shape = self.kinds["dtype"], inputs["tokens"].shape
        words = self.tokens(inputs["tokens"]).astype(dtype) if self.width else jnp.zeros((*shape, 0), dtype)
        if self.chars == "none":
            return words
        chars = inputs["chars"]
        if chars.shape[-1] != self.max_chars:
            raise ValueError(f"words of {chars.shape[-1]} characters, where model.max_chars={self.max_chars}")
        rows = chars.reshape(-1, self.max_chars)
        embedded = self.char_table(rows).astype(self.kinds["dtype"])
        if self.chars == "cnn":
            made = char_cnn.convolve(embedded[None], (self.conv_3.kernel.astype(embedded.dtype),))[0]
            made = ACTIVATIONS[self.activation](
                made + jnp.broadcast_to(self.conv_3.bias.astype(made.dtype), made.shape)
            )
        else:
            # The last state of each direction: forward at the end of the word, backward at its beginning.
            there = rows != characters.PAD
            out = self.char_rnn(embedded, there)
            last = jnp.maximum(there.sum(1) - 1, 0)
            forward = jnp.take_along_axis(out, last[:, None, None], axis=1)[:, 0, : self.char_width]
            made = jnp.concatenate([forward, out[:, 0, self.char_width :]], axis=-1)
        return jnp.concatenate([made.reshape(*words.shape[:2], -1).astype(words.dtype), words], axis=-1)
