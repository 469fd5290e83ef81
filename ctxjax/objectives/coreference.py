"""The objective of coreference: the probability that a span's antecedent is one of its own entity.

Reference: Lee et al. 2017, section 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.types import Batch, Carry, Forward, Mean, Model, Terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """The model's head "coreference" over the words of a document.

    A batch has beside `inputs` the place of every word's first piece among all positions of the row, `word_places
    [B N]` (-1 behind the last), and the number of its sentence, `word_sentences [B N]`; targets `[B G 3]` are mentions:
    first word, one behind the last, and the number of the entity from 1.
    """

    loss: ClassVar[Mapping[str, float]] = {"antecedent": 1.0}
    perplexity = ()

    def weights(self, batch: Batch) -> Mapping[str, Array]:
        """The number of documents, whose spans are summed."""
        return {"antecedent": jnp.asarray(batch["targets"].shape[0], jnp.float32)}

    def __call__(self, forward: Forward, batch: Batch, carry: Carry = ()) -> tuple[Terms, Carry]:
        """Terms antecedent (minimised), and of all mentions the share that is among the spans kept, mentions_kept."""
        outputs = forward(batch["inputs"], carry)
        ranked = forward.head("coreference", *words_of(outputs.hidden[-1], batch))
        counted = batch["weights"][:, :, 0] > 0
        firsts, stops, entities = (batch["targets"][:, :, column] for column in range(3))
        same = (ranked.starts[:, :, None] == firsts[:, None]) & (ranked.stops[:, :, None] == stops[:, None])
        same = same & counted[:, None] & ranked.valid[:, :, None]
        of_span = jnp.where(same, entities[:, None], 0).max(axis=2)
        total = negative_log_likelihood(ranked.scores, ranked.antecedents, of_span, ranked.valid)
        mentions = counted.sum().astype(jnp.float32)
        kept = same.any(axis=1).sum().astype(jnp.float32)
        weight = self.weights(batch)["antecedent"]
        return {"antecedent": Mean(total, weight), "mentions_kept": Mean(kept, mentions)}, outputs.carry

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one batch: the encoder, and the head for every document."""
        shapes = {name: tuple(leaf.shape) for name, leaf in batch["inputs"].items()}
        rows, words = batch["word_places"].shape
        return model.flops(shapes) + rows * model.readout_flops(words)


def words_of(
    top: Float[Array, "R T D"], batch: Batch
) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"], Int[Array, "B N"]]:
    """States of the words' first pieces, which of them there are, and their sentences."""
    places = batch["word_places"]
    rows = top.reshape(places.shape[0], -1, top.shape[-1])
    words = jnp.take_along_axis(rows, jnp.maximum(places, 0)[:, :, None], axis=1)
    return words, places >= 0, batch["word_sentences"]


def negative_log_likelihood(
    scores: Float[Array, "B M K1"],
    antecedents: Int[Array, "B M K"],
    entities: Int[Array, "B M"],
    valid: Bool[Array, "B M"],
) -> Float[Array, ""]:
    """Summed over spans `-log` of the probability of all antecedents of the same entity, or of none where none is."""
    rows = jnp.arange(len(entities))[:, None, None]
    same = (entities[rows, antecedents] == entities[:, :, None]) & (entities > 0)[:, :, None]
    same = same & (scores[:, :, 1:] > -1e29)
    right = jnp.concatenate([~same.any(axis=-1, keepdims=True), same], axis=-1)
    everything = jax.nn.logsumexp(scores, axis=-1)
    told = jax.nn.logsumexp(jnp.where(right, scores, -1e30), axis=-1)
    return jnp.where(valid, everything - told, 0.0).sum()


def example() -> tuple[Model, Objective, dict[str, Any]]:
    """A tiny BERT with the head, the objective, and four documents of two segments with two entities each."""
    from ctxjax.models import downstream

    options = {"width": 16, "feature_dim": 4, "max_width": 3, "ratio": 0.5, "max_antecedents": 4}
    model = downstream.tiny().clone(task="coreference", labels=(), dropout=0.0, options=options)
    mask = jnp.arange(8)[None, None] < jnp.array([[8, 6], [8, 8], [7, 3], [8, 5]])[:, :, None]
    places = jnp.concatenate([jnp.arange(1, 6), jnp.arange(9, 13)])
    words = jnp.arange(9)[None] < jnp.array([9, 8, 6, 7])[:, None]
    mentions = jnp.array([[0, 1, 1], [2, 4, 2], [5, 6, 1], [0, 0, 0]])
    batch = {
        "inputs": {
            "tokens": jax.random.randint(jax.random.key(0), (4, 2, 8), 5, model.vocab_size),
            "mask": mask,
        },
        "word_places": jnp.where(words, places[None], -1),
        "word_sentences": jnp.broadcast_to((jnp.arange(9) >= 5).astype(jnp.int32)[None], (4, 9)),
        "targets": jnp.broadcast_to(mentions[None], (4, 4, 3)),
        "weights": jnp.broadcast_to((jnp.arange(4) < 3).astype(jnp.float32)[None, :, None], (4, 4, 3)),
    }
    return model, Objective(), batch
