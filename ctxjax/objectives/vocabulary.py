"""The one vocabulary loss: exact cross-entropy that never holds `[B T V]`, label smoothing, and the sampled softmax.

All take what `forward.readout` gives, `(rows, table, bias)`, as explicit arguments.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Logits held at once by one device, in elements. 4 M f32 stay within a CPU's last-level cache and fill an accelerator.
CHUNK_ELEMENTS = {"cpu": 2**22}
CHUNK_ELEMENTS_DEFAULT = 2**26


def rows_per_chunk(vocab_size: int) -> int:
    """How many rows of logits are formed at once: a budget of elements for each device that rows may be spread over."""
    elements = CHUNK_ELEMENTS.get(jax.default_backend(), CHUNK_ELEMENTS_DEFAULT)
    return max(8, elements * jax.device_count() // vocab_size)


def cross_entropy(
    rows: Float[Array, "N D"],
    table: Float[Array, "V D"],
    bias: Float[Array, " V"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    chunk: int = 0,
    skip: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`(sum of weight * nll, sum of weight where the target has the highest logit)` of the softmax over the table.

    At most `chunk` rows of logits exist at a time. When differentiated, the gradient is formed in the same pass as the
    value, so logits are computed once: with `e = exp(logits - max)`, `s = sum e` and `a = weight / s`,

        d rows = a * (e @ table) - weight * table[target],   d table = e^T @ (a * rows) - scatter(weight * rows),

    and no other `[chunk V]` array is written. A tie for the highest logit counts as correct.

    Args:
      table: rows whose bias is -inf are padding of the vocabulary; they take no probability and no gradient.
      weights: 0 for rows that do not count. Not differentiated.
      chunk: rows at a time; 0 takes `rows_per_chunk`.
      skip: rows that do not count stand together, as behind the end of a text in a window with time before lanes: a
        chunk is of neighbours then, and one in which nothing counts costs nothing.
    """
    if not chunk:
        chunk = rows_per_chunk(table.shape[0])
    count = max(1, math.ceil(rows.shape[0] / chunk))
    return _cross_entropy(rows, table, bias, targets, jax.lax.stop_gradient(weights), count, skip)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _cross_entropy(rows, table, bias, targets, weights, count, skip):
    def one(rows, targets, weights):
        return _chunk(rows, table, bias, targets, weights)[:2]

    if count == 1:
        return one(rows, targets, weights)
    chunks = _split((rows, targets, weights), count, skip)
    zero = jnp.zeros((), jnp.float32)

    def add(sums, chunk):
        return jax.tree.map(jnp.add, sums, one(*chunk))

    def body(sums, chunk):
        return _where_any(skip, chunk[2], add, lambda sums, _: sums, sums, chunk), None

    return jax.lax.scan(body, (zero, zero), chunks)[0]


def _chunk(rows, table, bias, targets, weights):
    """Loss and hits of a chunk, and the `e` and `weight / s` of its gradient."""
    logits = jax.lax.dot_general(
        rows, table.astype(rows.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    logits = logits + jnp.broadcast_to(bias.astype(jnp.float32)[None], logits.shape)
    highest = logits.max(-1, keepdims=True)
    exponentials = jnp.exp(logits - highest)
    partition = exponentials.sum(-1)
    target = jnp.take_along_axis(logits, targets[:, None], axis=1)
    nll = jnp.log(partition) + (highest - target)[:, 0]
    hit = (target >= highest)[:, 0]
    return (
        (weights * nll).sum(),
        jnp.where(hit, weights, 0.0).sum(),
        exponentials.astype(rows.dtype),
        weights / partition,
    )


def _split(tree, count: int, neighbours: bool):
    """Strided chunks `[count, ceil(N / count), ...]` (row n goes to chunk n mod count), or chunks of neighbours, filled
    up with zeros."""

    def split(leaf):
        rows = math.ceil(leaf.shape[0] / count)
        leaf = jnp.pad(leaf, [(0, rows * count - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))
        if neighbours:
            return leaf.reshape(count, rows, *leaf.shape[1:])
        return jnp.moveaxis(leaf.reshape(rows, count, *leaf.shape[1:]), 1, 0)

    return jax.tree.map(split, tree)


def _where_any(skip: bool, weights, work, nothing, *args):
    """`work(*args)`; with `skip`, `nothing(*args)` where no weight counts."""
    return jax.lax.cond((weights != 0).any(), work, nothing, *args) if skip else work(*args)


def _forward(rows, table, bias, targets, weights, count, skip):
    compute = table.astype(rows.dtype)

    def one(rows, targets, weights):
        total, hits, exponentials, scale = _chunk(rows, compute, bias, targets, weights)
        scaled = (rows.astype(jnp.float32) * scale[:, None]).astype(rows.dtype)
        d_table = _contract(exponentials, scaled, 0)
        d_bias = _contract(exponentials.astype(jnp.float32), scale, 0)
        d_rows = scale[:, None] * jax.lax.dot_general(
            exponentials, compute, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        return (total, hits, d_table, d_bias), d_rows

    if count == 1:
        (total, hits, d_table, d_bias), d_rows = one(rows, targets, weights)
    else:
        zeros = [jnp.zeros(shape, jnp.float32) for shape in ((), (), table.shape, bias.shape)]

        def add(sums, chunk):
            new, d_rows = one(*chunk)
            return jax.tree.map(jnp.add, sums, new), d_rows

        def nothing(sums, chunk):
            return sums, jnp.zeros(chunk[0].shape, jnp.float32)

        def body(sums, chunk):
            return _where_any(skip, chunk[2], add, nothing, sums, chunk)

        sums, d_rows = jax.lax.scan(body, tuple(zeros), _split((rows, targets, weights), count, skip))
        total, hits, d_table, d_bias = sums
        d_rows = d_rows if skip else jnp.moveaxis(d_rows, 0, 1)
        d_rows = d_rows.reshape(-1, rows.shape[1])[: rows.shape[0]]
    d_rows = d_rows - weights[:, None] * compute[targets].astype(jnp.float32)
    d_table = d_table.at[targets].add(-weights[:, None] * rows.astype(jnp.float32))
    d_bias = d_bias.at[targets].add(-weights)
    return (total, hits), (d_rows.astype(rows.dtype), d_table.astype(table.dtype), d_bias.astype(bias.dtype))


def _contract(left, right, axis: int):
    return jax.lax.dot_general(left, right, (((axis,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def _backward(count, skip, gradients, cotangents):
    del count, skip
    scale = cotangents[0]
    return *((scale * gradient.astype(jnp.float32)).astype(gradient.dtype) for gradient in gradients), None, None


_cross_entropy.defvjp(_forward, _backward)


def smoothing(
    rows: Float[Array, "N D"],
    table: Float[Array, "V D"],
    bias: Float[Array, " V"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    share: float,
    spared: int = -1,
) -> Float[Array, ""]:
    """What label smoothing adds to `cross_entropy`: the sum of both is the sum of weight * KL(labels || softmax).

    A label gives `1 - share` to its target and divides `share` evenly among the K other words: all of them, as in
    tensor2tensor (K = V - 1), or all but `spared`, as in the annotated Transformer, whose padding gets nothing
    (K = V - 2). With logits z and `low = share / K` the cross-entropy to such labels is

        nll + low * ((K + 1) * z[target] - sum_j z[j] (+ z[spared])),

    and the sum over all words is `rows @ sum_j table[j] + sum_j bias[j]`, so no `[N V]` array is formed. The entropy
    of the labels is subtracted, as both do: the best loss there can be is 0.

    Args:
      table: rows whose bias is -inf are padding of the vocabulary; they get no share.
      weights: 0 for rows that do not count; those whose target is `spared` must not. Not differentiated.
      share: 0 < share < 1.
      spared: the word that gets no share, or -1 for none.

    Reference: Szegedy et al. 2016, section 7; Vaswani et al. 2017, section 5.4.
    """
    weights = jax.lax.stop_gradient(weights)
    real = jnp.isfinite(bias)
    others = real.sum() - (1 if spared < 0 else 2)
    low = share / others
    table, bias = table.astype(jnp.float32), jnp.where(real, bias.astype(jnp.float32), 0.0)
    combined = jnp.where(real[:, None], table, 0.0).sum(0), bias.sum()
    if spared >= 0:
        combined = combined[0] - table[spared], combined[1] - bias[spared]
    own = jnp.einsum("nd,nd->n", rows, table[targets], preferred_element_type=jnp.float32) + bias[targets]
    every = jnp.einsum("nd,d->n", rows, combined[0], preferred_element_type=jnp.float32) + combined[1]
    entropy = -(1.0 - share) * math.log(1.0 - share) - share * jnp.log(low)
    return (weights * (low * ((others + 1) * own - every) - entropy)).sum()


def split_cross_entropy(
    rows: Float[Array, "N D"],
    table: Float[Array, "V D"],
    bias: Float[Array, " V"],
    tombstones: Float[Array, "K D"],
    tombstones_bias: Float[Array, " K"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    splits: tuple[int, ...],
) -> Float[Array, ""]:
    """Sum of weight * nll of a softmax in two stages, for large vocabularies sorted by falling frequency.

    The head is a softmax over the first words and one tombstone for each tail; a word of tail k has the probability of
    tombstone k times its own in a softmax over the tail. Rows are sorted by where their targets are, so that a tail
    costs its own rows alone.

    Args:
      splits: the first word of each of the K tails.

    Reference: Grave et al. 2017, "Efficient softmax approximation for GPUs"; salesforce/awd-lstm-lm splitcross.py.
    """
    part = (targets[:, None] >= jnp.array(splits)[None]).sum(1, dtype=jnp.int32)
    order = jnp.argsort(jnp.where(weights != 0, part, len(splits) + 1))
    rows, targets, weights, part = (leaf[order] for leaf in (rows, targets, weights, part))
    tables, biases = jnp.split(table, splits), jnp.split(bias, splits)
    told = jnp.where(part == 0, targets, splits[0] + part - 1)
    parts = [(jnp.concatenate([tables[0], tombstones]), jnp.concatenate([biases[0], tombstones_bias]), told, weights)]
    for number, start in enumerate(splits, 1):
        size = tables[number].shape[0]
        told = jnp.clip(targets - start, 0, size - 1)
        parts.append((tables[number], biases[number], told, jnp.where(part == number, weights, 0.0)))
    total = jnp.zeros((), jnp.float32)
    for words, offsets, told, counts in parts:
        chunk = min(rows_per_chunk(words.shape[0]), max(64, rows.shape[0] // 16))
        total += cross_entropy(rows, words, offsets, told, counts, chunk, skip=True)[0]
    return total


def log_uniform(vocab_size: int) -> Float[Array, " V"]:
    """`log p(i)`, `p(i) = log((i + 2) / (i + 1)) / log(V + 1)`: near the law of words by falling frequency."""
    ids = jnp.arange(vocab_size, dtype=jnp.float32)
    return jnp.log(jnp.log1p(1.0 / (ids + 1.0))) - math.log(math.log(vocab_size + 1.0))


def draw(key: Array, vocab_size: int, samples: int) -> tuple[Int[Array, " S"], Float[Array, " V"]]:
    """`samples` *distinct* words from the log-uniform law, and the log of each word's chance of being among them.

    Word i rings at an exponential time of rate p(i); the first S to ring are a draw without replacement, the same law
    as drawing with replacement and throwing repeats away, which is what TensorFlow's candidate sampler does. Given
    the time t at which the next word would ring, word i is in with probability `1 - exp(-t p(i))`; TensorFlow uses the
    number of tries for t, whose expectation this is. With S = V every word is in and every probability is 1.
    """
    log_p = log_uniform(vocab_size)
    if samples >= vocab_size:
        return jnp.arange(vocab_size, dtype=jnp.int32), jnp.zeros((vocab_size,), jnp.float32)
    rings = log_p + jax.random.gumbel(key, (vocab_size,), jnp.float32)  # minus the log of the time of ringing
    first, ids = jax.lax.top_k(rings, samples + 1)
    expected = -jnp.expm1(-jnp.exp(log_p - jnp.broadcast_to(first[-1:], log_p.shape)))
    return ids[:samples].astype(jnp.int32), jnp.log(expected)


def sampled_cross_entropy(
    rows: Float[Array, "N D"],
    table: Float[Array, "V D"],
    bias: Float[Array, " V"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
    negatives: Int[Array, " S"],
    log_expected: Float[Array, " W"],
) -> Float[Array, ""]:
    """Sum of weight * nll of a softmax over the target and the negatives, which all rows share.

    Every logit, the target's too, is corrected by the log of its chance of being drawn; a negative that is a row's own
    target is removed for that row (`tf.nn.sampled_softmax_loss`, `remove_accidental_hits=True`).

    Args:
      log_expected: of the W words that there are, from `draw`; a table may have rows behind them that are no words.

    Reference: Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation".
    """
    log_expected = jax.lax.stop_gradient(log_expected)

    def offset(words: Int[Array, " M"]) -> Float[Array, " M"]:
        return bias[words].astype(jnp.float32) - log_expected[words]

    chosen = table[negatives].astype(rows.dtype)
    logits = jax.lax.dot_general(rows, chosen, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    logits = logits + jnp.broadcast_to(offset(negatives)[None], logits.shape)
    logits = jnp.where(negatives[None, :] == targets[:, None], -jnp.inf, logits)
    own = jnp.einsum("nd,nd->n", rows, table[targets].astype(rows.dtype), preferred_element_type=jnp.float32)
    own = own + offset(targets)
    highest = jax.lax.stop_gradient(jnp.maximum(logits.max(-1), own))
    partition = jnp.exp(logits - highest[:, None]).sum(-1) + jnp.exp(own - highest)
    nll = jnp.log(partition) + highest - own
    return (jax.lax.stop_gradient(weights) * nll).sum()
