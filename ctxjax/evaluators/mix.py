"""What a run has learned to mix: the share of every layer, and gamma, of each of its scalar mixes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ctxjax import tree


class Evaluator:
    """Reads the mixes among the parameters; every split and batch is the same to it."""

    def __init__(self, **given: Any):
        del given  # by the run: model, objective, open_source, mesh, train_batch_size

    def run(self, params: Any) -> dict[str, float]:
        """`PATH_layer_N`, shares that sum to one, and `PATH_gamma`, where PATH is the mix's name, as in mix_0."""
        found: dict[str, float] = {}
        for path, weights in tree.flatten(params).items():
            place, _, last = path.rpartition("/")
            name = place.rpartition("/")[2]
            if last != "weights" or not name.startswith("mix"):
                continue
            shares = np.asarray(jax.nn.softmax(weights.astype(np.float32)))
            found |= {f"{name}_layer_{layer}": float(share) for layer, share in enumerate(shares)}
            found[f"{name}_gamma"] = float(tree.flatten(params)[f"{place}/gamma"])
        return found
