"""Sampling from left-to-right models: prompts in, continuations out, what was read kept in the model's carry.

Reference: Radford et al. 2019; openai/gpt-2 src/sample.py; Holtzman et al. 2020, "The Curious Case of Neural Text
Degeneration" (top-p).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ctxjax.config import ConfigError
from ctxjax.inference import padded_length
from ctxjax.types import Params


class Sampling(NamedTuple):
    """How the next token is chosen.

    Attributes:
      temperature: logits are divided by it; 0 takes the most probable token.
      top_k: draw among the k most probable alone; 0 for all.
      top_p: then among the most probable whose probabilities sum to at most p (and the first one); 1 for all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def check(self) -> None:
        """Raises ConfigError for a value that makes no sense."""
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling needs temperature >= 0, top_k >= 0 and 0 < top_p <= 1, and this is {self}")


def narrow(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Logits over the temperature, -inf for tokens that top-k and then top-p leave out. As the published code counts,
    top-p keeps the tokens whose cumulated probability, their own included, does not pass p."""
    logits = logits / sampling.temperature
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, sampling.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sampling.top_p < 1.0:
        falling = jnp.sort(logits, axis=-1)[:, ::-1]
        within = jnp.cumsum(jax.nn.softmax(falling), axis=-1) <= sampling.top_p
        last = jnp.maximum(within.sum(axis=-1, keepdims=True) - 1, 0)
        logits = jnp.where(logits < jnp.take_along_axis(falling, last, axis=-1), -jnp.inf, logits)
    return logits


@functools.partial(jax.jit, static_argnames=("model", "count", "sampling", "stop"))
def _generate(
    model: Any, params: Params, inputs: Any, key: Array, count: int, sampling: Sampling, stop: int
) -> Int[Array, "B N"]:
    rows, length = inputs["tokens"].shape
    places = jnp.arange(rows)

    def logits_of(hidden: Float[Array, "B D"]) -> Float[Array, "B V"]:
        read, table, bias = model.apply({"params": params}, hidden, method="readout")
        logits = jnp.matmul(read, table.astype(read.dtype).T, preferred_element_type=jnp.float32)
        return logits + jnp.broadcast_to(bias.astype(jnp.float32)[None], logits.shape)

    def choose(logits: Float[Array, "B V"], step: Array) -> Int[Array, " B"]:
        if sampling.temperature == 0:
            return logits.argmax(axis=-1).astype(jnp.int32)
        return jax.random.categorical(jax.random.fold_in(key, step), narrow(logits, sampling)).astype(jnp.int32)

    def going(state: Any) -> Array:
        step, _, _, _, done = state
        return (step < count) & ~done.all()

    def body(state: Any) -> Any:
        step, made, hidden, carry, done = state
        token = jnp.where(done, stop, choose(logits_of(hidden), step))
        outputs = model.apply({"params": params}, {"tokens": token[:, None]}, carry)
        return step + 1, made.at[:, step].set(token), outputs.hidden[-1][:, 0], outputs.carry, done | (token == stop)

    outputs = model.apply({"params": params}, inputs, model.init_carry(rows, length + count))
    hidden = outputs.hidden[-1][places, inputs["mask"].sum(axis=1) - 1]
    made = jnp.full((rows, count), stop, jnp.int32)
    state = (jnp.zeros((), jnp.int32), made, hidden, outputs.carry, jnp.zeros((rows,), bool))
    return jax.lax.while_loop(going, body, state)[1]


def generate(
    model: Any,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " _"]],
    count: int,
    stop: int,
    seed: int = 0,
    sampling: Sampling = Sampling(),  # noqa: B008 - a tuple, which nobody can change
) -> list[Int[np.ndarray, " _"]]:
    """Continue every prompt.

    Args:
      model: one whose carry is a cache, or the state of an LSTM (`init_carry(rows, max_len)`).
      prompts: ids, at least one each; rows of one batch.
      count: tokens to make at most.
      stop: the id that ends a text, left out of what is returned.
      seed: of the draws; row and step decide the rest.

    Raises:
      ConfigError: prompt and continuation together are over the model's `max_len`, where it has one.
    """
    sampling.check()
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) < 1 or count < 1:
        raise ConfigError("generate needs a token in every prompt, and at least one to make")
    most = getattr(model, "max_len", None)
    if most and longest + count > most:
        raise ConfigError(
            f"a prompt of {longest} pieces and {count} more are over the {most} that this model reads at once"
        )
    length = min(padded_length(longest), most - count) if most else padded_length(longest)
    tokens, mask = np.zeros((len(prompts), length), np.int32), np.zeros((len(prompts), length), bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], mask[row, : len(prompt)] = prompt, True
    inputs = {"tokens": jnp.asarray(tokens), "mask": jnp.asarray(mask)}
    made = np.asarray(_generate(model, params, inputs, jax.random.key(seed), count, sampling, stop))
    return [row[: int(np.argmax(row == stop)) if (row == stop).any() else count] for row in made]
