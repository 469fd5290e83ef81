"""The head of coreference as span ranking: every span of words is a mention by its score, and its antecedent is an
earlier span or none.

    g = [start; end; attended head word; width]        s(i, none) = 0
    s(i, j) = m(g_i) + m(g_j) + g_i W g_j + a([g_i; g_j; g_i * g_j; distance])

Of all spans of up to `max_width` words within a sentence the `ratio * words` with the best m are kept, and of their
antecedents the `max_antecedents` that are best without `a`.

Reference: Lee et al. 2017, "End-to-end Neural Coreference Resolution", sections 3 and 4; Lee et al. 2018, "Higher-order
Coreference Resolution with Coarse-to-fine Inference", section 4. Joshi et al. 2019 for an encoder that is fine-tuned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.core import Dense, Embed
from ctxjax.models.layers.dropout import Stream, dropout, stream, substream
from ctxjax.types import Outputs

BUCKETS = (1, 2, 3, 4, 5, 8, 16, 32, 64)  # distances, in spans, at which one begins
NEVER = -1e30


class Ranked(NamedTuple):
    """The spans that are kept, by their place in the document, and how each is linked.

    Attributes:
      starts, stops: `[B M]`, first word and one behind the last.
      valid: `[B M]`, whether this is a span at all.
      antecedents: `[B M K]`, earlier spans by number.
      scores: `[B M K+1]`, of no antecedent, which is 0, and of each.
    """

    starts: Int[Array, "B M"]
    stops: Int[Array, "B M"]
    valid: Bool[Array, "B M"]
    antecedents: Int[Array, "B M K"]
    scores: Float[Array, "B M K1"]


class Scorer(nn.Module):
    """Hidden layers with ReLU and dropout, and one number."""

    features: int
    width: int
    depth: int
    dropout: float
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        for number in range(self.depth):
            layer = Dense(self.width if number else self.features, self.width, **self.kinds)
            setattr(self, f"layer_{number}", layer)
        self.out = Dense(self.width, 1, **self.kinds)

    def __call__(self, x: Float[Array, "... D"], rng: Stream | None) -> Float[Array, ...]:
        return self.out(self.hidden(x, rng))[..., 0].astype(jnp.float32)

    def hidden(self, x: Float[Array, "... D"], rng: Stream | None = None) -> Float[Array, "... H"]:
        """What the number is made of."""
        for number in range(self.depth):
            layer = getattr(self, f"layer_{number}")
            x = dropout(jax.nn.relu(layer(x)), self.dropout, rng, f"layer_{number}")
        return x


class Coreference(nn.Module):
    """Spans and links between them; the defaults are those of Lee et al. 2018.

    Attributes:
      features: width of a word. outcomes: not used.
      dropout: in the scorers.
      width, depth: of their hidden layers.
      feature_dim: of the rows for widths and distances.
      max_width: words of a span.
      ratio: spans that are kept, for each word of a row.
      max_antecedents: of a span.
    """

    features: int
    outcomes: int
    kinds: Mapping[str, Any]
    dropout: float = 0.2
    width: int = 150
    depth: int = 2
    feature_dim: int = 20
    max_width: int = 30
    ratio: float = 0.4
    max_antecedents: int = 50

    def setup(self) -> None:
        kind = self.kinds["param_dtype"]
        self.widths = Embed(self.max_width, self.feature_dim, param_dtype=kind)
        self.distances = Embed(len(BUCKETS), self.feature_dim, param_dtype=kind)
        for name, features in self._scorers().items():
            setattr(self, name, Scorer(features, self.width, self.depth, self.dropout, self.kinds))
        size = self.span_features()
        self.coarse = Dense(size, size, use_bias=False, **self.kinds)

    def span_features(self) -> int:
        """Width of g."""
        return 3 * self.features + self.feature_dim

    def _scorers(self) -> dict[str, int]:
        size = self.span_features()
        return {"attention": self.features, "mention": size, "antecedent": 3 * size + self.feature_dim}

    def kept(self, words: int) -> tuple[int, int]:
        """How many spans and antecedents there are for a row of so many words."""
        spans = max(1, min(math.ceil(self.ratio * words), words * self.max_width))
        return spans, min(self.max_antecedents, spans)

    def __call__(self, words: Float[Array, "B N D"], mask: Bool[Array, "B N"], sentences: Int[Array, "B N"]) -> Ranked:
        """Rank spans of the words where `mask` is; none goes over the end of its sentence."""
        rng = substream(stream(self.make_rng("dropout")), "task") if self.has_rng("shared") else None
        count = words.shape[1]
        spans, valid = self._spans(words, mask, sentences, rng)
        scores = jnp.where(valid, self.mention(spans, _part(rng, "mention")), NEVER)
        flat = scores.reshape(len(words), -1)
        kept, several = self.kept(count)
        chosen = jnp.sort(jax.lax.top_k(flat, kept)[1], axis=1)  # by start, then by end
        best = jnp.take_along_axis(flat, chosen, axis=1)
        vectors = jnp.take_along_axis(spans.reshape(len(words), -1, spans.shape[-1]), chosen[:, :, None], axis=1)
        starts, stops = chosen // self.max_width, chosen // self.max_width + chosen % self.max_width + 1
        antecedents, links = self._antecedents(vectors, best, several, rng)
        none = jnp.zeros((*chosen.shape, 1), jnp.float32)
        return Ranked(starts, stops, best > NEVER / 2, antecedents, jnp.concatenate([none, links], axis=-1))

    def _spans(
        self, words: Float[Array, "B N D"], mask: Bool[Array, "B N"], sentences: Int[Array, "B N"], rng: Stream | None
    ) -> tuple[Float[Array, "B N W G"], Bool[Array, "B N W"]]:
        """g of every start and width, and which of them are spans."""
        count, widest = words.shape[1], self.max_width
        places = jnp.arange(count)[:, None] + jnp.arange(widest)[None, :]
        inside, places = places < count, jnp.minimum(places, count - 1)
        there = inside[None] & mask[:, places] & mask[:, :, None] & (sentences[:, places] == sentences[:, :, None])
        windows = words[:, places]
        heads = jnp.where(there, self.attention(words, _part(rng, "attention"))[:, places], NEVER)
        within = jnp.tril(jnp.ones((widest, widest), bool))[None, None]  # of a width the offsets
        shares = jax.nn.softmax(jnp.where(within, heads[:, :, None, :], NEVER), axis=-1)
        attended = jnp.einsum("bnwo,bnod->bnwd", shares.astype(words.dtype), windows)
        shape = (*windows.shape[:3], -1)
        widths = jnp.broadcast_to(self.widths.embedding[None, None].astype(words.dtype), (*shape[:3], self.feature_dim))
        begins = jnp.broadcast_to(words[:, :, None], windows.shape)
        return jnp.concatenate([begins, windows, attended, widths], axis=-1), there

    def _antecedents(
        self, vectors: Float[Array, "B M G"], scores: Float[Array, "B M"], several: int, rng: Stream | None
    ) -> tuple[Int[Array, "B M K"], Float[Array, "B M K"]]:
        count = vectors.shape[1]
        left = dropout(self.coarse(vectors), self.dropout, rng, "coarse")
        coarse = jnp.einsum("big,bjg->bij", left, vectors).astype(jnp.float32)
        coarse = coarse + scores[:, :, None] + scores[:, None, :]
        numbers = jnp.arange(count)
        earlier = (numbers[None, :] < numbers[:, None])[None] & (scores > NEVER / 2)[:, None, :]
        best, chosen = jax.lax.top_k(jnp.where(earlier, coarse, NEVER), several)
        rows = jnp.arange(len(vectors))[:, None, None]
        others = vectors[rows, chosen]
        ours = jnp.broadcast_to(vectors[:, :, None], others.shape)
        distance = jnp.maximum(numbers[None, :, None] - chosen, 1)
        bucket = (distance[..., None] >= jnp.array(BUCKETS)[None, None, None]).sum(-1) - 1
        apart = self.distances(bucket).astype(vectors.dtype)
        pairs = jnp.concatenate([ours, others, ours * others, apart], axis=-1)
        fine = self.antecedent(pairs, _part(rng, "antecedent"))
        return chosen, jnp.where(best > NEVER / 2, best + fine, NEVER)

    def readout(self, rows: Float[Array, "R D"]) -> tuple[Array, Array, Array]:
        """What the score of a head word is made of, one row, and its bias."""
        return self.attention.hidden(rows), self.attention.out.kernel.T, self.attention.out.bias

    def touch(self, outputs: Outputs) -> Array:
        """Make every parameter."""
        words = outputs.hidden[-1]
        shape = words.shape[:2]
        ranked = self(words, jnp.ones(shape, bool), jnp.zeros(shape, jnp.int32))
        return jnp.where(ranked.scores > NEVER / 2, ranked.scores, 0.0)

    def products(self, rows: int) -> int:
        """Multiply-adds for one document of so many words."""
        size, (kept, several) = self.span_features(), self.kept(rows)
        behind = (self.depth - 1) * self.width**2 + self.width
        attention, mention, antecedent = (features * self.width + behind for features in self._scorers().values())
        spans = rows * self.max_width
        found = rows * attention + spans * self.max_width * self.features + spans * mention
        return found + kept * size**2 + kept**2 * size + kept * several * antecedent


def _part(rng: Stream | None, name: str) -> Stream | None:
    return None if rng is None else substream(rng, name)
