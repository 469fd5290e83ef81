"""The bidirectional language model of ELMo: characters or words, two projected LSTMs, one softmax.

The two directions are independent LSTMs over the same token layer. In training each reads its own stream
(`tokens [B 2 T]`, axis 1: forward, backward); in use both read the same sentences (`[B T]`), the backward one each row
turned round within its own length, and a hidden layer is the two side by side.

Reference: Peters et al. 2018, "Deep contextualized word representations"; Jozefowicz et al. 2016, "Exploring the Limits
of Language Modeling"; allenai/bilm-tf bilm/training.py and bilm/model.py. The paper's names: cell size = width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctxjax.models.layers.core import Softmax, glorot
from ctxjax.models.layers.dropout import dropout, stream
from ctxjax.models.layers.encoders import CharEncoder, WordEncoder
from ctxjax.models.layers.lstm import projected_lstm
from ctxjax.models.layers.turning import pick, turned_places
from ctxjax.types import Carry, Inputs, Outputs

DIRECTIONS = 2


class LSTM(nn.Module):
    """One layer of both directions; the direction is the first axis of every parameter."""

    inputs: int
    width: int
    projection_dim: int
    clips: tuple[float, float]
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        D, P, H, kind = self.inputs, self.projection_dim, self.width, self.kinds["param_dtype"]
        # The original has one kernel [D + P, 4 H]; ours are its two parts.
        init, project = glorot(D + P, 4 * H), glorot(H, P)
        self.input_kernel = self.param("input_kernel", init, (DIRECTIONS, D, 4 * H), kind)
        self.recurrent_kernel = self.param("recurrent_kernel", init, (DIRECTIONS, P, 4 * H), kind)
        self.bias = self.param("bias", nn.initializers.zeros, (DIRECTIONS, 4 * H), kind)
        self.projection = self.param("projection", project, (DIRECTIONS, H, P), kind)

    def __call__(
        self, x: Float[Array, "2 T B D"], cell: Array, hidden: Array, mask: Bool[Array, "T B"] | None
    ) -> tuple[Float[Array, "2 T B P"], Array, Array]:
        dtype = self.kinds["dtype"]
        gates = jnp.einsum("stbd,sdg->stbg", x.astype(dtype), self.input_kernel.astype(dtype))
        gates = gates + jnp.broadcast_to(self.bias.astype(dtype)[:, None, None, :], gates.shape)
        recurrent, projection = self.recurrent_kernel.astype(dtype), self.projection.astype(dtype)
        return projected_lstm(gates, recurrent, projection, cell, hidden, mask, *self.clips)


class Layer(nn.Module):
    """The place of an LSTM in the parameter tree: `layer_i/lstm`."""

    inputs: int
    width: int
    projection_dim: int
    clips: tuple[float, float]
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.lstm = LSTM(self.inputs, self.width, self.projection_dim, self.clips, self.kinds)

    def __call__(self, *args: Any) -> tuple[Array, Array, Array]:
        return self.lstm(*args)


class Heads(nn.Module):
    """The one head of the biLM."""

    vocab_size: int
    features: int
    param_dtype: str

    def setup(self) -> None:
        init = nn.initializers.normal(math.sqrt(1.0 / self.features))
        self.softmax = Softmax(self.vocab_size, self.features, init, self.param_dtype)  # which both directions share


class Model(nn.Module):
    """The biLM of any size; the defaults are the published ELMo (93.6 M parameters without the softmax).

    Attributes:
      vocab_size: words of the softmax, and of the table where `token="words"`.
      width, projection: the LSTM's cell and output sizes.
      token: "chars" or "words".
      filters: (width, number) of each convolution.
      residual: each layer but the first adds its input, *as dropped out*, to its output.
      dropout: on the input of every layer and on the last output.
      groups: the rows are cut into this many groups, repeats of a word being found within one; give the number of
        devices that rows are spread over. 0: the number of devices, as far as it divides the rows.
      each_distinct: run each distinct word through the characters once; the values are the same either way.
    """

    vocab_size: int
    width: int = 4096
    projection: int = 512
    depth: int = 2
    token: str = "chars"
    char_dim: int = 16
    num_chars: int = 261
    max_chars: int = 50
    filters: tuple[tuple[int, int], ...] = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    highways: int = 2
    char_activation: str = "relu"
    cell_clip: float = 3.0
    projection_clip: float = 3.0
    residual: bool = True
    dropout: float = 0.1
    groups: int = 0
    each_distinct: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    predicts = "neighbours"

    def setup(self) -> None:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.token not in ("chars", "words"):
            raise ValueError(f"model.token={self.token!r} is neither 'chars' nor 'words'")
        if self.char_activation not in ("relu", "tanh"):
            raise ValueError(f"model.char_activation={self.char_activation!r} is neither 'relu' nor 'tanh'")
        if self.token == "words":
            self.embed = WordEncoder(self.vocab_size, self.projection, self.param_dtype)
        else:
            self.embed = CharEncoder(
                self.projection,
                self.num_chars,
                self.char_dim,
                self.max_chars,
                tuple((int(width), int(number)) for width, number in self.filters),
                self.highways,
                self.char_activation,
                self.groups,
                self.each_distinct,
                kinds,
            )
        clips = (self.cell_clip, self.projection_clip)
        for index in range(self.depth):
            setattr(self, f"layer_{index}", Layer(self.projection, self.width, self.projection, clips, kinds))
        self.heads = Heads(self.vocab_size, self.projection, self.param_dtype, name="head")

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Encode `chars [B T C]` or `tokens [B T]` with `mask [B T]`, or streams `[B 2 T ...]`, one a direction.

        Returns:
          hidden: depth + 1 arrays, the token layer first: `[B T 2P]`, forward beside backward, the token layer twice;
          or `[B 2 T P]` for streams. carry: `cell [B L 2 H]` and `hidden [B L 2 P]` after each row's last token.
        """
        words = self.embed(inputs)
        streams = words.ndim == 4
        mask = None if streams or "mask" not in inputs else inputs["mask"]
        turned = None
        if not streams:
            turned = turned_places(words.shape[1], mask, words.shape[0])
            if mask is not None:
                words = jnp.where(mask[:, :, None], words, jnp.zeros((), words.dtype))
            words = jnp.stack([words, pick(words, turned)], axis=1)
        x = words.transpose(1, 2, 0, 3)
        steps = None if mask is None else mask.T
        rng = stream(self.make_rng("dropout")) if train else None
        state = carry if jax.tree.leaves(carry) else self.init_carry(words.shape[0])
        cells, hiddens, layers = [], [], [x]
        for index in range(self.depth):
            dropped = dropout(x, self.dropout, rng, f"layer_{index}")
            cell, hidden = (state[name][:, index].swapaxes(0, 1) for name in ("cell", "hidden"))
            x, cell, hidden = getattr(self, f"layer_{index}")(dropped, cell, hidden, steps)
            if self.residual and index > 0:
                x = x + dropped
            cells.append(cell.swapaxes(0, 1))
            hiddens.append(hidden.swapaxes(0, 1))
            layers.append(x)
        layers[-1] = dropout(layers[-1], self.dropout, rng, "top")
        layers = [layer.transpose(2, 0, 1, 3) for layer in layers]
        if turned is not None:
            layers = [jnp.concatenate([layer[:, 0], pick(layer[:, 1], turned)], axis=-1) for layer in layers]
            if mask is not None:
                layers = [jnp.where(mask[:, :, None], layer, jnp.zeros((), layer.dtype)) for layer in layers]
        return Outputs(tuple(layers), None, {"cell": jnp.stack(cells, 1), "hidden": jnp.stack(hiddens, 1)})

    def readout(self, rows: Float[Array, "N P"]) -> tuple[Array, Array, Array]:
        """The rows as they are in the compute dtype, the output table and the bias."""
        return rows.astype(self.dtype), self.heads.softmax.embedding, self.heads.softmax.bias

    def head(self, name: str, *features: Array) -> Any:
        """The biLM has no head beside its softmax."""
        raise ValueError(f"the biLM has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        outputs = self(inputs)
        return self.readout(outputs.hidden[-1].reshape(-1, outputs.hidden[-1].shape[-1])[:, : self.projection])

    def init_carry(self, batch_size: int) -> Carry:
        """Zeros: `cell [B L 2 H]`, `hidden [B L 2 P]`."""
        lead = (batch_size, self.depth, DIRECTIONS)
        return {"cell": jnp.zeros((*lead, self.width)), "hidden": jnp.zeros((*lead, self.projection))}

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs, products alone, every position through the characters (repeats too)."""
        lead = shapes["chars"][:-1] if self.token == "chars" else shapes["tokens"]
        words = math.prod(lead)
        steps = words if len(lead) == 3 else words * DIRECTIONS
        lstm = self.projection * 8 * self.width + self.width * self.projection
        total = steps * self.depth * lstm
        return 2.0 * (total + (words * self.char_products() if self.token == "chars" else 0))

    def char_products(self) -> int:
        """Multiply-adds of one word in the character encoder."""
        features = sum(number for _, number in self.filters)
        conv = sum(width * number * (self.max_chars - width + 1) for width, number in self.filters) * self.char_dim
        return conv + self.highways * 2 * features**2 + features * self.projection

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the full softmax of `rows` rows of one direction."""
        return 2.0 * rows * self.projection * self.vocab_size


def tiny() -> Model:
    """A test-sized biLM over characters."""
    filters = ((1, 4), (2, 6), (3, 8))
    return Model(vocab_size=31, width=12, projection=8, char_dim=5, num_chars=261, max_chars=16, filters=filters)
