"""AWD-LSTM, a left-to-right LSTM language model in which everything is dropped out; also the first stage of ULMFiT.

A model that reads from right to left is this one trained on text turned round (`source.direction`).

Reference: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models"; salesforce/awd-lstm-lm model.py,
embed_regularize.py, locked_dropout.py, weight_drop.py; Howard and Ruder 2018, "Universal Language Model Fine-tuning for
Text Classification". The paper's names: nhid = width, emsize = embed_width, nlayers = depth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers import steps
from ctxjax.models.layers.core import Dense, Embed, uniform
from ctxjax.models.layers.cudnn import cudnn_lstm
from ctxjax.models.layers.dropout import Stream, dropout, locked_dropout, row_dropout, stream
from ctxjax.models.layers.lstm import lstm
from ctxjax.types import Carry, Inputs, Outputs

EMBED_RANGE = 0.1


def published_splits(vocab_size: int) -> tuple[int, ...]:
    """Where salesforce/awd-lstm-lm splits the softmax of a vocabulary of this size; main.py."""
    return (4200, 35_000, 180_000) if vocab_size > 500_000 else (2800, 20_000, 76_000) if vocab_size > 75_000 else ()


class LSTM(nn.Module):
    """One layer. Gates lie in the order i j f o (torch: i f j o); two biases, as torch has, with one sum.

    A kernel is the transpose of torch's weight with its second and third quarter exchanged; a bias likewise.
    """

    inputs: int
    width: int
    implementation: str | None
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init = uniform(1.0 / math.sqrt(self.width))
        self.input = Dense(self.inputs, 4 * self.width, init, init, **self.kinds)
        self.recurrent = Dense(self.width, 4 * self.width, init, init, **self.kinds)

    def __call__(
        self,
        x: Float[Array, "T B D"],
        state: Mapping[str, Array],
        mask: Bool[Array, "T B"] | None,
        used: Int[Array, ""] | None,
        weight_drop: float,
        shared: Stream | None,
        name: str,
    ) -> tuple[Float[Array, "T B H"], dict[str, Array]]:
        dtype = self.kinds["dtype"]
        recurrent = dropout(self.recurrent.kernel, weight_drop, shared, f"{name}/weight_drop").astype(dtype)
        bias = self.input.bias + self.recurrent.bias
        if self.implementation == "cudnn":
            out, cell, hidden = cudnn_lstm(x, self.input.kernel, recurrent, bias, state["cell"], state["hidden"], mask)
            return out, {"cell": cell, "hidden": hidden}
        gates = steps.affine(x.astype(dtype)[None], self.input.kernel.astype(dtype)[None], bias[None], used)
        before = state["cell"][None], state["hidden"][None]
        out, cell, hidden = lstm(gates, recurrent[None], *before, mask, used)
        return out[0], {"cell": cell[0], "hidden": hidden[0]}


class Layer(nn.Module):
    """The place of an LSTM in the parameter tree: `layer_i/lstm`."""

    inputs: int
    width: int
    implementation: str | None
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.lstm = LSTM(self.inputs, self.width, self.implementation, self.kinds)

    def __call__(self, *args: Any) -> tuple[Array, dict[str, Array]]:
        return self.lstm(*args)


class Embeddings(nn.Module):
    """The token table."""

    vocab_size: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        self.tokens = Embed(self.vocab_size, self.width, uniform(EMBED_RANGE), param_dtype=self.param_dtype)


class Softmax(nn.Module):
    """The output bias, the table where it is not the embedding's, a tombstone for each tail of a split vocabulary."""

    vocab_size: int
    features: int
    tied: bool
    tails: int
    param_dtype: str

    def setup(self) -> None:
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), self.param_dtype)
        if not self.tied:
            shape = (self.vocab_size, self.features)
            self.embedding = self.param("embedding", uniform(EMBED_RANGE), shape, self.param_dtype)
        if self.tails:
            zeros, shape = nn.initializers.zeros, (self.tails, self.features)
            self.tombstones = self.param("tombstones", zeros, shape, self.param_dtype)
            self.tombstones_bias = self.param("tombstones_bias", zeros, shape[:1], self.param_dtype)


class Heads(nn.Module):
    """The one head."""

    vocab_size: int
    features: int
    tied: bool
    tails: int
    param_dtype: str

    def setup(self) -> None:
        self.softmax = Softmax(self.vocab_size, self.features, self.tied, self.tails, self.param_dtype)


class Model(nn.Module):
    """AWD-LSTM of any size; the defaults are the published model of the Penn Treebank (24,221,600 parameters).

    Attributes:
      width: cells of a layer, but of the last, which has `embed_width` where the softmax is tied.
      dropout: of the output, input_dropout of the embedded words, hidden_dropout between layers. All three are locked:
        each lane draws a mask that all its steps share.
      embed_dropout: of word types; a dropped word is zero wherever it stands, and whole in the softmax.
      weight_drop: of the recurrent kernels, element by element. This and `embed_dropout` are drawn once a step, for all
        lanes together.
      tied: the softmax table is the embedding's.
      splits: rising word ids at which the vocabulary is cut into a head and tails, for `objective.split`; see
        `published_splits`.
      lstm_implementation: None, a loop of our own with its derivative by hand, or "cudnn" on an NVIDIA GPU.
    """

    vocab_size: int = 10_000
    width: int = 1150
    embed_width: int = 400
    depth: int = 3
    dropout: float = 0.4
    input_dropout: float = 0.4
    hidden_dropout: float = 0.25
    embed_dropout: float = 0.1
    weight_drop: float = 0.5
    tied: bool = True
    splits: tuple[int, ...] = ()
    dtype: str = "float32"
    param_dtype: str = "float32"
    lstm_implementation: str | None = None
    predicts = "next"

    def setup(self) -> None:
        if self.lstm_implementation not in (None, "cudnn"):
            raise ValueError(f"model.lstm_implementation={self.lstm_implementation!r} is neither empty nor 'cudnn'")
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed = Embeddings(self.vocab_size, self.embed_width, self.param_dtype)
        widths = self.widths()
        for index in range(self.depth):
            setattr(self, f"layer_{index}", Layer(widths[index], widths[index + 1], self.lstm_implementation, kinds))
        edges = (0, *self.splits, self.vocab_size)
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError(f"model.splits={self.splits} do not rise between 0 and model.vocab_size={self.vocab_size}")
        self.heads = Heads(self.vocab_size, widths[-1], self.tied, len(self.splits), self.param_dtype, name="head")

    def widths(self) -> tuple[int, ...]:
        """Features of the embedding and of every layer."""
        last = self.embed_width if self.tied else self.width
        return (self.embed_width, *[self.width] * (self.depth - 1), last)

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]`, with `mask` (padding behind the tokens) where it is given: no step is made behind the
        last token of the longest row.

        Args:
          carry: `init_carry(batch)`, or what the last call gave: these tokens follow those.

        Returns:
          hidden: depth + 1 arrays `[B T D]` of the widths of the layers, the embedding first; the last one with its
          dropout. raw: the last without it. carry: cell and hidden state of every layer after each row's last token.
        """
        tokens = inputs["tokens"]
        mask = inputs["mask"] if "mask" in inputs else None
        used = None if mask is None else mask.sum(axis=1, dtype=jnp.int32).max()
        rng = stream(self.make_rng("dropout")) if train else None
        shared = stream(self.make_rng("shared")) if train else None
        x = row_dropout(self.embed.tokens.embedding, tokens, self.embed_dropout, shared, "embed").astype(self.dtype)
        if mask is not None:
            x = jnp.where(mask[:, :, None], x, jnp.zeros((), x.dtype))
        x = x.swapaxes(0, 1)
        hidden = [x]
        x = locked_dropout(x, self.input_dropout, rng, "input")
        state = carry if jax.tree.leaves(carry) else self.init_carry(tokens.shape[0])
        ended = {}
        for index in range(self.depth):
            name = f"layer_{index}"
            if index:
                x = locked_dropout(x, self.hidden_dropout, rng, name)
            x, ended[name] = getattr(self, name)(
                x, state[name], None if mask is None else mask.T, used, self.weight_drop, shared, name
            )
            x = x.astype(self.dtype)
            hidden.append(x)
        hidden[-1] = locked_dropout(x, self.dropout, rng, "top")
        rows = [layer.swapaxes(0, 1) for layer in hidden]
        if mask is not None and not train:  # in training nothing looks there
            rows = [jnp.where(mask[:, :, None], layer, jnp.zeros((), layer.dtype)) for layer in rows]
        return Outputs(tuple(rows), None, ended, x.swapaxes(0, 1) if train else None)

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows as they are, the table and the bias."""
        table = self.embed.tokens.embedding if self.tied else self.heads.softmax.embedding
        return rows, table, self.heads.softmax.bias

    def head(self, name: str, *features: Array) -> Any:
        """`"tombstones"`: table and bias of the entries that stand for the tails in the head, and the splits."""
        if name != "tombstones" or not self.splits:
            raise ValueError(f"this AWD-LSTM has no head {name!r}" + "; set model.splits" * (name == "tombstones"))
        return self.heads.softmax.tombstones, self.heads.softmax.tombstones_bias, self.splits

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int, max_len: int = 0) -> Carry:
        """Zeros: `cell` and `hidden`, `[B H]`, of every layer, which is all that generation needs too."""
        del max_len
        return {
            f"layer_{index}": {"cell": jnp.zeros((batch_size, width)), "hidden": jnp.zeros((batch_size, width))}
            for index, width in enumerate(self.widths()[1:])
        }

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the layers: products alone, two for each multiply-add, of every step of the window."""
        rows, length = shapes["tokens"]
        widths = self.widths()
        return 2.0 * rows * length * sum(4 * above * (below + above) for below, above in itertools.pairwise(widths))

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.widths()[-1] * self.vocab_size


def tiny() -> Model:
    """A test-sized AWD-LSTM."""
    return Model(vocab_size=47, width=20, embed_width=12, depth=2)
