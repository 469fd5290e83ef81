"""Averages of the iterates: when they begin (NT-ASGD), and how evaluation and export reach them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ctxjax import tree
from ctxjax.config import ConfigError, did_you_mean

# Where the optimiser's state has an average of the parameters, and for how many steps.
AVERAGED, STEPS = "/average/", "/steps"


@flax.struct.dataclass
class AverageState:
    """The average of the iterates, and the history that decides when it begins.

    Attributes:
      average: a tree of the parameters; zeros before the first averaged step.
      steps: int32, updates since averaging began; -1 before.
      best: the least metric of all evaluations but the last `window`.
      recent: that of the last `window` evaluations, the oldest first.
      metric: the name of the metric.
    """

    average: Any
    steps: Any
    best: Any
    recent: tuple[Any, ...]
    metric: str = flax.struct.field(pytree_node=False, default="")


def average(metric: str = "heldout/lm", window: int = 5) -> optax.GradientTransformation:
    """Average the parameters that the updates lead to, from the evaluation on at which `metric` is over the best of all
    evaluations but the last `window` ("non-monotonically triggered"). Training itself goes on as before.

    The average is torch's ASGD with `t0 = 0, lambd = 0`, of which the first iterate is not part: a quirk that is kept.
    With windows of drawn length torch's takes each step at the rate of the one before, which is not.

    Args:
      metric: name of a value of an evaluation, the lower the better, as "heldout/lm".
      window: 5 as published; 0 averages from the first update, as the published finetune.py does.

    Reference: Merity et al. 2018, algorithm 1; salesforce/awd-lstm-lm main.py.
    """
    if window < 0:
        raise ConfigError(f"config.optim.window={window} is negative")

    def init(params: Any) -> AverageState:
        none = jnp.asarray(jnp.inf, jnp.float32)
        steps = jnp.asarray(-1 if window else 0, jnp.int32)
        return AverageState(optax.tree.zeros_like(params), steps, none, (none,) * window, metric)

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        steps = jnp.where(state.steps < 0, -1, state.steps + 1)
        share = jnp.where(steps > 0, 1.0 / jnp.maximum(steps - 1, 1), 0.0)

        def towards(mean: jax.Array, param: jax.Array, change: jax.Array) -> jax.Array:
            return ((1.0 - share) * mean + share * (param + change)).astype(mean.dtype)

        return updates, state.replace(average=jax.tree.map(towards, state.average, params, updates), steps=steps)

    return optax.GradientTransformation(init, update)


def on_eval(state: Any, metrics: Mapping[str, float]) -> Any:
    """The train state after an evaluation; the loop calls this after every one. `average` reacts, nothing else.

    Raises:
      ConfigError: the metric that the optimiser goes by is not among those there are.
    """

    def react(node: Any) -> Any:
        if not isinstance(node, AverageState) or not node.recent or not metrics:
            return node
        if node.metric not in metrics:
            raise ConfigError(f"config.optim.metric={node.metric!r} is no metric{did_you_mean(node.metric, metrics)}")
        old = node.steps, node.best, node.recent
        where = jax.tree.map(lambda leaf: leaf.sharding, old)
        steps, best, recent = jax.jit(_decide, out_shardings=where)(old, np.float32(metrics[node.metric]))
        return node.replace(steps=steps, best=best, recent=recent)

    opt_state = jax.tree.map(react, state.opt_state, is_leaf=lambda node: isinstance(node, AverageState))
    return state.replace(opt_state=opt_state)


def _decide(history: tuple[Any, Any, tuple[Any, ...]], value: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """Whether averaging begins now, and the history with one value more."""
    steps, best, recent = history
    steps = jnp.where((steps < 0) & (value > best), 0, steps)
    return steps, jnp.fmin(best, recent[0]), (*recent[1:], value)


def eval_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate and to export: the average where there is one, else the trained ones."""
    names = {f"params/{name}": leaf for name, leaf in tree.flatten(params).items()}
    found = exported({**tree.flatten({"opt_state": opt_state}), **names})
    return tree.map_named(lambda name, _: found[f"params/{name}"], params)


def exported(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """`eval_params` of a train state's leaves by path name: its "params/...", averaged if that has begun."""
    params = {name: leaf for name, leaf in arrays.items() if name.startswith("params/")}
    for name in arrays:
        start, found, _ = name.partition(AVERAGED)
        if found and int(arrays[start + STEPS]) > 0:
            params[f"params/{name.removeprefix(start + AVERAGED)}"] = arrays[name]
    return params
