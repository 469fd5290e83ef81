"""How each parameter is updated: decayed or not, at which rate, or never; by regular expressions over paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctxjax import tree
from ctxjax.config import ConfigError

# Parameters without weight decay in BERT: biases, and scale and bias of the normalisations.
NO_DECAY = r"(^|[/_])norm/|(^|/)bias$"


class Group(NamedTuple):
    """How one parameter is updated."""

    decay: bool
    lr_multiplier: float
    frozen: bool


def param_groups(
    params: Any,
    decay_exclude: str = NO_DECAY,
    lr_multipliers: Sequence[Sequence[Any]] = (),
    frozen: str = "",
) -> dict[str, Group]:
    """The group of every parameter by its path name.

    Args:
      params: parameters, real or abstract.
      decay_exclude: regular expression, searched in the path; a match is not decayed. Empty excludes nothing.
      lr_multipliers: `((regex, factor), ...)`; the first match wins. Empty means 1 for all.
      frozen: regular expression of parameters that never change. Empty freezes nothing.

    Raises:
      ConfigError: a parameter that `lr_multipliers` does not cover, a pattern that matches nothing, everything frozen.
    """
    names = list(tree.flatten(params))
    rules = [(compiled(pattern, "lr_multipliers"), float(factor)) for pattern, factor in lr_multipliers]

    def multiplier(name: str) -> float:
        for regex, factor in rules:
            if regex.search(name):
                return factor
        raise ConfigError(f"config.optim.lr_multipliers covers no {name!r}; end it with ('.*', 1.0)")

    for field, pattern in [("decay_exclude", decay_exclude), ("frozen", frozen)]:
        if pattern and not any(compiled(pattern, field).search(name) for name in names):
            raise ConfigError(f"config.optim.{field}={pattern!r} matches no parameter; one is called {names[0]!r}")
    for regex, _ in rules:
        if not any(regex.search(name) for name in names):
            raise ConfigError(f"config.optim.lr_multipliers: {regex.pattern!r} matches no parameter")

    groups = {
        name: Group(
            decay=not (decay_exclude and re.search(decay_exclude, name)),
            lr_multiplier=multiplier(name) if rules else 1.0,
            frozen=bool(frozen and re.search(frozen, name)),
        )
        for name in names
    }
    if all(group.frozen for group in groups.values()):
        raise ConfigError(f"config.optim.frozen={frozen!r} freezes every parameter")
    return groups


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    """A regular expression of the config; raises ConfigError, naming the field, where it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"config.optim.{field}={pattern!r} is not a regular expression: {error}") from None
