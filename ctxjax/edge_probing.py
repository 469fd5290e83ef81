"""Edge probes: the kind of a span, told from the words in it alone, with layers up to each one.

    p_t = P mix_{<=l}(t) + b      span = sum_t softmax_t(a . p_t) p_t      kind = W2 tanh(W1 span + b1) + b2

A probe sees vectors of the span's words and nothing around them, so what it knows of the context is in the vectors. It
mixes layers as ELMo's users do; the probe of layer l may use those up to l, and the last one all. The gain of one layer
more says where a task is solved: the expected layer is the mean of layers under these gains, the centre of gravity that
under the shares of the last probe's mix. All probes are one `vmap`ped program.

Reference: Tenney et al. 2019a, "What do you learn from context? Probing for sentence structure in contextualized word
representations"; Tenney et al. 2019b, "BERT Rediscovers the Classical NLP Pipeline", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ctxjax.data import draws
from ctxjax.text import tags as schemes

_NEVER = -1e9  # the raw weight of a layer that a probe may not use


class Spans(NamedTuple):
    """Spans of a split and their kinds.

    Attributes:
      vectors: of all words of the split, layer by layer; memory-mapped, perhaps.
      starts, lengths: words of each span.
      targets: kinds by number; -1 where training has no such kind.
    """

    vectors: Float[np.ndarray, "N L D"]
    starts: Int[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]
    targets: Int[np.ndarray, " n"]


def spans_of(sentences: Sequence[Any], scheme: str, vectors: Float[np.ndarray, "N L D"], kinds: Sequence[str]) -> Spans:
    """The spans that the tags of sentences say."""
    numbers = {kind: number for number, kind in enumerate(kinds)}
    found, first = [], 0
    for one in sentences:
        spans = schemes.spans(one.tags, scheme)
        found += [(first + start, stop - start, numbers.get(kind, -1)) for kind, start, stop in spans]
        first += len(one.words)
    table = np.array(found, np.int64).reshape(-1, 3)
    return Spans(vectors, table[:, 0], table[:, 1], table[:, 2].astype(np.int32))


def gather(spans: Spans, chosen: Int[np.ndarray, " B"], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[B S L D]` of the words of some spans, of a longer one its first words, and which there are, `[B S]`."""
    places = np.arange(longest)[None]
    there = places < spans.lengths[chosen, None]
    return spans.vectors[np.where(there, spans.starts[chosen, None] + places, spans.starts[chosen, None])], there


def scores(
    probe: dict[str, Array], reach: Int[Array, ""], x: Float[Array, "B S L D"], there: Bool[Array, "B S"]
) -> Float[Array, "B C"]:
    """Of the probe that may use layers up to `reach`."""
    raw = jnp.where(jnp.arange(x.shape[2]) <= reach, probe["mix"], _NEVER)
    mixed = probe["gamma"] * jnp.einsum("bsld,l->bsd", x, jax.nn.softmax(raw))
    projected = mixed @ probe["projection"] + probe["projection_bias"][None, None]
    attention = jax.nn.softmax(jnp.where(there, projected @ probe["attention"], _NEVER), axis=1)
    span = jnp.einsum("bsp,bs->bp", projected, attention)
    hidden = jnp.tanh(span @ probe["hidden"] + probe["hidden_bias"][None])
    return hidden @ probe["out"] + probe["out_bias"][None]


def fresh(key: Array, layers: int, width: int, size: int, classes: int) -> dict[str, Array]:
    """One probe: a plain average of the layers, an even attention, and normal kernels."""
    keys = jax.random.split(key, 3)
    normal = lambda key, rows, columns: jax.random.normal(key, (rows, columns)) * rows**-0.5
    made = {"mix": jnp.zeros(layers), "gamma": jnp.ones(()), "attention": jnp.zeros(size)}
    made |= {"projection": normal(keys[0], width, size), "projection_bias": jnp.zeros(size)}
    made |= {"hidden": normal(keys[1], size, size), "hidden_bias": jnp.zeros(size)}
    return made | {"out": normal(keys[2], size, classes), "out_bias": jnp.zeros(classes)}


def fit(
    train: Spans,
    heldout: Spans,
    classes: int,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 1e-3,
    size: int = 256,
    longest: int = 8,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda steps: None,
) -> dict[str, Any]:
    """Train the probes of all layers together and score the held-out spans.

    Args:
      train, heldout: with the same layers.
      classes: kinds.
      epochs, batch_size, lr, seed: of Adam, whose rate falls linearly to nothing.
      size: of the projection and of the hidden layer.
      longest: words that are read of a span.
      progress: called with the number of steps done, one by one.

    Returns:
      accuracy: of the probes with layers up to each; gains: of one layer more, the first left out; expected_layer; mix:
      shares of the last probe; centre_of_gravity; majority: of the most frequent kind; spans; longer: than `longest`.
    """
    layers, width = train.vectors.shape[1:]
    batch_size = min(batch_size, len(train.targets))
    steps = epochs * (len(train.targets) // batch_size)
    tx = optax.adam(optax.linear_schedule(lr, 0.0, steps))
    reaches = jnp.arange(layers)
    one = fresh(jax.random.key(seed), layers, width, size, classes)
    probes = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (layers, *leaf.shape)), one)

    def loss(probe: Any, reach: Array, x: Array, there: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(scores(probe, reach, x, there), y).mean()

    of_layers = jax.vmap(loss, in_axes=(0, 0, None, None, None))

    @jax.jit
    def step(probes: Any, state: Any, x: Array, there: Array, y: Array):
        gradient = jax.grad(lambda probes: of_layers(probes, reaches, x, there, y).sum())(probes)
        updates, state = tx.update(gradient, state, probes)
        return optax.apply_updates(probes, updates), state

    tell = jax.jit(jax.vmap(scores, in_axes=(0, 0, None, None)))
    state = tx.init(probes)
    for number in range(steps):
        elements = np.arange(number * batch_size, (number + 1) * batch_size)
        chosen = draws.in_passes("edges", seed, elements, len(train.targets))
        probes, state = step(probes, state, *gather(train, chosen, longest), train.targets[chosen])
        progress(number + 1)
    told = []
    for first in range(0, len(heldout.targets), 512):
        chosen = np.minimum(np.arange(first, first + 512), len(heldout.targets) - 1)  # one shape, compiled once
        kept = min(512, len(heldout.targets) - first)
        told.append(np.asarray(tell(probes, reaches, *gather(heldout, chosen, longest))).argmax(-1)[:, :kept])
    accuracy = (np.concatenate(told, axis=1) == heldout.targets).mean(1)
    gains = np.diff(accuracy)
    shares = np.asarray(jax.nn.softmax(probes["mix"][-1]), np.float64)
    share = np.bincount(train.targets, minlength=classes)
    return {
        "accuracy": accuracy.tolist(),
        "gains": gains.tolist(),
        "expected_layer": float((np.arange(1, layers) * gains).sum() / gains.sum()) if gains.sum() else 0.0,
        "mix": shares.tolist(),
        "centre_of_gravity": float((np.arange(layers) * shares).sum()),
        "majority": float((heldout.targets == share.argmax()).mean()),
        "spans": len(heldout.targets),
        "longer": int((np.concatenate([train.lengths, heldout.lengths]) > longest).sum()),
    }
