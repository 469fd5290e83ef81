"""The train step and the eval step: pure functions of (state, batch, key), one for every model and objective."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ctxjax import rngs, tree
from ctxjax.types import Batch, Carry, Inputs, Mean, Model, Objective, Outputs, Params, Terms


@flax.struct.dataclass
class TrainState:
    """All that training changes, and all that a checkpoint holds.

    Attributes:
      step: int32 scalar, the number of steps taken (skipped ones too), which is also the number of batches consumed.
      params: nested dict of parameters.
      opt_state: the Optax state.
      carry: recurrent state of the batch rows, `()` where the model has none.
      extra: what a model keeps beside parameters, `{collection: ...}`, as `batch_stats`; `()` where there is nothing.
    """

    step: Any  # the fields hold arrays, and in a tree of the same shape their ShapeDtypeStructs or shardings
    params: Params
    opt_state: Any
    carry: Carry = ()
    extra: Any = ()


@dataclasses.dataclass(frozen=True)
class Forward:
    """A model bound to parameters, keys and mode; an objective sees nothing else of a model.

    Draws that a whole batch shares (the negatives of a sampled softmax, dropped weights) come from the step's key, so
    that they do not depend on how the batch is split; dropout, drawn for each row, comes from the micro-batch's. A
    model has them as `make_rng("shared")`, in training alone, and `make_rng("dropout")`.

    Of a model with more than parameters (`TrainState.extra`) `params` are all its `variables`, and what training makes
    of the rest gathers in `moved`. Of a model whose vocabulary is padded (`ctxjax/padding.py`) `words` is the true
    number of words, 0 where it is the model's own.
    """

    model: Model
    params: Params
    root: Array
    train: bool
    micro: Array | int = 0
    moved: dict[str, Any] = dataclasses.field(default_factory=dict)
    words: int = 0

    @property
    def vocab_size(self) -> int:
        """Number of words, without those of a padded vocabulary that are none."""
        return self.words or self.model.vocab_size

    def key(self, name: str) -> Array:
        """A key for one purpose of this step, the same in each of its micro-batches."""
        return rngs.named_key(self.root, name)

    def __call__(self, inputs: Inputs, carry: Carry = ()) -> Outputs:
        return self._apply(inputs, carry=carry, train=self.train)

    def readout(self, rows: Array) -> tuple[Array, Array, Array]:
        """`(rows [N D'], table [V D'], bias [V])` for the vocabulary loss; words that are none have a bias of -inf."""
        rows, table, bias = self._apply(rows, method="readout")
        if self.words:
            places = jnp.arange(bias.shape[0])
            bias = jnp.where((places < self.words) | (places >= self.model.vocab_size), bias, -jnp.inf)
        return rows, table, bias

    def head(self, name: str, *features: Array) -> Any:
        """Apply a head that owns parameters."""
        return self._apply(name, *features, method="head")

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        keys = {"dropout": jax.random.fold_in(self.key("dropout"), self.micro)}
        if self.train:
            keys["shared"] = self.key("shared")
        given = self.params if "params" in self.params else {"params": self.params}
        more = [name for name in given if name != "params"]
        if not (self.train and more):
            return self.model.apply(given, *args, rngs=keys, **kwargs)
        made, moved = self.model.apply({**given, **self.moved}, *args, rngs=keys, mutable=more, **kwargs)
        self.moved.update(moved)
        return made


def variables(params: Params, extra: Any = ()) -> Params:
    """What a model is run with, in place of its parameters, where it has more than those: `{"params": ..., ...}`."""
    return {"params": params, **extra} if extra else params


def init_state(
    model: Model, tx: optax.GradientTransformation, inputs: Inputs, root: Array, carry_rows: int = 0
) -> TrainState:
    """A fresh state; safe under `jax.jit` and `jax.eval_shape`.

    Args:
      model: the model whose `touch` makes every parameter.
      tx: the optimiser.
      inputs: an example of `batch["inputs"]`, of which shapes and dtypes matter.
      root: the root key of the run.
      carry_rows: the rows of the training batch, for models with a carry.
    """
    made = dict(model.init(rngs.named_key(root, "init"), inputs, method="touch"))
    params = made.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        carry=model.init_carry(carry_rows),
        extra=made or (),
    )


def weighted_loss(objective: Objective, terms: Terms, weights: Mapping[str, Array]) -> Array:
    """Sum over the loss terms of coefficient * total / weight; a term that weighs nothing adds nothing."""
    loss = jnp.zeros((), jnp.float32)
    for name, coefficient in objective.loss.items():
        loss += coefficient * terms[name].total / jnp.where(weights[name] > 0, weights[name], 1.0)
    return loss


def make_train_step(
    model: Model,
    objective: Objective,
    tx: optax.GradientTransformation,
    accum_steps: int = 1,
    frozen: str = "",
    words: int = 0,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Any]]]:
    """The pure step `(state, batch, root key) -> (state, metrics)`.

    With `accum_steps > 1` the gradient is summed by a scan over *strided* micro-batches (row r goes to micro-batch
    r mod accum_steps, so no device trades rows). Each loss term is divided by its weight over the *whole* batch before
    the sum: averaging the means of micro-batches is wrong as soon as their token counts differ.

    No gradient is taken of parameters whose path the regular expression `frozen` matches: what lies beneath them alone
    has no backward pass, and `grad_norm` is without them. That they do not change is the optimiser's affair.

    Of a model with a padded vocabulary `words` is the true number of words; 0 where there is none.

    An objective may have `rate(batch)`, a factor of the learning rate of this step alone, which the optimiser is told.

    A step whose loss or gradient is not finite leaves everything but `step` as it was and reports `skipped = 1`.

    Returns:
      metrics: `loss`, `grad_norm`, `skipped` (float32 scalars) and `terms` (name -> `Mean`).
    """

    def held(name: str, leaf: Array) -> Array:
        return jax.lax.stop_gradient(leaf) if re.search(frozen, name) else leaf

    def micro_gradient(
        state: TrainState, batch: Batch, carry: Carry, key: Array, weights: Mapping[str, Array], micro: Array | int = 0
    ):
        def loss_of(params: Params):
            params = tree.map_named(held, params) if frozen else params
            forward = Forward(model, variables(params, state.extra), key, train=True, micro=micro, words=words)
            terms, new_carry = objective(forward, batch, carry)
            return weighted_loss(objective, terms, weights), (terms, new_carry, forward.moved)

        (loss, (terms, *new)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        new_carry, moved = jax.lax.stop_gradient(new)
        return gradient, loss, terms, new_carry, {**state.extra, **moved} if state.extra else ()

    def accumulate(state: TrainState, batch: Batch, carry: Carry, key: Array, weights: Mapping[str, Array]):
        def split(leaf: Array) -> Array:
            return jnp.moveaxis(leaf.reshape(-1, accum_steps, *leaf.shape[1:]), 1, 0)

        def join(leaf: Array) -> Array:
            return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

        def body(sums: Any, micro: Any):
            index, batch, carry = micro
            gradient, loss, terms, carry, _ = micro_gradient(state, batch, carry, key, weights, index)
            return jax.tree.map(jnp.add, sums, (gradient, loss, terms)), carry

        micros = (jnp.arange(accum_steps), jax.tree.map(split, batch), jax.tree.map(split, carry))
        first = jax.tree.map(lambda leaf: leaf[0], micros)
        shapes = jax.eval_shape(lambda: micro_gradient(state, first[1], first[2], key, weights)[:3])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (gradient, loss, terms), carries = jax.lax.scan(body, zeros, micros)
        return gradient, loss, terms, jax.tree.map(join, carries), state.extra  # which moves with whole batches alone

    def step(state: TrainState, batch: Batch, root: Array) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(root, state.step)
        weights = objective.weights(batch)
        gradient_of = micro_gradient if accum_steps == 1 else accumulate
        gradient, loss, terms, carry, extra = gradient_of(state, batch, state.carry, key, weights)
        grad_norm = optax.tree.norm(gradient)
        rate = objective.rate(batch) if hasattr(objective, "rate") else None
        more = {} if rate is None else {"rate": rate}
        updates, opt_state = optax.with_extra_args_support(tx).update(gradient, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        new = state.replace(params=params, opt_state=opt_state, carry=carry, extra=extra)
        new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        metrics = {"loss": loss, "grad_norm": grad_norm, "skipped": 1.0 - finite, "terms": terms}
        return new.replace(step=state.step + 1), metrics

    return step


def make_eval_step(
    model: Model, objective: Objective
) -> Callable[[Params, Batch, Carry, Array], tuple[dict[str, Mean], Carry]]:
    """The pure step `(params, batch, carry, key) -> (terms, carry)`, without dropout, by the training objective; of a
    model with more than parameters `params` are its `variables`."""

    def step(params: Params, batch: Batch, carry: Carry, key: Array) -> tuple[dict[str, Mean], Carry]:
        return objective(Forward(model, params, key, train=False), batch, carry)

    return step
