"""TagLM: a tagger of words that is told, beside words and characters, what frozen language models make of the sentence.

    x = [characters; word]    h1 = biRNN(x)    h2 = biRNN([h1; features])    tags ~ CRF(h2 W + b)

`inputs.features` are the top layers of a forward and a backward language model side by side; they are computed once
and nothing of those models is trained. With `features=0` this is the plain tagger that the paper compares with.

Reference: Peters et al. 2017, "Semi-supervised sequence tagging with bidirectional language models"; Ma and Hovy 2016,
"End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF" for the characters of the chunker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers import char_cnn, crf, steps
from ctxjax.models.layers.core import Embed, Softmax, uniform
from ctxjax.models.layers.dropout import dropout, stream
from ctxjax.models.layers.encoders import Convolution
from ctxjax.models.layers.gru import gru
from ctxjax.models.layers.lstm import lstm
from ctxjax.models.layers.turning import pick, turned_places
from ctxjax.text import characters, tags
from ctxjax.types import Carry, Inputs, Outputs

DIRECTIONS = 2
GATES = {"gru": 3, "lstm": 4}


class RNN(nn.Module):
    """A GRU or LSTM in both directions; the direction is the first axis of every parameter."""

    cell: str
    inputs: int
    width: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init, kind, gates = uniform(self.width**-0.5), self.kinds["param_dtype"], GATES[self.cell] * self.width
        self.input_kernel = self.param("input_kernel", init, (DIRECTIONS, self.inputs, gates), kind)
        self.recurrent_kernel = self.param("recurrent_kernel", init, (DIRECTIONS, self.width, gates), kind)
        self.bias = self.param("bias", init, (DIRECTIONS, gates), kind)
        if self.cell == "gru":
            self.recurrent_bias = self.param("recurrent_bias", init, (DIRECTIONS, self.width), kind)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T W"]:
        """Every step forward beside backward; behind a row's last step anything may stand."""
        dtype = self.kinds["dtype"]
        turned = turned_places(x.shape[1], mask, x.shape[0])
        used = None if mask is None else mask.sum(axis=1, dtype=jnp.int32).max()
        both = jnp.stack([x, pick(x, turned)]).swapaxes(1, 2)
        gates = steps.affine(both, self.input_kernel.astype(dtype), self.bias.astype(dtype), used)
        state = jnp.zeros((DIRECTIONS, x.shape[0], self.width), jnp.float32)
        recurrent = self.recurrent_kernel.astype(dtype)
        if self.cell == "gru":
            out = gru(gates, recurrent, self.recurrent_bias.astype(dtype), state, used=used)[0]
        else:
            out = lstm(gates, recurrent, state, state, used=used)[0]
        out = out.swapaxes(1, 2)
        return jnp.concatenate([out[0], pick(out[1], turned)], axis=-1)


class Layer(nn.Module):
    """The place of a recurrent layer in the parameter tree: `layer_i/rnn`."""

    cell: str
    inputs: int
    width: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.rnn = RNN(self.cell, self.inputs, self.width, self.kinds)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T W"]:
        return self.rnn(x, mask)


class Embeddings(nn.Module):
    """Words from a table beside words from their characters."""

    vocab_size: int
    width: int
    chars: str
    char_dim: int
    char_width: int
    max_chars: int
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        kind = self.kinds["param_dtype"]
        self.tokens = Embed(self.vocab_size, self.width, uniform(math.sqrt(3.0 / self.width)), param_dtype=kind)
        if self.chars != "none":
            init = uniform(math.sqrt(3.0 / self.char_dim))
            self.char_table = Embed(characters.NUM_CHARS, self.char_dim, init, param_dtype=kind, name="chars")
        if self.chars == "cnn":
            self.conv_3 = Convolution(3, self.char_dim, self.char_width, "tanh", kind)
        elif self.chars == "gru":
            self.char_rnn = RNN("gru", self.char_dim, self.char_width, self.kinds)

    def __call__(self, inputs: Inputs) -> Float[Array, "B T E"]:
        words = self.tokens(inputs["tokens"]).astype(self.kinds["dtype"])
        if self.chars == "none":
            return words
        chars = inputs["chars"]
        if chars.shape[-1] != self.max_chars:
            raise ValueError(f"words of {chars.shape[-1]} characters, where model.max_chars={self.max_chars}")
        rows = chars.reshape(-1, self.max_chars)
        embedded = self.char_table(rows).astype(self.kinds["dtype"])
        if self.chars == "cnn":
            made = char_cnn.convolve(embedded[None], (self.conv_3.kernel.astype(embedded.dtype),))[0]
            made = jnp.tanh(made + jnp.broadcast_to(self.conv_3.bias.astype(made.dtype), made.shape))
        else:
            # The last state of each direction: forward at the end of the word, backward at its beginning.
            there = rows != characters.PAD
            out = self.char_rnn(embedded, there)
            last = jnp.maximum(there.sum(1) - 1, 0)
            forward = jnp.take_along_axis(out, last[:, None, None], axis=1)[:, 0, : self.char_width]
            made = jnp.concatenate([forward, out[:, 0, self.char_width :]], axis=-1)
        return jnp.concatenate([made.reshape(*words.shape[:2], -1).astype(words.dtype), words], axis=-1)


class Heads(nn.Module):
    """`head/tags` and `head/crf`."""

    tags: int
    features: int
    param_dtype: str

    def setup(self) -> None:
        self.scores = Softmax(self.tags, self.features, uniform(self.features**-0.5), self.param_dtype, name="tags")
        self.crf = crf.Transitions(self.tags, self.param_dtype)


class Model(nn.Module):
    """TagLM of any size; the defaults are the published tagger of names.

    Attributes:
      vocab_size: words. embed_width: of a word's row.
      labels: the tags, by number.
      features: width of the language models' vectors, which are joined to the output of the first layer; 0 for none.
      cell: "gru" (names) or "lstm" (chunks), of `width` each way.
      chars: "gru", of `char_width` each way; "cnn", `char_width` filters over 3 characters; or "none".
      dropout: on the input of every recurrent layer and of the dense one.
      scheme: of the labels; "" for tags that say no spans.
      constrained: steps that the scheme does not have are forbidden, in training and in use.
    """

    vocab_size: int
    labels: tuple[str, ...] = ()
    width: int = 300
    embed_width: int = 50
    depth: int = 2
    features: int = 0
    cell: str = "gru"
    chars: str = "gru"
    char_dim: int = 25
    char_width: int = 80
    max_chars: int = 50
    scheme: str = "BIOES"
    constrained: bool = False
    dropout: float = 0.25
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "tags"

    def setup(self) -> None:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.cell not in GATES:
            raise ValueError(f"model.cell={self.cell!r} is neither 'gru' nor 'lstm'")
        if self.chars not in ("gru", "cnn", "none"):
            raise ValueError(f"model.chars={self.chars!r} is none of 'gru', 'cnn' and 'none'")
        if len(self.labels) < 2:
            raise ValueError(f"model.labels={self.labels} are not two tags or more")
        if self.constrained and self.scheme not in tags.SCHEMES:
            raise ValueError(
                f"model.constrained needs model.scheme={self.scheme!r} to be one of {', '.join(tags.SCHEMES)}"
            )
        if self.features and self.depth < 2:
            raise ValueError("model.features are read by the second layer: set model.depth to 2 or more, or features=0")
        self.embed = Embeddings(
            self.vocab_size, self.embed_width, self.chars, self.char_dim, self.char_width, self.max_chars, kinds
        )
        for index, inputs in enumerate(self._inputs()):
            setattr(self, f"layer_{index}", Layer(self.cell, inputs, self.width, kinds))
        self.heads = Heads(len(self.labels), self.widths()[-1], self.param_dtype, name="head")

    def widths(self) -> tuple[int, ...]:
        """Features of the token layer and of every recurrent one."""
        of_chars = {"gru": DIRECTIONS * self.char_width, "cnn": self.char_width, "none": 0}[self.chars]
        return (of_chars + self.embed_width, *[DIRECTIONS * self.width] * self.depth)

    def _inputs(self) -> list[int]:
        """Features that each recurrent layer reads."""
        return [width + (self.features if index == 1 else 0) for index, width in enumerate(self.widths()[:-1])]

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]`, `chars [B T C]`, `features [B T F]` and `mask [B T]`, padding behind the words.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the token layer first, of the widths of `widths`.
        """
        del carry
        mask = inputs.get("mask")
        if self.features and "features" not in inputs:
            raise ValueError(f"model.features={self.features} needs inputs.features, vectors of every word")
        rng = stream(self.make_rng("dropout")) if train else None
        x = self.embed(inputs)
        hidden = [x]
        for index in range(self.depth):
            if index == 1 and self.features:
                x = jnp.concatenate([x, inputs["features"].astype(x.dtype)], axis=-1)
            x = getattr(self, f"layer_{index}")(dropout(x, self.dropout, rng, f"layer_{index}"), mask)
            x = x.astype(self.dtype)
            hidden.append(x)
        hidden[-1] = dropout(x, self.dropout, rng, "top")
        if mask is not None:
            hidden = [jnp.where(mask[:, :, None], layer, jnp.zeros((), layer.dtype)) for layer in hidden]
        return Outputs(tuple(hidden))

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, one row a tag, and the bias of every tag."""
        return rows, self.heads.scores.embedding, self.heads.scores.bias

    def head(self, name: str, *features: Array) -> Any:
        """`"crf"` of (top layer, mask, tags): `-log p(tags)` of every row; `"viterbi"` of (top layer, mask): tags."""
        if name == "crf":
            top, mask, targets = features
            return crf.negative_log_likelihood(self._emissions(top), self._chain(), targets, mask)
        if name == "viterbi":
            top, mask = features
            return crf.viterbi(self._emissions(top), self._chain(), mask)[0]
        raise ValueError(f"taglm has no head {name!r}; it has 'crf' and 'viterbi'")

    def _emissions(self, top: Float[Array, "B T D"]) -> Float[Array, "B T N"]:
        rows, table, bias = self.readout(top.reshape(-1, top.shape[-1]))
        scores = rows @ table.astype(rows.dtype).T + jnp.broadcast_to(bias.astype(rows.dtype), (len(rows), len(bias)))
        return scores.reshape(*top.shape[:2], -1)

    def _chain(self) -> crf.Chain:
        chain = self.heads.crf()
        if not self.constrained:
            return chain
        within, start, end = tags.allowed(self.labels, self.scheme)
        return crf.constrain(chain, (jnp.asarray(within), jnp.asarray(start), jnp.asarray(end)))

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        top = self(inputs).hidden[-1]
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
        word += sum(DIRECTIONS * gates * (inputs + self.width) for inputs in self._inputs())
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
