"""A scalar mix: one vector of all layers of a frozen or a trained encoder, as ELMo is used.

    mix = gamma * sum_l softmax(w)_l h_l

Raw weights w begin as zeros, a plain average, and gamma as 1. Where layers are normalised, each has its own mean and
variance, one number for *all elements of all words of the batch* (not one a word, as a layer normalisation has), and no
scale or shift: rows then influence one another. A penalty on the squares of w pulls towards the plain average.

Reference: Peters et al. 2018, section 3.2; allenai/bilm-tf bilm/elmo.py; allenai/allennlp modules/scalar_mix.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-12  # bilm-tf's


class Mix(nn.Module):
    """The parameters of one mix: `weights` of every layer and `gamma`.

    Attributes:
      layers: how many.
      norm: layers are normalised over the batch before they are mixed; off in the published taggers.
    """

    layers: int
    norm: bool = False
    param_dtype: str = "float32"

    def setup(self) -> None:
        self.weights = self.param("weights", nn.initializers.zeros, (self.layers,), self.param_dtype)
        self.gamma = self.param("gamma", nn.initializers.ones, (), self.param_dtype)

    def __call__(
        self, layers: Sequence[Float[Array, "B T D"]], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Mix layers of one width; with `norm` the mask says which words count."""
        shares = self.gamma.astype(jnp.float32) * jax.nn.softmax(self.weights.astype(jnp.float32))
        layers = [normalised(layer, mask) for layer in layers] if self.norm else layers
        total = shares[0].astype(layers[0].dtype) * layers[0]
        for index, layer in enumerate(layers[1:], 1):
            total = total + shares[index].astype(layer.dtype) * layer
        return total


def normalised(layer: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T D"]:
    """A layer less its mean over its deviation, both of all elements where the mask is True; zeros elsewhere."""
    there = jnp.ones(layer.shape[:2], bool) if mask is None else mask
    there, x = jnp.broadcast_to(there[:, :, None], layer.shape), layer.astype(jnp.float32)
    count = jnp.maximum(there.sum(), 1)
    mean = jnp.where(there, x, 0.0).sum() / count
    centred = jnp.where(there, x - mean, 0.0)
    return (centred * jax.lax.rsqrt(jnp.square(centred).sum() / count + EPSILON)).astype(layer.dtype)
