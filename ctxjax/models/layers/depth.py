"""Layers one after another, unrolled or as one body under `lax.scan`; and what of one is kept for the backward pass.

Parameters are one node a layer (`layer_0/...`) either way: the scanned path stacks them inside the step, a copy of the
layers' parameters and one of their gradients. Every draw of dropout and every hidden layer is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers.dropout import Stream, substream
from ctxjax.sharding import rows

# Layers from which on "deep" scans. At 24 a scan kept more than three times as much and compiled hardly faster
# (experiments/LOG.md, 2026-11-30, scan); at 48 nothing was measured yet.
DEEP = 48
SCANS = ("deep", "always", "never")
REMATS = ("none", "full", "dots")

Call = Callable[[Any, Array, Stream | None], Float[Array, "B T D"]]  # (layer, what comes in, draws) -> what goes out


def scans(scan: str, depth: int) -> bool:
    """Whether `model.scan` puts so many layers under a scan."""
    if scan not in SCANS:
        raise ValueError(f"model.scan={scan!r} is not one of {', '.join(SCANS)}")
    return scan == "always" or (scan == "deep" and depth >= DEEP)


def remat_policy(remat: str | bool) -> str:
    """The name of a policy; True and False, as configs had it, are "full" and "none"."""
    name = ("none", "full")[remat] if isinstance(remat, bool) else remat
    if name not in REMATS:
        raise ValueError(f"model.remat={remat!r} is not one of {', '.join(REMATS)}")
    return name


def rematerialized(layer: type[nn.Module], remat: str | bool, scanned: bool = False) -> type[nn.Module]:
    """The class of a layer of which the backward pass computes again what it is not left.

    Args:
      remat: "none" keeps everything, "full" the layer's input alone, "dots" the products of weights too, so that norms,
        activations, dropout and attention are computed again (`jax.checkpoint_policies`).
      scanned: the layer is the body of a loop, where nothing can be merged with the forward pass.
    """
    name = remat_policy(remat)
    if name == "none":
        return layer
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if name == "dots" else None
    return nn.remat(layer, policy=policy, prevent_cse=not scanned)


def run_layers(
    model: nn.Module,
    x: Float[Array, "B T D"],
    rng: Stream | None,
    call: Call,
    depth: int,
    scanned: bool,
    first: int = 0,
    period: int = 1,
) -> list[Float[Array, "B T D"]]:
    """Run `layer_0`, `layer_1`, ... of a model, each on what the one before gave.

    Args:
      rng: from which each layer's draws derive by its name, or None outside training.
      call: how one layer is called.
      scanned: scan over the layers from `first` on; those before it, and what is left behind the last whole period, are
        unrolled. Never while parameters are made.
      period: layers n and n + period are of one kind, with parameters of equal shapes.

    Returns:
      depth + 1 arrays, x first.
    """
    turns = (depth - first) // period if scanned and not model.is_initializing() else 0
    hidden, index = [rows(x)], 0
    while index < depth:
        if turns and index == first:
            hidden += _scan(model, hidden[-1], rng, call, range(first, first + turns * period), period)
            index += turns * period
        else:
            below = None if rng is None else substream(rng, f"layer_{index}")
            hidden.append(rows(call(getattr(model, f"layer_{index}"), hidden[-1], below)))
            index += 1
    return hidden


def _scan(
    model: nn.Module, x: Array, rng: Stream | None, call: Call, layers: range, period: int
) -> list[Float[Array, "B T D"]]:
    """What each of some layers gives, whole periods of them."""
    params = model.variables["params"]
    kinds = [nn.apply(call, getattr(model, f"layer_{layers[place]}").clone(parent=None)) for place in range(period)]

    def stacked(place: int) -> Any:
        names = [f"layer_{index}" for index in layers[place::period]]
        below = None if rng is None else jnp.stack([substream(rng, name) for name in names])
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names)), below

    def body(x: Array, turn: list[Any]) -> tuple[Array, list[Array]]:
        made = []
        for kind, (leaves, below) in zip(kinds, turn):
            x = rows(kind({"params": leaves}, x, below))
            made.append(x)
        return x, made

    x, made = jax.lax.scan(body, x, [stacked(place) for place in range(period)])
    hidden = [made[place % period][place // period] for place in range(len(layers))]
    return [*hidden[:-1], x]  # the last by itself, so that the others are dropped where nobody reads them
