"""Linear probes: what can be read off each layer of a frozen model, and what a probe learns by heart.

A probe is one softmax over a standardised layer. Beside each stands the same probe of a control task, in which every
word type has one label drawn at random from the distribution of the real ones, so that it can be learned only by
remembering words. Selectivity is the accuracy less that of the control task. The probes of all layers and of both tasks
are one `vmap`ped program, and see the same batches.

Reference: Hewitt and Liang 2019, "Designing and Interpreting Probes with Control Tasks"; Alain and Bengio 2016,
"Understanding intermediate layers using linear classifier probes".
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ctxjax.data import draws
from ctxjax.text import tags as schemes


class Labelled(NamedTuple):
    """The words of a split that have a label.

    Attributes:
      vectors: of all words of the split, layer by layer; memory-mapped, perhaps.
      places: which of those have a label.
      words: they, as text.
      targets: their labels by number; -1 where training has no such label, which no probe can tell.
    """

    vectors: Float[np.ndarray, "N L D"]
    places: Int[np.ndarray, " n"]
    words: Sequence[str]
    targets: Int[np.ndarray, " n"]


class Told(NamedTuple):
    """What the probes of a task tell of the held-out words: [layers, n], of the task and of its control."""

    task: Int[np.ndarray, "L n"]
    control: Int[np.ndarray, "L n"]


def control_labels(words: Sequence[str], share: Float[np.ndarray, " C"], seed: int = 0) -> Int[np.ndarray, " n"]:
    """A label for every word by its type alone, drawn from the shares of the labels: the same wherever it stands."""
    edges = np.cumsum(share)[:-1]
    drawn: dict[str, int] = {}
    for word in words:
        if word not in drawn:
            digest = hashlib.sha256(f"{seed} {word}".encode("utf-8", "surrogatepass")).digest()
            uniform = int.from_bytes(digest[:8], "big") / 2.0**64
            drawn[word] = int(np.searchsorted(edges, uniform, side="right"))
    return np.array([drawn[word] for word in words], np.int32)


def moments(found: Labelled, chunk: int = 4096) -> tuple[Float[np.ndarray, "L D"], Float[np.ndarray, "L D"]]:
    """Mean of every feature of every layer, and one over its deviation (0 of a constant)."""
    shape = found.vectors.shape[1:]
    total, squares = np.zeros(shape), np.zeros(shape)
    for first in range(0, len(found.places), chunk):
        rows = found.vectors[found.places[first : first + chunk]].astype(np.float64)
        total, squares = total + rows.sum(0), squares + np.square(rows).sum(0)
    mean = total / len(found.places)
    variance = np.maximum(squares / len(found.places) - mean**2, 0.0)
    scale = np.where(variance > 1e-12 * (mean**2 + 1e-30), 1.0 / np.sqrt(np.maximum(variance, 1e-30)), 0.0)
    return mean.astype(np.float32), scale.astype(np.float32)


def scores(probe: dict[str, Array], x: Float[Array, "B D"]) -> Float[Array, "B C"]:
    """Of one probe."""
    return x @ probe["kernel"] + jnp.broadcast_to(probe["bias"], (len(x), len(probe["bias"])))


def fit(
    train: Labelled,
    heldout: Labelled,
    classes: int,
    *,
    epochs: int = 10,
    batch_size: int = 256,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda steps: None,
) -> Told:
    """Train the probes of all layers and their controls together, and tell the held-out words.

    Adam, whose rate falls linearly to nothing; the last probes are told, none is chosen by the held-out words.

    Args:
      train, heldout: with the same layers.
      classes: labels.
      epochs, batch_size, lr, weight_decay, seed: of the training.
      progress: called with the number of steps done, one by one.
    """
    share = np.bincount(train.targets, minlength=classes) / len(train.targets)
    both = np.stack([train.targets, control_labels(train.words, share, seed)], axis=1)
    mean, scale = moments(train)
    layers, width = train.vectors.shape[1:]
    batch_size = min(batch_size, len(train.places))
    steps = epochs * (len(train.places) // batch_size)
    tx = optax.adamw(optax.linear_schedule(lr, 0.0, steps), weight_decay=weight_decay)
    shape = (layers, 2, width, classes)
    probes = {"kernel": jnp.zeros(shape, jnp.float32), "bias": jnp.zeros((layers, 2, classes), jnp.float32)}

    def loss(probe: dict[str, Array], x: Float[Array, "B D"], y: Int[Array, " B"]) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(scores(probe, x), y).mean()

    of_tasks = jax.vmap(loss, in_axes=(0, None, 1))  # a layer's vectors serve its task and its control
    of_layers = jax.vmap(of_tasks, in_axes=(0, 1, None))

    @jax.jit
    def step(probes: Any, state: Any, x: Float[Array, "B L D"], y: Int[Array, "B 2"]):
        x = (x - mean[None]) * scale[None]
        gradient = jax.grad(lambda probes: of_layers(probes, x, y).sum())(probes)
        updates, state = tx.update(gradient, state, probes)
        return optax.apply_updates(probes, updates), state

    @jax.jit
    def tell(probes: Any, x: Float[Array, "B L D"]) -> Int[Array, "2 L B"]:
        every = jax.vmap(jax.vmap(scores, (0, None)), (0, 1))(probes, (x - mean[None]) * scale[None])
        return every.argmax(-1).swapaxes(0, 1)

    state = tx.init(probes)
    for number in range(steps):
        elements = np.arange(number * batch_size, (number + 1) * batch_size)
        chosen = draws.in_passes("probe", seed, elements, len(train.places))
        x = train.vectors[train.places[chosen]]
        probes, state = step(probes, state, x, both[chosen])
        progress(number + 1)

    told = []
    for first in range(0, len(heldout.places), 4096):
        places = heldout.places[first : first + 4096]
        padded = np.pad(places, (0, 4096 - len(places)), mode="edge")  # one shape, compiled once
        told.append(np.asarray(tell(probes, heldout.vectors[padded]))[:, :, : len(places)])
    return Told(*np.concatenate(told, axis=2))


def figures(
    train: Labelled, heldout: Labelled, told: Told, classes: int, seed: int = 0
) -> dict[str, float | list[float]]:
    """Accuracy, control accuracy and selectivity of every layer, and two baselines without vectors.

    Returns:
      accuracy, control, selectivity: lists over layers. majority: of the most frequent label. by_type: of the most
      frequent label of each word type in training. best_layer, and best_selectivity_layer.
    """
    share = np.bincount(train.targets, minlength=classes) / len(train.targets)
    expected = control_labels(heldout.words, share, seed)
    accuracy = (told.task == heldout.targets).mean(1)
    control = (told.control == expected).mean(1)
    counts: dict[str, np.ndarray] = {}
    for word, target in zip(train.words, train.targets.tolist()):
        counts.setdefault(word, np.zeros(classes, np.int64))[target] += 1
    majority = int(share.argmax())
    guessed = np.array([int(counts[word].argmax()) if word in counts else majority for word in heldout.words])
    selectivity = accuracy - control
    return {
        "accuracy": accuracy.tolist(),
        "control": control.tolist(),
        "selectivity": selectivity.tolist(),
        "majority": float((heldout.targets == majority).mean()),
        "by_type": float((heldout.targets == guessed).mean()),
        "best_layer": int(accuracy.argmax()),
        "best_selectivity_layer": int(selectivity.argmax()),
        "words": len(heldout.targets),
    }


def span_scores(
    told: Told, labels: Sequence[str], lengths: Sequence[int], tags: Sequence[Sequence[str]]
) -> list[float]:
    """F1 of the spans that the probe of each layer tells, all words of the sentences having labels."""
    edges = np.cumsum([0, *lengths])
    found = []
    for row in told.task.tolist():
        every = [[labels[n] for n in row[start:stop]] for start, stop in itertools.pairwise(edges)]
        found.append(schemes.compare(every, tags)[""].f1)
    return found
