"""Dense, LayerNorm and Embed with fixed parameter names, plain 2-D kernels, f32 parameters and a compute dtype.

They declare their parameters in `setup`, so a caller may read `dense.kernel` and fuse several of them into one product
while the parameters stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def truncated_normal(stddev: float) -> jax.nn.initializers.Initializer:
    """A normal of the given deviation cut at two of them and *not* scaled up again, as TensorFlow's initialiser.

    What comes out has a deviation of 0.880 * stddev.
    """
    return jax.nn.initializers.truncated_normal(stddev, lower=-2.0, upper=2.0)


def glorot(fan_in: int, fan_out: int) -> Callable[..., Array]:
    """TensorFlow's default: U(-a, a), a = sqrt(6 / (in + out)), with the two sizes given, not read off the shape."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)


def uniform(limit: float) -> Any:
    """U(-limit, limit)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class Dense(nn.Module):
    """`x @ kernel + bias` over the last axis; kernel `[inputs features]`."""

    inputs: int
    features: int
    kernel_init: jax.nn.initializers.Initializer = truncated_normal(0.02)
    bias_init: jax.nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = "float32"
    param_dtype: Any = "float32"
    use_bias: bool = True

    def setup(self) -> None:
        self.kernel = self.param("kernel", self.kernel_init, (self.inputs, self.features), self.param_dtype)
        shape = (self.features,)
        self.bias: Any = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        return affine(x, self.kernel, self.bias, self.dtype)


def affine(x: Float[Array, "... D"], kernel: Float[Array, "D F"], bias: Float[Array, " F"] | None, dtype: Any):
    """`x @ kernel + bias` in `dtype`, as one 2-D product whatever the leading axes; None adds nothing."""
    rows = x.astype(dtype).reshape(-1, x.shape[-1])
    out = rows @ kernel.astype(dtype)
    if bias is not None:
        out = out + jnp.broadcast_to(bias.astype(dtype), out.shape)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


class Norm(nn.Module):
    """Normalise the last axis in f32 and scale it, without a bias.

    Attributes:
      kind: "layer" takes the mean away first (Ba et al. 2016), "rms" does not (Zhang and Sennrich 2019).
    """

    features: int
    kind: str = "rms"
    epsilon: float = 1e-5
    dtype: Any = "float32"
    param_dtype: Any = "float32"

    def setup(self) -> None:
        self.scale = self.param("scale", nn.initializers.ones, (self.features,), self.param_dtype)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x = x.astype(jnp.float32)
        if self.kind == "layer":
            x = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return (x * inverse * self.scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(self.dtype)


class LayerNorm(nn.Module):
    """Normalise the last axis in f32, then scale and shift."""

    features: int
    epsilon: float = 1e-12
    dtype: Any = "float32"
    param_dtype: Any = "float32"

    def setup(self) -> None:
        self.scale = self.param("scale", nn.initializers.ones, (self.features,), self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        shape = (1,) * (x.ndim - 1) + (-1,)
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        out = centred * inverse * self.scale.reshape(shape) + self.bias.reshape(shape)
        return out.astype(self.dtype)


class Embed(nn.Module):
    """A table `embedding [num D]`, looked up by row."""

    num: int
    features: int
    embedding_init: jax.nn.initializers.Initializer = truncated_normal(0.02)
    param_dtype: Any = "float32"

    def setup(self) -> None:
        self.embedding = self.param("embedding", self.embedding_init, (self.num, self.features), self.param_dtype)

    def __call__(self, ids: Int[Array, " ..."]) -> Float[Array, "... D"]:
        return self.embedding[ids]

    def few(self, ids: Int[Array, " ..."]) -> Float[Array, "... D"]:
        """The same for a table of a few rows: a product with a one-hot, whose gradient scatters nothing."""
        onehot = jax.nn.one_hot(ids, self.num, dtype=self.embedding.dtype)
        return jnp.einsum("...n,nd->...d", onehot, self.embedding, precision="highest")


class Softmax(nn.Module):
    """An output table `embedding [num D]`, a row for each word or tag that is told, and a `bias` for each."""

    num: int
    features: int
    embedding_init: jax.nn.initializers.Initializer
    param_dtype: Any = "float32"

    def setup(self) -> None:
        self.embedding = self.param("embedding", self.embedding_init, (self.num, self.features), self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.num,), self.param_dtype)
