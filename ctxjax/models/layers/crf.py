"""A linear-chain conditional random field over the tags of a sentence: its log-partition, the score of a path, Viterbi.

    score(y) = start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_n]

Positions where the mask is False are left out wherever they stand, so the tag before is that of the last position that
counts. All sums are in f32.

Reference: Lafferty et al. 2001, "Conditional Random Fields"; Collobert et al. 2011, "Natural Language Processing
(Almost) from Scratch", section 3.3.2; Lample et al. 2016, "Neural Architectures for Named Entity Recognition".
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

FORBIDDEN = -1e4  # the score of a step that a tag scheme does not have; its probability is 0 in f32


class Chain(NamedTuple):
    """Scores of neighbouring tags.

    Attributes:
      transitions: `[from to]`.
      start, end: of the first and the last tag of a sentence.
    """

    transitions: Float[Array, "N N"]
    start: Float[Array, " N"]
    end: Float[Array, " N"]


class Transitions(nn.Module):
    """The parameters of a chain, which start as zeros; without `ends` the first and the last tag score nothing."""

    tags: int
    param_dtype: str
    ends: bool = True

    def setup(self) -> None:
        zeros, kind = nn.initializers.zeros, self.param_dtype
        self.transitions = self.param("transitions", zeros, (self.tags, self.tags), kind)
        if self.ends:
            self.start = self.param("start", zeros, (self.tags,), kind)
            self.end = self.param("end", zeros, (self.tags,), kind)

    def __call__(self) -> Chain:
        if self.ends:
            return Chain(self.transitions, self.start, self.end)
        nothing = jnp.zeros(self.tags, self.param_dtype)
        return Chain(self.transitions, nothing, nothing)


def constrain(chain: Chain, allowed: tuple[Array, Array, Array]) -> Chain:
    """A chain in which what is not allowed (`[N N]`, `[N]`, `[N]`, bool) scores `FORBIDDEN`."""
    return Chain(*(jnp.where(there, score, FORBIDDEN) for there, score in zip(allowed, chain)))


def log_partition(
    emissions: Float[Array, "B T N"], chain: Chain, mask: Bool[Array, "B T"] | None = None
) -> Float[Array, " B"]:
    """The logarithm of the sum of exp(score) over all paths; 0 for a row without a position."""
    emissions, chain, mask = _in_f32(emissions, chain, mask)

    def step(state: tuple[Array, Array], at: tuple[Array, Array]):
        alpha, begun = state
        scores, here = at
        follows = jax.nn.logsumexp(alpha[:, :, None] + chain.transitions[None], axis=1)
        new = jnp.where(begun[:, None], follows, chain.start[None]) + scores
        return (jnp.where(here[:, None], new, alpha), begun | here), None

    state = (jnp.zeros_like(emissions[:, 0]), jnp.zeros(len(emissions), bool))
    (alpha, begun), _ = jax.lax.scan(step, state, (emissions.swapaxes(0, 1), mask.T))
    return jnp.where(begun, jax.nn.logsumexp(alpha + chain.end[None], axis=1), 0.0)


def path_score(
    emissions: Float[Array, "B T N"], chain: Chain, tags: Int[Array, "B T"], mask: Bool[Array, "B T"] | None = None
) -> Float[Array, " B"]:
    """The score of the given tags; 0 for a row without a position. Tags where the mask is False may be anything."""
    emissions, chain, mask = _in_f32(emissions, chain, mask)
    tags = jnp.clip(tags, 0, emissions.shape[-1] - 1)
    places = jnp.where(mask, jnp.arange(mask.shape[1])[None], -1)
    last = jax.lax.cummax(places, axis=1)
    before = jnp.pad(last[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    previous = jnp.take_along_axis(tags, jnp.maximum(before, 0), axis=1)
    steps = jnp.where(before >= 0, chain.transitions[previous, tags], chain.start[tags])
    steps += jnp.take_along_axis(emissions, tags[:, :, None], axis=2)[:, :, 0]
    final = jnp.take_along_axis(tags, jnp.maximum(last[:, -1:], 0), axis=1)[:, 0]
    return jnp.where(mask, steps, 0.0).sum(1) + jnp.where(last[:, -1] >= 0, chain.end[final], 0.0)


def negative_log_likelihood(
    emissions: Float[Array, "B T N"], chain: Chain, tags: Int[Array, "B T"], mask: Bool[Array, "B T"] | None = None
) -> Float[Array, " B"]:
    """`-log p(tags)` of every row."""
    return log_partition(emissions, chain, mask) - path_score(emissions, chain, tags, mask)


def viterbi(
    emissions: Float[Array, "B T N"], chain: Chain, mask: Bool[Array, "B T"] | None = None
) -> tuple[Int[Array, "B T"], Float[Array, " B"]]:
    """The best path of every row, 0 where the mask is False, and its score."""
    emissions, chain, mask = _in_f32(emissions, chain, mask)
    same = jnp.arange(emissions.shape[-1])[None]

    def forward(state: tuple[Array, Array], at: tuple[Array, Array]):
        best, begun = state
        scores, here = at
        through = best[:, :, None] + chain.transitions[None]
        new = jnp.where(begun[:, None], through.max(1), chain.start[None]) + scores
        pointers = jnp.where((here & begun)[:, None], through.argmax(1), same)
        return (jnp.where(here[:, None], new, best), begun | here), pointers

    def backward(tag: Array, pointers: Array):
        return jnp.take_along_axis(pointers, tag[:, None], axis=1)[:, 0], tag

    state = (jnp.zeros_like(emissions[:, 0]), jnp.zeros(len(emissions), bool))
    (best, begun), pointers = jax.lax.scan(forward, state, (emissions.swapaxes(0, 1), mask.T))
    best = best + chain.end[None]
    _, path = jax.lax.scan(backward, best.argmax(1), pointers, reverse=True)
    return jnp.where(mask, path.T, 0), jnp.where(begun, best.max(1), 0.0)


def _in_f32(emissions: Array, chain: Chain, mask: Array | None) -> tuple[Array, Chain, Array]:
    mask = jnp.ones(emissions.shape[:2], bool) if mask is None else mask.astype(bool)
    return emissions.astype(jnp.float32), Chain(*(part.astype(jnp.float32) for part in chain)), mask
