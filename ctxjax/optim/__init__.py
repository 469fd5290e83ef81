"""Optimisers: an Optax chain from keyword arguments, with regex groups for decay, learning rates and freezing.

`name` picks the rule. The ones that Optax does not have as published are here: Adam without bias correction (BERT) and
with it on the decay too (GPT), LAMB with the clip and the exemptions of NVIDIA's implementation, Adagrad as TensorFlow
computes it (ELMo) and as GloVe does, SGD that comes to average (AWD-LSTM). Every slot of the state is a tree with the
paths of the parameters, so that sharding rules reach it by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from ctxjax import schedules, tree
from ctxjax.config import ConfigError, did_you_mean
from ctxjax.optim.averaging import AVERAGED, STEPS, average, eval_params, exported, on_eval
from ctxjax.optim.groups import NO_DECAY, Group, param_groups
from ctxjax.optim.rules import RULES
from ctxjax.optim.thawing import only_thawed, restarted, starts_of

__all__ = [
    "AVERAGED", "NO_DECAY", "RULES", "STEPS", "Group", "eval_params", "exported", "make_optimizer", "on_eval",
    "param_groups",
]  # fmt: skip


def make_optimizer(
    total_steps: int,
    params: Any,
    *,
    name: str,
    lr: float,
    schedule: Mapping[str, Any],
    clip: float | None = None,
    weight_decay: float = 0.0,
    decay_exclude: str = NO_DECAY,
    lr_multipliers: Sequence[Sequence[Any]] = (),
    frozen: str = "",
    thaw: Sequence[Sequence[Any]] = (),
    steps_per_epoch: int | float | None = None,
    **fields: Any,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
    """Build the optimiser of a run.

    The update is `lr(step) * multiplier * (rule(clip(gradient)) + weight_decay * parameter)`: the decay is decoupled
    from the gradient and scaled by the learning rate. LAMB's trust ratio comes after the decay. `update` takes one
    argument more, `rate`, by which the learning rate of this one step is multiplied.

    Args:
      total_steps: length of the run in updates.
      params: parameters, real or abstract; their paths decide the groups.
      name: a key of `RULES`.
      lr: peak learning rate.
      schedule: arguments of `schedules.make_schedule`.
      clip: largest global norm of the gradient of all trained parameters; None does not clip.
      weight_decay: of the parameters outside `decay_exclude`.
      decay_exclude: see `param_groups`, as `lr_multipliers` and `frozen`. Frozen parameters have no slots.
      thaw: `((regex, length), ...)`: the first match is frozen for that long, and then trained; what nothing matches is
        trained from the start. The rule begins anew, with fresh slots, whenever something thaws.
      steps_per_epoch: for lengths in epochs.
      **fields: the rule's own arguments; those that are None keep their default.

    Returns:
      The transformation, and the learning rate as a function of the number of updates made.

    Raises:
      ConfigError: an unknown name or field, or groups that do not fit the parameters.
    """
    if name not in RULES:
        raise ConfigError(f"config.optim.name={name!r} is no optimiser{did_you_mean(name, RULES)}")
    fields = {key: value for key, value in fields.items() if value is not None}
    known = list(inspect.signature(RULES[name]).parameters)[2:]
    for key in fields:
        if key not in known:
            everywhere = [*known, *list(inspect.signature(make_optimizer).parameters)[2:-1]]
            raise ConfigError(f"config.optim.{key} is not a field of {name!r}{did_you_mean(key, everywhere)}")
    uses_decay = weight_decay != 0.0 or name == "lamb"
    groups = param_groups(params, decay_exclude if uses_decay else "", lr_multipliers, frozen)
    lr_of = schedules.make_schedule(total_steps, lr, steps_per_epoch=steps_per_epoch, **dict(schedule))
    starts = starts_of(list(groups), thaw, total_steps, steps_per_epoch)

    def decayed(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
        return update + weight_decay * param if weight_decay and groups[path].decay else update

    def multiplied(path: str, update: jax.Array) -> jax.Array:
        factor = groups[path].lr_multiplier
        return update if factor == 1.0 else factor * update

    rule = RULES[name](
        optax.stateless(lambda updates, params: tree.map_named(decayed, updates, params)), groups, **fields
    )
    tx = optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        restarted(rule, starts) if thaw else rule,
        optax.stateless(lambda updates, params: tree.map_named(multiplied, updates)),
        optax.scale_by_learning_rate(lr_of),
        _scale_by_rate(),
        *([average(**fields)] if name == "ntasgd" else []),
    )
    tx = only_thawed(tx, starts) if thaw else tx
    if frozen:

        def labels(params: Any) -> Any:
            return tree.map_named(lambda path, _: "frozen" if groups[path].frozen else "trained", params)

        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)
    return tx, lr_of


def _scale_by_rate() -> optax.GradientTransformation:
    """Multiply by the argument `rate` of this call, where it is given."""

    def update(updates: Any, state: Any, params: Any = None, *, rate: Any = None, **_: Any) -> tuple[Any, Any]:
        del params
        return (updates if rate is None else jax.tree.map(lambda u: (rate * u).astype(u.dtype), updates)), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
