"""ULMFiT's third stage: a classifier of texts on an AWD-LSTM.

    v = [last; max; mean] of h_1, ..., h_T      z = relu(W drop(bn(v)) + b)      label ~ softmax(U drop(bn(z)) + c)

A text is read in windows of `bptt` words, each with dropout masks of its own; the state goes on from window to window,
its gradient does not. Of a long text the last `windows` are kept, the ones before make the state.

The encoder's parameters have the paths of the language model's (`embed/...`, `layer_0/...`), so `init_from` needs no
more than the run of the second stage; what is new lies under `task/classify`.

Reference: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3; fastai
0.7, lm_rnn.py, MultiBatchRNN and PoolingLinearClassifier; fastai 2, text/models/core.py, SentenceEncoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.models.layers.batch_norm import BatchNorm
from ctxjax.models.layers.core import Dense, uniform
from ctxjax.models.layers.dropout import dropout, stream
from ctxjax.types import Carry, Inputs, Outputs

PADDING = ("front", "behind")
POOLS = 3


class Classify(nn.Module):
    """`task/classify`: two blocks of batch normalisation, dropout and a linear layer, as torch initialises them."""

    features: int
    hidden_width: int
    labels: int
    dropouts: tuple[float, float]
    param_dtype: str

    def setup(self) -> None:
        kind = self.param_dtype
        self.pooled_norm = BatchNorm(self.features, param_dtype=kind)
        first, second = uniform(self.features**-0.5), uniform(self.hidden_width**-0.5)
        self.hidden = Dense(self.features, self.hidden_width, first, first, param_dtype=kind)
        self.hidden_norm = BatchNorm(self.hidden_width, param_dtype=kind)
        self.labels_out = Dense(self.hidden_width, self.labels, second, second, param_dtype=kind, name="labels")

    def __call__(self, pooled: Float[Array, "B P"]) -> Float[Array, "B W"]:
        """What the last product is given."""
        train = self.has_rng("shared")
        rng = stream(self.make_rng("dropout")) if train else None
        x = dropout(self.pooled_norm(pooled, train), self.dropouts[0], rng, "pooled")
        x = jax.nn.relu(self.hidden(x))
        return dropout(self.hidden_norm(x, train), self.dropouts[1], rng, "hidden")


class Task(nn.Module):
    """The place of the head in the parameter tree."""

    fields: Mapping[str, Any]

    def setup(self) -> None:
        self.classify = Classify(**self.fields)


class Model(nn.Module):
    """A classifier on an AWD-LSTM of any size.

    Attributes:
      encoder: `name` ("awd_lstm") and fields of the encoder; those of a run that `init_from` names come from there.
      labels: the labels, by number.
      bptt: words of a window.
      windows: how many windows at the end of a text are kept.
      padding: "front": as released: a text has its padding in front, up to the longest of the batch, which is read and
        pooled like words (as `<S>`, which no text has), and windows are of the batch. "behind": windows begin with
        the text and padding is masked, as in fastai 2. The rows that the model is given have it behind in any case.
      hidden_width: of the layer between.
      dropout: on the pooled vector. hidden_dropout: behind the layer between.
    """

    encoder: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    bptt: int = 70
    windows: int = 20
    padding: str = "front"
    hidden_width: int = 50
    dropout: float = 0.4
    hidden_dropout: float = 0.1
    couples_rows = True

    def setup(self) -> None:
        if len(self.labels) < 2:
            raise ConfigError(f"config.model.labels={self.labels} are not two or more to choose from")
        if self.padding not in PADDING:
            raise ConfigError(f"config.model.padding={self.padding!r} is neither 'front' nor 'behind'")
        if min(self.bptt, self.windows) < 1:
            raise ConfigError("config.model.bptt and config.model.windows are 1 or more")
        self.body = configs.build("model", self.encoder)
        nn.share_scope(self, self.body)
        fields = {
            "features": POOLS * self.widths()[-1],
            "hidden_width": self.hidden_width,
            "labels": len(self.labels),
            "dropouts": (self.dropout, self.hidden_dropout),
            "param_dtype": self.body.param_dtype,
        }
        self.task = Task(fields)

    def _encoder(self) -> Any:
        return configs.build("model", self.encoder, parent=None)

    @property
    def vocab_size(self) -> int:
        """Of the encoder."""
        return self._encoder().vocab_size

    @property
    def depth(self) -> int:
        """Of the encoder."""
        return self._encoder().depth

    def widths(self) -> tuple[int, ...]:
        """Features of every layer."""
        return self._encoder().widths()

    def features(self) -> int:
        """Width of the pooled vector."""
        return POOLS * self.widths()[-1]

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]` with `mask [B T]`, the padding behind the text.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, as they were read: with `padding="front"` a row ends where the batch's
            longest does. pooled: `[B 1 3D]`.
        """
        del carry  # a text begins from nothing
        tokens, mask = self._placed(inputs)
        rows, length = tokens.shape
        count = -(-length // self.bptt)
        behind = ((0, 0), (0, count * self.bptt - length))
        windows = [jnp.pad(leaf, behind).reshape(rows, count, self.bptt).swapaxes(0, 1) for leaf in (tokens, mask)]

        def read(body: Any, state: Carry, window: tuple[Array, Array]) -> tuple[Carry, tuple[Array, ...]]:
            outputs = body({"tokens": window[0], "mask": window[1]}, state, train)
            return jax.lax.stop_gradient(outputs.carry), outputs.hidden

        scan = nn.scan(read, variable_broadcast="params", split_rngs={"dropout": True, "shared": True})
        _, layers = scan(self.body, self.body.init_carry(rows), tuple(windows))
        hidden = tuple(leaf.swapaxes(0, 1).reshape(rows, -1, leaf.shape[-1])[:, :length] for leaf in layers)
        return Outputs(hidden, self._pooled(hidden[-1], mask)[:, None])

    def _placed(self, inputs: Inputs) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
        """Tokens and what is read of them: the text, or all up to the longest, where padding is words too."""
        tokens = inputs["tokens"]
        mask = inputs.get("mask")
        mask = jnp.ones(tokens.shape, bool) if mask is None else mask
        if self.padding == "behind":
            return tokens, mask
        lengths = mask.sum(axis=1, dtype=jnp.int32)
        longest = lengths.max()
        places = jnp.arange(tokens.shape[1])[None]
        source = places - (longest - lengths)[:, None]
        moved = jnp.take_along_axis(tokens, jnp.maximum(source, 0), axis=1)
        return jnp.where(source >= 0, moved, 0), jnp.broadcast_to(places < longest, tokens.shape)

    def _kept(self, mask: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
        """Where outputs are kept, of what is read."""
        lengths = mask.sum(axis=1, dtype=jnp.int32)[:, None]
        start = jnp.arange(mask.shape[1])[None] // self.bptt * self.bptt  # of each place's window
        if self.padding == "front":
            return mask & (start > lengths - self.windows * self.bptt)
        return mask & (start // self.bptt >= -(-lengths // self.bptt) - self.windows)

    def _pooled(self, top: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B P"]:
        kept = self._kept(mask)[:, :, None]
        last = jnp.maximum(mask.sum(axis=1, dtype=jnp.int32) - 1, 0)[:, None, None]
        top = top.astype(jnp.float32)
        mean = jnp.where(kept, top, 0.0).sum(1) / jnp.maximum(kept.sum(1), 1)
        largest = jnp.where(kept.any(1), jnp.where(kept, top, -jnp.inf).max(1), 0.0)
        return jnp.concatenate([jnp.take_along_axis(top, last, axis=1)[:, 0], largest, mean], axis=-1)

    def readout(self, rows: Float[Array, "N P"]) -> tuple[Array, Array, Array]:
        """What the head's last product is given of pooled vectors, one row a label, and the biases."""
        hidden = self.task.classify(rows)
        return hidden, self.task.classify.labels_out.kernel.T, self.task.classify.labels_out.bias

    def head(self, name: str, *features: Array) -> Any:
        """`"classify"` of pooled vectors `[B P]`: the scores of all labels. `"kept"` of `mask [B T]`: the places of
        `hidden` whose outputs are pooled."""
        if name == "kept":
            (mask,) = features
            return self._kept(self._placed({"tokens": jnp.zeros(mask.shape, jnp.int32), "mask": mask})[1])
        if name != "classify":
            raise ValueError(f"ulmfit has no head {name!r}; it has 'classify' and 'kept'")
        rows, table, bias = self.readout(*features)
        return rows @ table.T + jnp.broadcast_to(bias, (len(rows), len(bias)))

    def touch(self, inputs: Inputs) -> Any:
        """Run encoder and head once, so that `init` makes every parameter."""
        top = self.body({"tokens": inputs["tokens"][:, : self.bptt]}).hidden[-1]
        return self.head("classify", self._pooled(top, jnp.ones(top.shape[:2], bool)))

    def init_carry(self, batch_size: int) -> Carry:
        """No state: a text is a row."""
        del batch_size
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the encoder, of every step of the rows."""
        return self._encoder().flops(shapes)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the scores of `rows` texts."""
        return 2.0 * rows * self.hidden_width * (self.features() + len(self.labels))


def tiny() -> Model:
    """A test-sized classifier that masks its padding."""
    sizes = {"vocab_size": 43, "width": 14, "embed_width": 10, "depth": 2, "dropout": 0.0}
    return Model(
        {"name": "awd_lstm", **sizes}, labels=("a", "b", "c"), bptt=4, windows=2, padding="behind", hidden_width=7
    )
