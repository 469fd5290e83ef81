"""TagLM: a tagger of words that is told, beside words and characters, what frozen language models make of the sentence.

    x = [characters; word]    h1 = biRNN(x)    h2 = biRNN([h1; features])    tags ~ CRF(h2 W + b)

`inputs.features` are the top layers of a forward and a backward language model side by side; they are computed once
and nothing of those models is trained. With `features=0` this is the plain tagger that the paper compares with.

The taggers after it are the same but for where the features go in and what they are: ELMo's reads a learned mix of all
layers beside the word, and perhaps another one at its top; BERT's reads some layers and nothing else, and tells words
apart, without a CRF.

Reference: Peters et al. 2017, "Semi-supervised sequence tagging with bidirectional language models"; Ma and Hovy 2016,
"End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF" for the characters of the chunker; Peters et al. 2018,
"Deep contextualized word representations", section 3.2; Devlin et al. 2019, section 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ctxjax.models.layers import crf
from ctxjax.models.layers.birnn import DIRECTIONS, GATES, Layer
from ctxjax.models.layers.core import Softmax, uniform
from ctxjax.models.layers.dropout import dropout, stream
from ctxjax.models.layers.mix import Mix
from ctxjax.models.layers.spelled import ACTIVATIONS, Embeddings
from ctxjax.text import tags
from ctxjax.types import Carry, Inputs, Outputs

CONSTRAINED = ("never", "decoding", "always")


class Heads(nn.Module):
    """`head/tags` and `head/crf`."""

    tags: int
    features: int
    crf_ends: bool | None  # None: no CRF at all
    param_dtype: str

    def setup(self) -> None:
        self.scores = Softmax(self.tags, self.features, uniform(self.features**-0.5), self.param_dtype, name="tags")
        if self.crf_ends is not None:
            self.crf = crf.Transitions(self.tags, self.param_dtype, self.crf_ends)


class Model(nn.Module):
    """TagLM of any size; the defaults are the published tagger of names.

    Attributes:
      vocab_size: words. embed_width: of a word's row; 0 leaves words out.
      labels: the tags, by number.
      features: width of the language models' vectors; 0 for none.
      features_at: the layers to whose outputs they are joined: 1 in TagLM; 0, the token layer, in ELMo's taggers; 0 and
        `depth` where ELMo is given at the output, too.
      feature_layers: where `inputs.features` has an axis of layers, how many; else 0.
      combine: of those layers: "mix", a learned one for each of `features_at`, or "concat", side by side.
      mix_norm: layers are normalised over the batch before they are mixed; see `layers/mix.py`.
      cell: "gru" (names) or "lstm" (chunks), of `width` each way.
      chars: "gru", of `char_width` each way; "cnn", `char_width` filters over 3 characters, with `char_activation`; or
        "none".
      dropout: on the input of every recurrent layer and of the dense one.
      scheme: of the labels; "" for tags that say no spans.
      crf: a chain over the tags of a sentence; without it every word is told apart.
      crf_ends: the chain has scores for the first and the last tag of a sentence, which AllenNLP's tagger has not.
      constrained: where steps that the scheme does not have are forbidden: "never", in "decoding" alone (AllenNLP), or
        "always", in training, too.
    """

    vocab_size: int
    labels: tuple[str, ...] = ()
    width: int = 300
    embed_width: int = 50
    depth: int = 2
    features: int = 0
    features_at: tuple[int, ...] = (1,)
    feature_layers: int = 0
    combine: str = "mix"
    mix_norm: bool = False
    cell: str = "gru"
    chars: str = "gru"
    char_dim: int = 25
    char_width: int = 80
    char_activation: str = "tanh"
    max_chars: int = 50
    scheme: str = "BIOES"
    crf: bool = True
    crf_ends: bool = True
    constrained: str = "never"
    dropout: float = 0.25
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "tags"

    def setup(self) -> None:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for field, value, known in (
            ("cell", self.cell, tuple(GATES)),
            ("chars", self.chars, ("gru", "cnn", "none")),
            ("char_activation", self.char_activation, tuple(ACTIVATIONS)),
            ("combine", self.combine, ("mix", "concat")),
            ("constrained", self.constrained, CONSTRAINED),
        ):
            if value not in known:
                raise ValueError(f"model.{field}={value!r} is none of {', '.join(map(repr, known))}")
        if len(self.labels) < 2:
            raise ValueError(f"model.labels={self.labels} are not two tags or more")
        if self.constrained != "never" and not (self.crf and self.scheme in tags.SCHEMES):
            raise ValueError(
                f"model.constrained={self.constrained!r} needs model.crf and model.scheme={self.scheme!r} to be one of "
                f"{', '.join(tags.SCHEMES)}"
            )
        if self.features and not (self.features_at and all(0 <= place <= self.depth for place in self.features_at)):
            raise ValueError(
                f"model.features are joined to the layers model.features_at={self.features_at}, of 0 to model.depth="
                f"{self.depth}: change one, or set model.features=0"
            )
        if not self.widths()[0]:
            raise ValueError("model.embed_width=0 and model.chars='none' leave nothing to read: set features_at=(0,)")
        self.embed = Embeddings(
            self.vocab_size, self.embed_width, self.chars, self.char_activation, self.char_dim, self.char_width,
            self.max_chars, kinds,
        )  # fmt: skip
        for index, inputs in enumerate(self.widths()[:-1]):
            setattr(self, f"layer_{index}", Layer(self.cell, inputs, self.width, kinds))
        for place in self._mixed():
            setattr(self, f"mix_{place}", Mix(self.feature_layers, self.mix_norm, self.param_dtype))
        ends = self.crf_ends if self.crf else None
        self.heads = Heads(len(self.labels), self.widths()[-1], ends, self.param_dtype, name="head")

    @property
    def couples_rows(self) -> bool:
        """Whether rows of a batch influence one another, which they do where layers are normalised over it."""
        return bool(self.mix_norm and self._mixed())

    def _mixed(self) -> tuple[int, ...]:
        """The layers that have a mix of their own."""
        return self.features_at if self.features and self.feature_layers and self.combine == "mix" else ()

    def widths(self) -> tuple[int, ...]:
        """Features of the token layer and of every recurrent one, with what is joined to them."""
        of_chars = {"gru": DIRECTIONS * self.char_width, "cnn": self.char_width, "none": 0}[self.chars]
        joined = self.features * (max(1, self.feature_layers) if self.combine == "concat" else 1)
        plain = (of_chars + self.embed_width, *[DIRECTIONS * self.width] * self.depth)
        return tuple(width + (joined if place in self.features_at else 0) for place, width in enumerate(plain))

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]`, `chars [B T C]`, `features [B T F]` or `[B T L F]` and `mask [B T]`, padding behind the
        words.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the token layer first, of the widths of `widths`.
        """
        del carry
        mask = inputs.get("mask")
        if self.features and "features" not in inputs:
            raise ValueError(f"model.features={self.features} needs inputs.features, vectors of every word")
        rng = stream(self.make_rng("dropout")) if train else None
        x = self._joined(self.embed(inputs), 0, inputs)
        hidden = [x]
        for index in range(self.depth):
            x = getattr(self, f"layer_{index}")(dropout(x, self.dropout, rng, f"layer_{index}"), mask)
            x = self._joined(x.astype(self.dtype), index + 1, inputs)
            hidden.append(x)
        hidden[-1] = dropout(x, self.dropout, rng, "top")
        if mask is not None:
            hidden = [jnp.where(mask[:, :, None], layer, jnp.zeros((), layer.dtype)) for layer in hidden]
        return Outputs(tuple(hidden))

    def _joined(self, x: Float[Array, "B T D"], place: int, inputs: Inputs) -> Float[Array, "B T E"]:
        """The output of a layer beside the features that are given there."""
        if not self.features or place not in self.features_at:
            return x
        features = inputs["features"].astype(x.dtype)
        if place in self._mixed():
            layers = [features[:, :, layer] for layer in range(self.feature_layers)]
            features = getattr(self, f"mix_{place}")(layers, inputs.get("mask"))
        features = features.reshape(*x.shape[:2], -1)  # layers side by side, where they are not mixed
        return jnp.concatenate([x, features], axis=-1)

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, one row a tag, and the bias of every tag."""
        return rows, self.heads.scores.embedding, self.heads.scores.bias

    def head(self, name: str, *features: Array) -> Any:
        """What owns parameters behind the layers.

        `"scores"` of (top layer): `[B T N]`; `"crf"` of (top layer, mask, tags): `-log p(tags)` of every row; `"tags"`
        of (top layer, mask): the best path, or without a CRF the best tag of every word; `"mix"` of (): the raw
        weights of all mixes.
        """
        if name == "scores":
            return self._emissions(*features)
        if name == "crf" and self.crf:
            top, mask, targets = features
            return crf.negative_log_likelihood(self._emissions(top), self._chain("always"), targets, mask)
        if name == "tags":
            top, mask = features
            if not self.crf:
                return jnp.where(mask, self._emissions(top).argmax(-1), 0)
            return crf.viterbi(self._emissions(top), self._chain("decoding", "always"), mask)[0]
        if name == "mix" and self._mixed():
            return jnp.concatenate([getattr(self, f"mix_{place}").weights for place in self._mixed()])
        known = ["'scores'", *["'crf'"] * self.crf, "'tags'", *["'mix'"] * bool(self._mixed())]
        raise ValueError(f"this tagger has no head {name!r}; it has {', '.join(known)}")

    def _emissions(self, top: Float[Array, "B T D"]) -> Float[Array, "B T N"]:
        rows, table, bias = self.readout(top.reshape(-1, top.shape[-1]))
        scores = rows @ table.astype(rows.dtype).T + jnp.broadcast_to(bias.astype(rows.dtype), (len(rows), len(bias)))
        return scores.reshape(*top.shape[:2], -1)

    def _chain(self, *constrained: str) -> crf.Chain:
        chain = self.heads.crf()
        if self.constrained not in constrained:
            return chain
        within, start, end = tags.allowed(self.labels, self.scheme)
        return crf.constrain(chain, (jnp.asarray(within), jnp.asarray(start), jnp.asarray(end)))

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        top = self(inputs).hidden[-1]
        if not self.crf:
            return self.head("scores", top)
        targets: Int[Array, "B T"] = jnp.zeros(top.shape[:2], jnp.int32)
        return self.head("crf", top, jnp.ones(top.shape[:2], bool), targets)

    def init_carry(self, batch_size: int) -> Carry:
        """No state: a sentence is a row."""
        del batch_size
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs, products alone, two for each multiply-add, of every position of the rows."""
        rows, length = shapes["tokens"]
        word = 0
        if self.chars == "cnn":
            word = (self.max_chars - 2) * 3 * self.char_dim * self.char_width
        elif self.chars == "gru":
            word = self.max_chars * DIRECTIONS * 3 * self.char_width * (self.char_dim + self.char_width)
        gates = GATES[self.cell] * self.width
        word += sum(DIRECTIONS * gates * (inputs + self.width) for inputs in self.widths()[:-1])
        return 2.0 * rows * length * word

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the scores of all tags for `rows` words."""
        return 2.0 * rows * self.widths()[-1] * len(self.labels)


def tiny() -> Model:
    """A test-sized TagLM without language models."""
    labels = tags.known_tags(("A", "B"), "BIOES")
    return Model(
        vocab_size=31, labels=labels, width=8, embed_width=6, chars="cnn", char_dim=4, char_width=5, max_chars=12
    )
