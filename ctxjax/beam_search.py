"""Beam search in encoder-decoders: the targets of highest score, keys and values kept in the model's carry.

The score of a finished target Y, its end mark included, is `log P(Y | X) / ((5 + |Y|) / 6)^alpha`. As in the released
Transformer, the 2 K best continuations of the K beams are looked at in every step, so that K stay alive whichever end.
With one beam the search is greedy: it ends where the end mark is the most probable token.

Reference: Wu et al. 2016, "Google's Neural Machine Translation System", section 7; Vaswani et al. 2017, section 6.1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ctxjax.config import ConfigError
from ctxjax.inference import TOKENS_PER_BATCH, plan, stack
from ctxjax.types import Params

MORE = 50  # tokens that a target may be longer than its source (Vaswani et al. 2017, section 6.1)
_MOVED = ("key", "value", "used")  # of the carry, with the beams; what was read of the source is the same for all


class Hypothesis(NamedTuple):
    """A target without its end mark, and its score."""

    ids: Int[np.ndarray, " _"]
    score: float


class _Beams(NamedTuple):
    """Sequences of every row, best first; -inf marks a place that is not taken."""

    tokens: Int[Array, "B K N"]
    scores: Float[Array, "B K"]


class _State(NamedTuple):
    """Between two steps: beams alive (scores are log-probabilities) and finished, and which rows need no more."""

    step: Int[Array, ""]
    alive: _Beams
    ended: _Beams
    done: Bool[Array, " B"]
    hidden: Float[Array, "BK D"]
    carry: Any


def penalty(length: Any, alpha: float) -> Any:
    """`((5 + length) / 6)^alpha`, by which the log-probability of a target is divided."""
    return ((5.0 + length) / 6.0) ** alpha


def _best(tokens: Int[Array, "B M N"], scores: Float[Array, "B M"], count: int) -> tuple[_Beams, Int[Array, "B K"]]:
    """The best `count` of some sequences, and where they were."""
    scores, where = jax.lax.top_k(scores, count)
    return _Beams(jnp.take_along_axis(tokens, where[:, :, None], axis=1), scores), where


@functools.partial(jax.jit, static_argnames=("model", "beam", "count", "alpha", "start", "stop"))
def _search(
    model: Any, params: Params, inputs: Any, real: Array, beam: int, count: int, alpha: float, start: int, stop: int
) -> _Beams:
    rows = len(real)

    def log_probs(hidden: Float[Array, "BK D"]) -> Float[Array, "BK V"]:
        read, table, bias = model.apply({"params": params}, hidden, method="readout")
        logits = jnp.matmul(read, table.astype(read.dtype).T, preferred_element_type=jnp.float32)
        return jax.nn.log_softmax(logits + jnp.broadcast_to(bias.astype(jnp.float32)[None], logits.shape))

    def going(state: _State) -> Array:
        return (state.step < count) & ~state.done.all()

    def body(state: _State) -> _State:
        step, alive, ended, done, hidden, carry = state
        found = log_probs(hidden).reshape(rows, beam, -1)
        size = found.shape[-1]
        found = (found + alive.scores[:, :, None]).reshape(rows, -1)
        scores, where = jax.lax.top_k(found, 2 * beam)
        parents, token = where // size, where % size
        tokens = jnp.take_along_axis(alive.tokens, parents[:, :, None], axis=1).at[:, :, step].set(token)
        ends = token == stop
        takes = ends & ~done[:, None] & (jnp.arange(2 * beam) < (1 if beam == 1 else 2 * beam))[None]
        final = jnp.where(takes, scores / penalty(step + 1, alpha), -jnp.inf)
        ended, _ = _best(jnp.concatenate([ended.tokens, tokens], 1), jnp.concatenate([ended.scores, final], 1), beam)
        alive, chosen = _best(tokens, jnp.where(ends, -jnp.inf, scores), beam)
        moved = jnp.take_along_axis(parents, chosen, axis=1) + jnp.arange(rows)[:, None] * beam
        carry = {**carry, **{name: carry[name][moved.reshape(-1)] for name in _MOVED}}
        given = {"decoder_tokens": alive.tokens[:, :, step].reshape(-1, 1)}
        outputs = model.apply({"params": params}, given, carry)
        # Scores of what is alive only fall, and the longest target divides them by most.
        least, most = ended.scores.min(axis=1), alive.scores.max(axis=1) / penalty(count, alpha)
        done = done | (least > -jnp.inf if beam == 1 else least >= most)
        return _State(step + 1, alive, ended, done, outputs.hidden[-1][:, 0], outputs.carry)

    first = {**inputs, "decoder_tokens": jnp.full((rows, 1), start, jnp.int32)}
    outputs = model.apply({"params": params}, first, model.init_carry(rows, count + 1))
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam, axis=0), (outputs.hidden[-1][:, 0], outputs.carry))
    empty = jnp.full((rows, beam, count), stop, jnp.int32)
    none = jnp.full((rows, beam), -jnp.inf)
    one = none.at[:, 0].set(0.0)
    zero = jnp.zeros((), jnp.int32)
    state = jax.lax.while_loop(going, body, _State(zero, _Beams(empty, one), _Beams(empty, none), ~real, *repeated))
    whole = (state.ended.scores > -jnp.inf).any(axis=1)
    return _Beams(
        jnp.where(whole[:, None, None], state.ended.tokens, state.alive.tokens),
        jnp.where(whole[:, None], state.ended.scores, state.alive.scores / penalty(count, alpha)),
    )


def search(
    model: Any,
    params: Params,
    sources: Sequence[Int[np.ndarray, " _"]],
    *,
    start: int,
    stop: int,
    beam: int = 4,
    alpha: float = 0.6,
    more: int = MORE,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """The best targets of every source.

    Args:
      model: one that reads a source and `decoder_tokens`, and whose carry is a cache (`init_carry(rows, max_len)`).
      sources: ids, the end mark included.
      start, stop: what the decoder reads first, and the id that ends a target.
      beam: how many are kept; 1 is greedy.
      alpha: of the length penalty; 0 for none.
      more: tokens that a target may have more than the padded source. Where no target has ended by then, those that
        are alive are given.
      tokens_per_batch: rows times beams times padded length is at most this, but never less than one row.

    Yields:
      (index, at most `beam` targets, best first) of every source, in the order in which batches are done.

    Raises:
      ConfigError: a beam, a penalty or a source that makes no sense.
    """
    if beam < 1 or alpha < 0 or more < 1:
        raise ConfigError(f"beam search needs beam >= 1, alpha >= 0 and more >= 1, not {beam}, {alpha} and {more}")
    if any(not len(source) for source in sources):
        raise ConfigError("beam search needs a token in every source")
    for batch in plan([len(source) for source in sources], None, max(1, tokens_per_batch // beam)):
        inputs = stack([{"tokens": np.asarray(sources[index], np.int32)} for index in batch.indices], *batch[1:])
        real = np.arange(batch.rows) < len(batch.indices)
        found = _search(model, params, inputs, real, beam, batch.length + more, float(alpha), start, stop)
        tokens, scores = np.asarray(found.tokens), np.asarray(found.scores)
        for row, index in enumerate(batch.indices):
            kept = [place for place in range(beam) if scores[row, place] > -np.inf]
            yield index, [Hypothesis(_ended(tokens[row, place], stop), float(scores[row, place])) for place in kept]


def _ended(tokens: Int[np.ndarray, " N"], stop: int) -> Int[np.ndarray, " _"]:
    """What stands before the end mark."""
    ends = tokens == stop
    return tokens[: int(np.argmax(ends))] if ends.any() else tokens
