"""The rules: `(decay, groups, own fields) -> transformation` without the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ctxjax import tree
from ctxjax.config import ConfigError
from ctxjax.optim.groups import Group


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
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    momentum: float = 0.0,
    nesterov: bool = False,
    row_clip: float = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum where it is positive.

    Args:
      decay: the decay.
      groups: not used.
      momentum, nesterov: of `optax.trace`.
      row_clip: largest norm of a row's gradient in an array of two axes or more; 0 is none. word2vec steps after every
        word; in the sum over a large batch a frequent word's row would overshoot, and all others are as they were.
    """
    del groups

    def clipped(g: jax.Array) -> jax.Array:
        if g.ndim < 2:
            return g
        norm = jnp.sqrt(jnp.square(g).sum(-1, keepdims=True))
        return g * jnp.minimum(1.0, row_clip / jnp.maximum(norm, 1e-30))

    clip = optax.stateless(lambda updates, params: jax.tree.map(clipped, updates)) if row_clip else optax.identity()
    return optax.chain(clip, optax.trace(momentum, nesterov) if momentum else optax.identity(), decay)


def adagrad_glove(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    scale: float = 0.05,
    bias_scale: float = 1.0,
    limit: float = 100.0,
    row_clip: float = 0.0,
) -> optax.GradientTransformation:
    """`g / sqrt(1 + the sum of (scale g)^2 of all steps before)`, as GloVe steps: it looks back without this step.

    What is summed is multiplied by the learning rate first, so `scale` has its value. Since GloVe's gradients are
    clipped, its biases step with a rate of 1 and sum as much (`bias_scale`; the rate itself is `lr_multipliers`).

    Args:
      decay: the decay.
      groups: not used.
      scale: of gradients in the sum, in tables.
      bias_scale: the same for biases.
      limit: each element of a table's gradient is cut to [-limit, limit].
      row_clip: largest norm of the gradient of a table's row, and of one bias; 0 is none. GloVe steps after every pair,
        and a batch sums the pairs of a word.

    Reference: stanfordnlp/GloVe, src/glove.c.
    """
    del groups

    def init(params: Any) -> AdagradState:
        return AdagradState(optax.tree.full_like(params, 1.0))

    def cut(path: str, g: jax.Array) -> jax.Array:
        if path.endswith("bias"):
            return jnp.clip(g, -row_clip, row_clip) if row_clip else g
        g = jnp.clip(g, -limit, limit)
        if not row_clip:
            return g
        norm = jnp.sqrt(jnp.square(g).sum(-1, keepdims=True))
        return g * jnp.minimum(1.0, row_clip / jnp.maximum(norm, 1e-30))

    def update(gradient: Any, state: AdagradState, params: Any = None) -> tuple[Any, AdagradState]:
        del params
        gradient = tree.map_named(cut, gradient)
        steps = jax.tree.map(lambda g, t: g * jax.lax.rsqrt(t), gradient, state.total)

        def add(path: str, t: jax.Array, g: jax.Array) -> jax.Array:
            return t + jnp.square((bias_scale if path.endswith("bias") else scale) * g)

        return steps, AdagradState(tree.map_named(add, state.total, gradient))

    return optax.chain(optax.GradientTransformation(init, update), decay)


def ntasgd(
    decay: optax.GradientTransformation,
    groups: Mapping[str, Group],
    metric: str = "heldout/lm",
    window: int = 5,
) -> optax.GradientTransformation:
    """Stochastic gradient descent that averages its iterates once a held-out metric stops to improve: see `average`."""
    del metric, window
    return sgd(decay, groups)


RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam_bert": adam_bert,
    "adam_gpt": adam_gpt,
    "adamw": adamw,
    "lamb": lamb,
    "adagrad": adagrad,
    "adagrad_glove": adagrad_glove,
    "sgd": sgd,
    "ntasgd": ntasgd,
}
