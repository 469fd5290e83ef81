"""A vocabulary padded to a multiple, in memory alone, so that its tables divide over a mesh and fill whole tiles.

A training step holds tables of the padded number of rows. What leaves memory has the true ones: checkpoints, what
evaluators are handed, counts, exports. The rows more are zero and stay so: their logits are -inf (`step.Forward`), so
nothing has a gradient there, and no optimiser moves what has neither gradient nor size.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ctxjax.config import ConfigError


def padded(size: int, multiple: int) -> int:
    """The least multiple that is not less than `size`."""
    return -(-size // multiple) * multiple


def padded_model(model: Any, multiple: int) -> Any:
    """The model with a vocabulary of a multiple, or itself where its own is one.

    Raises:
      ConfigError: a model whose readout is not of its vocabulary's words (a task's labels, sub-words in buckets).
    """
    size = padded(model.vocab_size, multiple)
    if size == model.vocab_size:
        return model
    if "vocab_size" not in getattr(model, "__dataclass_fields__", {}) or hasattr(model, "buckets"):
        kind = type(model).__module__.rpartition(".")[2]
        raise ConfigError(f"config.vocab_multiple={multiple} is for language models; set it to 1 for model {kind!r}")
    return model.clone(vocab_size=size)


def fit(tree: Any, like: Any) -> Any:
    """Every leaf cut, or filled up with zeros behind its end, to the shape of the same leaf of `like`."""

    def one(leaf: jax.Array, wanted: Any) -> jax.Array:
        if leaf.shape == wanted.shape:
            return leaf
        pairs = list(zip(leaf.shape, wanted.shape))
        kept = leaf[tuple(slice(min(pair)) for pair in pairs)]
        return jnp.pad(kept, [(0, max(0, size - have)) for have, size in pairs])

    return jax.tree.map(one, tree, like)
