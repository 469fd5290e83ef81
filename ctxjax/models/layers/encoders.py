"""Token layers of the biLM: words from their characters, or from a table.

Reference: Jozefowicz et al. 2016, "Exploring the Limits of Language Modeling"; Kim et al. 2016, "Character-Aware Neural
Language Models"; allenai/bilm-tf bilm/training.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ctxjax.models.layers import char_cnn
from ctxjax.models.layers.core import Dense, Embed, glorot
from ctxjax.models.layers.distinct import distinct
from ctxjax.types import Inputs


class Convolution(nn.Module):
    """A convolution over characters of one width: kernel `[width dim filters]`."""

    width: int
    dim: int
    filters: int
    activation: str
    param_dtype: str

    def setup(self) -> None:
        if self.activation == "relu":
            init = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -0.05, 0.05)
        else:
            init = nn.initializers.normal(math.sqrt(1.0 / (self.width * self.dim)))
        self.kernel = self.param("kernel", init, (self.width, self.dim, self.filters), self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.filters,), self.param_dtype)


class Highway(nn.Module):
    """The parameters of one highway layer; the gate starts nearly shut, at sigmoid(-2)."""

    features: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init = nn.initializers.normal(math.sqrt(1.0 / self.features))
        minus_two = nn.initializers.constant(-2.0)
        self.carry = Dense(self.features, self.features, kernel_init=init, bias_init=minus_two, **self.kinds)
        self.transform = Dense(self.features, self.features, kernel_init=init, **self.kinds)


class CharEncoder(nn.Module):
    """Words from characters: convolutions, maximum, activation, highways, projection; each distinct word once."""

    projection_dim: int
    num_chars: int
    char_dim: int
    max_chars: int
    filters: tuple[tuple[int, int], ...]
    highways: int
    activation: str
    groups: int
    each_distinct: bool
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        param_dtype, features = self.kinds["param_dtype"], sum(number for _, number in self.filters)
        uniform = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -1.0, 1.0)
        self.chars = Embed(self.num_chars, self.char_dim, embedding_init=uniform, param_dtype=param_dtype)
        for width, number in self.filters:
            setattr(self, f"conv_{width}", Convolution(width, self.char_dim, number, self.activation, param_dtype))
        for index in range(self.highways):
            setattr(self, f"highway_{index}", Highway(features, self.kinds))
        init = nn.initializers.normal(math.sqrt(1.0 / features))
        self.projection = Dense(features, self.projection_dim, kernel_init=init, **self.kinds)

    def __call__(self, inputs: Inputs) -> Float[Array, "... P"]:
        chars = inputs["chars"]
        *lead, size = chars.shape
        if size != self.max_chars:
            raise ValueError(f"words of {size} characters, where model.max_chars={self.max_chars}")
        groups = self.groups or math.gcd(lead[0], jax.device_count())
        if lead[0] % groups:
            raise ValueError(f"model.groups={groups} does not divide the {lead[0]} rows of the batch")
        rows = chars.reshape(groups, -1, size)
        if not self.each_distinct:
            return self.encode_all(rows).reshape(*lead, -1)
        words = distinct(rows)
        encoded = self.encode_first(words.chars, words.counts, words.lengths)
        return jnp.take_along_axis(encoded, words.slots[:, :, None], axis=1).reshape(*lead, -1)

    def _activate(self, x: Float[Array, "G N F"]) -> Float[Array, "G N F"]:
        bias = jnp.concatenate([getattr(self, f"conv_{width}").bias for width, _ in self.filters]).astype(x.dtype)
        activation = jax.nn.relu if self.activation == "relu" else jnp.tanh
        return activation(x + bias[None, None, :])

    def _kernels(self) -> tuple[Array, tuple[Array, ...]]:
        dtype = self.kinds["dtype"]
        kernels = tuple(getattr(self, f"conv_{width}").kernel.astype(dtype) for width, _ in self.filters)
        return self.chars.embedding.astype(dtype), kernels

    def encode_first(
        self, chars: Int[Array, "G N C"], counts: Int[Array, " G"], lengths: Int[Array, "G N"]
    ) -> Float[Array, "G N P"]:
        """Vectors of the first `counts` words of each group."""
        dtype = self.kinds["dtype"]
        x = self._activate(char_cnn.convolve_first(*self._kernels(), chars, counts, lengths))
        for index in range(self.highways):
            layer = getattr(self, f"highway_{index}")
            weights = (layer.carry.kernel, layer.carry.bias, layer.transform.kernel, layer.transform.bias)
            x = char_cnn.highway_first(x, tuple(weight.astype(dtype) for weight in weights), counts)
        kernel, bias = self.projection.kernel.astype(dtype), self.projection.bias.astype(dtype)
        return char_cnn.affine_first(x, kernel, bias, counts)

    def encode_all(self, chars: Int[Array, "G N C"]) -> Float[Array, "G N P"]:
        """Vectors of all words, repeats again and again: the plain form that `encode_first` equals."""
        table, kernels = self._kernels()
        x = self._activate(char_cnn.convolve(table[chars], kernels))
        for index in range(self.highways):
            layer = getattr(self, f"highway_{index}")
            gate = jax.nn.sigmoid(layer.carry(x))
            x = gate * jax.nn.relu(layer.transform(x)) + (1.0 - gate) * x
        return self.projection(x)


class WordEncoder(nn.Module):
    """Words from a table."""

    vocab_size: int
    features: int
    param_dtype: str

    def setup(self) -> None:
        init = glorot(self.vocab_size, self.features)
        self.tokens = Embed(self.vocab_size, self.features, embedding_init=init, param_dtype=self.param_dtype)

    def __call__(self, inputs: Inputs) -> Float[Array, "... P"]:
        return self.tokens(inputs["tokens"])
