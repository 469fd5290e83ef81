"""Gradual unfreezing: which parameters are trained is a function of the number of updates.

Reference: Howard and Ruder 2018, section 3.3; fastai 0.7, learner.py, where every phase has an optimiser of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.optim.groups import compiled
from ctxjax.schedules import updates


class ThawState(NamedTuple):
    """The number of updates, and the state of what is inside."""

    count: Any
    inner: Any


def starts_of(
    names: Sequence[str], thaw: Sequence[Sequence[Any]], total_steps: int, steps_per_epoch: int | float | None
) -> dict[str, int]:
    """The update at which each parameter begins to be trained.

    Args:
      names: paths of all parameters.
      thaw: `((regex, length), ...)`, as in `("^embed", "2 epochs")`; the first match wins, and what nothing matches is
        trained from the start.

    Raises:
      ConfigError: a pattern that matches nothing, a length that is not one, or that the run does not reach.
    """
    rules = [(compiled(pattern, "thaw"), str(when)) for pattern, when in thaw]
    found = dict.fromkeys(names, 0)
    for regex, when in reversed(rules):
        start = round(updates(when, total_steps, "optim.thaw", steps_per_epoch))
        if start >= total_steps:
            raise ConfigError(
                f"config.optim.thaw: {regex.pattern!r} is frozen for {when!r}, and the run has {total_steps} steps; "
                "make it longer or leave the pattern to config.optim.frozen"
            )
        matches = [name for name in names if regex.search(name)]
        if not matches:
            raise ConfigError(f"config.optim.thaw: {regex.pattern!r} matches no parameter; one is called {names[0]!r}")
        found |= dict.fromkeys(matches, start)
    if min(found.values()) > 0:
        raise ConfigError("config.optim.thaw leaves no parameter to train at the start of the run")
    return found


def only_thawed(inner: optax.GradientTransformation, starts: Mapping[str, int]) -> optax.GradientTransformation:
    """Neither gradient, norm nor update of a parameter counts before its start."""
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> ThawState:
        return ThawState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(gradient: Any, state: ThawState, params: Any = None, **more: Any) -> tuple[Any, ThawState]:
        def trained(path: str, leaf: jax.Array) -> jax.Array:
            return jnp.where(state.count >= starts[path], leaf, jnp.zeros((), leaf.dtype))

        made, slots = inner.update(tree.map_named(trained, gradient), state.inner, params, **more)
        return tree.map_named(trained, made), ThawState(state.count + 1, slots)

    return optax.GradientTransformationExtraArgs(init, update)


def restarted(rule: optax.GradientTransformation, starts: Mapping[str, int]) -> optax.GradientTransformation:
    """The rule with fresh slots for all parameters at each start, as the optimiser that the original makes there."""
    phases = sorted(set(starts.values()) - {0})

    def init(params: Any) -> ThawState:
        return ThawState(jnp.zeros((), jnp.int32), rule.init(params))

    def update(gradient: Any, state: ThawState, params: Any = None) -> tuple[Any, ThawState]:
        begins = jnp.isin(state.count, jnp.asarray(phases, jnp.int32))
        slots = jax.tree.map(lambda new, old: jnp.where(begins, new, old), rule.init(params), state.inner)
        made, slots = rule.update(gradient, slots, params)
        return made, ThawState(state.count + 1, slots)

    return optax.GradientTransformation(init, update)
