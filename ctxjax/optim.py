"""Optimisers: an Optax chain from keyword arguments, with regex groups for decay, learning rates and freezing.

`name` picks the rule. The ones that Optax does not have as published are here: Adam without bias correction (BERT) and
with it on the decay too (GPT), LAMB with the clip and the exemptions of NVIDIA's implementation, Adagrad as TensorFlow
computes it (ELMo). Every slot of the state is a tree with the paths of the parameters, so that sharding rules reach it
by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ctxjax import schedules, tree
from ctxjax.config import ConfigError, did_you_mean

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
    rules = [(_compile(pattern, "lr_multipliers"), float(factor)) for pattern, factor in lr_multipliers]

    def multiplier(name: str) -> float:
        for regex, factor in rules:
            if regex.search(name):
                return factor
        raise ConfigError(f"config.optim.lr_multipliers covers no {name!r}; end it with ('.*', 1.0)")

    for field, pattern in [("decay_exclude", decay_exclude), ("frozen", frozen)]:
        if pattern and not any(_compile(pattern, field).search(name) for name in names):
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


def _compile(pattern: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"config.optim.{field}={pattern!r} is not a regular expression: {error}") from None


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
    **fields: Any,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
    """Build the optimiser of a run.

    The update is `lr(step) * multiplier * (rule(clip(gradient)) + weight_decay * parameter)`: the decay is decoupled
    from the gradient and scaled by the learning rate. LAMB's trust ratio comes after the decay.

    Args:
      total_steps: length of the run in updates.
      params: parameters, real or abstract; their paths decide the groups.
      name: a key of `RULES`.
      lr: peak learning rate.
      schedule: arguments of `schedules.make_schedule`.
      clip: largest global norm of the gradient of all trained parameters; None does not clip.
      weight_decay: of the parameters outside `decay_exclude`.
      decay_exclude: see `param_groups`, as `lr_multipliers` and `frozen`. Frozen parameters have no slots.
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
    lr_of = schedules.make_schedule(total_steps, lr, **dict(schedule))

    def decayed(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
        return update + weight_decay * param if weight_decay and groups[path].decay else update

    def multiplied(path: str, update: jax.Array) -> jax.Array:
        factor = groups[path].lr_multiplier
        return update if factor == 1.0 else factor * update

    tx = optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        RULES[name](
            optax.stateless(lambda updates, params: tree.map_named(decayed, updates, params)), groups, **fields
        ),
        optax.stateless(lambda updates, params: tree.map_named(multiplied, updates)),
        optax.scale_by_learning_rate(lr_of),
    )
    if frozen:

        def labels(params: Any) -> Any:
            return tree.map_named(lambda path, _: "frozen" if groups[path].frozen else "trained", params)

        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)
    return tx, lr_of


# --- the rules: (decay, groups, own fields) -> transformation without the learning rate ---


class AdamBertState(NamedTuple):
    """Slots of Adam without bias correction, which needs no count."""

    mu: Any
    nu: Any


def adam_bert(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
) -> optax.GradientTransformation:
    """`m / (sqrt(v) + eps) + decay`, with m and v as they are: early updates are smaller than Adam's.

    Reference: google-research/bert, optimization.py, AdamWeightDecayOptimizer.
    """
    del groups

    def init(params: Any) -> AdamBertState:
        return AdamBertState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(gradient: Any, state: AdamBertState, params: Any = None) -> tuple[Any, AdamBertState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, gradient)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, state.nu, gradient)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), AdamBertState(mu, nu)

    return optax.chain(optax.GradientTransformation(init, update), decay)


def adam_gpt(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """`(m / (sqrt(v) + eps) + decay) * sqrt(1 - b2^t) / (1 - b1^t)`: the bias correction is a factor of the rate.

    So epsilon is beside the root as it is, and the decay is weaker in the first thousands of updates: 0.32 of itself at
    first, 0.15 at the tenth update, 0.80 at the thousandth.

    Reference: openai/finetune-transformer-lm, opt.py.
    """

    def correction(count: jax.Array) -> jax.Array:
        return jnp.sqrt(1.0 - b2 ** (count + 1.0)) / (1.0 - b1 ** (count + 1.0))

    return optax.chain(adam_bert(decay, groups, b1, b2, eps), optax.scale_by_schedule(correction))


def adamw(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam with bias correction and decoupled decay. Reference: Loshchilov and Hutter 2019."""
    del groups
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay)


def lamb(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    adapt_excluded: bool = False,
    pre_normalize: bool = False,
) -> optax.GradientTransformation:
    """AdamW's update, rescaled in each array to the norm of its parameter (where both norms are positive).

    Args:
      decay: the decay, added before the trust ratio.
      groups: parameters in `decay_exclude` take the plain update, as in NVIDIA's default.
      b1, b2, eps: Adam's.
      adapt_excluded: rescale those too (`use_nvlamb`).
      pre_normalize: divide the gradient by its global norm first, whatever it is (NVLAMB as described by NVIDIA). The
        released PyTorch code divides only above a norm of 1, which is `clip=1.0`.

    Reference: You et al. 2020; NVIDIA apex, multi_tensor_lamb.cu.
    """

    def normalized(gradient: Any, params: Any) -> Any:
        norm = optax.tree.norm(gradient)
        return jax.tree.map(lambda g: g / jnp.where(norm > 0, norm, 1.0), gradient)

    def trusted(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
        if not (adapt_excluded or groups[path].decay):
            return update
        param_norm, update_norm = jnp.linalg.norm(param.ravel()), jnp.linalg.norm(update.ravel())
        usable = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(usable, param_norm / jnp.where(usable, update_norm, 1.0), 1.0)

    return optax.chain(
        optax.stateless(normalized) if pre_normalize else optax.identity(),
        optax.scale_by_adam(b1, b2, eps),
        decay,
        optax.stateless(lambda updates, params: tree.map_named(trusted, updates, params)),
    )


class AdagradState(NamedTuple):
    """The sum of squared gradients."""

    total: Any


def adagrad(
    decay: optax.GradientTransformation, groups: Mapping[str, Group], initial: float = 1.0
) -> optax.GradientTransformation:
    """`g / sqrt(initial + sum of g^2)`, without an epsilon, as TensorFlow's AdagradOptimizer.

    Args:
      decay: the decay.
      groups: not used.
      initial: where the sum starts; 1 in bilm-tf.

    Reference: Duchi et al. 2011; allenai/bilm-tf, training.py.
    """
    del groups
    if initial <= 0:
        raise ConfigError(f"config.optim.initial={initial} must be positive: Adagrad divides by its root")

    def init(params: Any) -> AdagradState:
        return AdagradState(optax.tree.full_like(params, initial))

    def update(gradient: Any, state: AdagradState, params: Any = None) -> tuple[Any, AdagradState]:
        del params
        total = jax.tree.map(lambda t, g: t + g * g, state.total, gradient)
        return jax.tree.map(lambda g, t: g * jax.lax.rsqrt(t), gradient, total), AdagradState(total)

    return optax.chain(optax.GradientTransformation(init, update), decay)


def sgd(
    decay: optax.GradientTransformation, groups: Mapping[str, Group], momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum where it is positive."""
    del groups
    return optax.chain(optax.trace(momentum, nesterov) if momentum else optax.identity(), decay)


RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam_bert": adam_bert,
    "adam_gpt": adam_gpt,
    "adamw": adamw,
    "lamb": lamb,
    "adagrad": adagrad,
    "sgd": sgd,
}


def on_eval(state: Any, metrics: Mapping[str, float]) -> Any:
    """The train state after an evaluation. No rule of this file reacts to one, so it comes back as it is.

    The loop calls this after every evaluation: schedules that react to held-out metrics belong here.
    """
    del metrics
    return state


def eval_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate and to export. No rule of this file keeps an average, so they are the trained ones."""
    del opt_state
    return params
