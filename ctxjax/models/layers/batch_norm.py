"""Batch normalisation of vectors, with statistics that a batch moves: `torch.nn.BatchNorm1d`.

Reference: Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift".
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Mean 0 and variance 1 of every feature, then scale and shift; in f32.

    In training by the mean and the variance of the batch, all its rows on all devices, which move the running ones
    (collection `batch_stats`) by a share of `momentum`; in use by those. The variance that normalises is divided by the
    number of rows, the running one by one less, as torch has it.
    """

    features: int
    momentum: float = 0.1
    epsilon: float = 1e-5
    param_dtype: Any = "float32"

    def setup(self) -> None:
        self.scale = self.param("scale", nn.initializers.ones, (self.features,), self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, (self.features,), jnp.float32)
        self.var = self.variable("batch_stats", "var", jnp.ones, (self.features,), jnp.float32)

    def __call__(self, x: Float[Array, "N D"], train: bool) -> Float[Array, "N D"]:
        x = x.astype(jnp.float32)
        if train:
            mean, var = x.mean(0), x.var(0)
            rows = x.shape[0]
            kept = 1.0 - self.momentum
            self.mean.value = kept * self.mean.value + self.momentum * mean
            self.var.value = kept * self.var.value + self.momentum * var * (rows / max(rows - 1, 1))
        else:
            mean, var = self.mean.value, self.var.value
        shift, factor = mean[None], (jax.lax.rsqrt(var + self.epsilon) * self.scale)[None]
        return (x - shift) * factor + self.bias[None]
