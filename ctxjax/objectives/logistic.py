"""What skip-gram and CBOW share: the logistic cost with its published error, windows of a row, blocks of running words.

A row is cut into blocks of K words. What a block needs of its neighbours is the W words to either side; negatives are
shared by its words, so that their scores are one matrix product (Ji et al. 2016, "Parallelizing Word2Vec in Shared and
Distributed Memory"). Blocks are worked off a few at a time, value and gradient in the same pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

OUTSIDE = ("saturate", "skip", "exact")
# Blocks at once: one keeps a CPU's products in its caches, all of them fill an accelerator.
BLOCKS = {"cpu": 1}
BLOCKS_DEFAULT = 1 << 12


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def cost(scores: Float[Array, ...], outside: str, limit: float) -> Float[Array, ...]:
    """`-log sigmoid(score)`, whose derivative is the published one.

    Args:
      scores: of what is true; the cost of what is not is that of minus its score.
      outside: what the derivative `sigmoid(score) - 1` is beyond +-limit: "saturate" takes the logistic function to be
        0 or 1 there (word2vec's negative sampling, fastText), "skip" is 0 (word2vec's hierarchical softmax; gensim for
        both), "exact" is the derivative itself. That the originals read the function off a table is not copied.
      limit: where the original's table ends, 6 in word2vec and 8 in fastText.
    """
    del outside, limit
    return jax.nn.softplus(-scores)


@cost.defjvp
def _cost_jvp(outside: str, limit: float, primals: Any, tangents: Any) -> Any:
    (scores,), (change,) = primals, tangents
    error = -jax.nn.sigmoid(-scores)
    if outside == "saturate":
        error = jnp.where(scores > limit, 0.0, jnp.where(scores < -limit, -1.0, error))
    if outside == "skip":
        error = jnp.where(jnp.abs(scores) > limit, 0.0, error)
    return cost(scores, outside, limit), error * change


def over_blocks(loss: Callable[..., Any], floats: tuple[Array, ...], others: tuple[Any, ...]) -> Float[Array, ""]:
    """The sum of `loss(*floats, *others)` over the blocks on axis 0 of all arrays.

    When differentiated, each block's gradient is formed beside its value and nothing of a block is kept but that.

    Args:
      loss: of one block.
      floats: what is differentiated.
      others: what is not: ids, masks.
    """

    def total(floats: Any, others: Any) -> Array:
        return _sum(lambda one: loss(*one[0], *one[1]), (floats, others))

    def forward(floats: Any, others: Any) -> Any:
        def both(one: Any) -> Any:
            return jax.value_and_grad(lambda floats: loss(*floats, *one[1]))(one[0])

        return _mapped(both, (floats, others))

    summed = jax.custom_vjp(total)
    summed.defvjp(forward, lambda gradients, scale: (jax.tree.map(lambda one: scale * one, gradients), None))
    return summed(floats, others)


def _sum(one: Callable[..., Array], arrays: Any) -> Array:
    def body(sum_: Array, chunk: Any) -> Any:
        return sum_ + jax.vmap(one)(chunk).sum(), None

    return jax.lax.scan(body, jnp.zeros((), jnp.float32), _chunks(arrays))[0]


def _mapped(one: Callable[..., Any], arrays: Any) -> Any:
    """The sum of the values of all blocks, and their gradients."""

    def body(sum_: Array, chunk: Any) -> Any:
        values, gradients = jax.vmap(one)(chunk)
        return sum_ + values.sum(), gradients

    value, gradients = jax.lax.scan(body, jnp.zeros((), jnp.float32), _chunks(arrays))
    return value, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), gradients)


def _chunks(arrays: Any) -> Any:
    """`[chunks, blocks at once, ...]`, as many at once as divide the blocks and the device likes."""
    count = jax.tree.leaves(arrays)[0].shape[0]
    most = min(count, BLOCKS.get(jax.default_backend(), BLOCKS_DEFAULT))
    at_once = next(size for size in range(most, 0, -1) if count % size == 0)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, at_once, *leaf.shape[1:]), arrays)


def blocks_of(values: Array, block: int) -> Array:
    """`[B T ...]` as blocks `[B T/K, K, ...]`."""
    return values.reshape(-1, block, *values.shape[2:])


def reaching(values: Array, block: int, window: int) -> Array:
    """Blocks with the W places before and behind each: `[B T/K, W + K + W, ...]`, zeros beyond the row."""
    cut = values.reshape(values.shape[0], -1, block, *values.shape[2:])
    nothing = jnp.zeros_like(cut[:, :1])
    before = jnp.concatenate([nothing, cut[:, :-1]], axis=1)[:, :, -window:]
    behind = jnp.concatenate([cut[:, 1:], nothing], axis=1)[:, :, :window]
    joined = jnp.concatenate([before, cut, behind], axis=2)
    return joined.reshape(-1, *joined.shape[2:])


def distances(block: int, window: int) -> Int[Array, "K C"]:
    """How far each place of a block is from those of the block and its surroundings."""
    return jnp.arange(block)[:, None] + window - jnp.arange(block + 2 * window)[None, :]


def within(
    reach: Int[Array, ...], sentences: tuple[Array, Array], real: tuple[Array, Array], window: int
) -> Bool[Array, "K C"]:
    """Which pairs of a block and its surroundings are in a window: near, of one sentence, both words.

    Args:
      reach: places that the window reaches, `[K, 1]` or `[1, C]` by whose window it is.
      sentences, real: of the block `[K]` and of the surroundings `[C]`.
      window: W.
    """
    far = jnp.abs(distances(sentences[0].shape[0], window))
    near = (far > 0) & (far <= jnp.broadcast_to(reach, far.shape))
    same = sentences[0][:, None] == sentences[1][None, :]
    return near & same & (real[0][:, None] > 0) & (real[1][None, :] > 0)


def fields(batch: Mapping[str, Any], inputs: Array) -> tuple[dict[str, Array], int, int]:
    """The small arrays of a batch, the window and the block (all of a row where no negatives divide it)."""
    given = {
        "sentences": batch["sentences"],
        "weights": batch["weights"].astype(jnp.float32),
        "reach": batch["reach"].sum(-1),
        "targets": batch["targets"],
    }
    length, window = inputs.shape[1], batch["reach"].shape[-1]
    block = length // batch["negatives"].shape[1] if "negatives" in batch else min(length, 64)
    return given, window, block
