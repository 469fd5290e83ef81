"""ModernBERT, where the line of masked encoders stands today: rotary positions, normalisation in front of each block,
gated MLPs, mostly local attention, no biases.

Reference: Warner et al. 2024, "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory
Efficient, and Long Context Finetuning and Inference"; rotary positions Su et al. 2021; GeGLU Shazeer 2020; RMSNorm
Zhang and Sennrich 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.core import Dense, Embed, Norm, truncated_normal
from ctxjax.models.layers.depth import rematerialized, run_layers, scans
from ctxjax.models.layers.dropout import Stream, dropout, stream
from ctxjax.models.layers.rotary import angles
from ctxjax.models.layers.transformer import Attention
from ctxjax.types import Carry, Inputs, Outputs

EPSILON = 1e-5
INIT = 0.02


class Embeddings(nn.Module):
    """The token table and the norm behind it; positions are in the attention."""

    vocab_size: int
    width: int
    norm_kind: str
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.tokens = Embed(self.vocab_size, self.width, param_dtype=self.kinds["param_dtype"])
        self.norm = Norm(self.width, self.norm_kind, EPSILON, **self.kinds)


class GatedMLP(nn.Module):
    """GeGLU: half of the first product, through a GELU, gates the other half."""

    width: int
    mlp_dim: int
    out_deviation: float
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        setattr(self, "in", Dense(self.width, 2 * self.mlp_dim, truncated_normal(INIT), use_bias=False, **self.kinds))
        self.out = Dense(self.mlp_dim, self.width, truncated_normal(self.out_deviation), use_bias=False, **self.kinds)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        value, gate = jnp.split(getattr(self, "in")(x), 2, axis=-1)
        return self.out(jax.nn.gelu(value, approximate=False) * gate)


class Layer(nn.Module):
    """Norm and attention, norm and MLP, each added to what came in; the first attention has no norm before it."""

    width: int
    num_heads: int
    mlp_dim: int
    window: int
    base: float
    first: bool
    norm_kind: str
    dropout: float
    implementation: str | None
    out_deviation: float
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        if not self.first:  # the embeddings were normalised just before
            self.attention_norm = Norm(self.width, self.norm_kind, EPSILON, **self.kinds)
        self.attention = Attention(
            self.width, self.num_heads, 0.0, self.implementation, self.kinds, init=truncated_normal(INIT),
            out_init=truncated_normal(self.out_deviation), use_bias=False, window=self.window // 2 or None,
        )  # fmt: skip
        self.mlp_norm = Norm(self.width, self.norm_kind, EPSILON, **self.kinds)
        self.mlp = GatedMLP(self.width, self.mlp_dim, self.out_deviation, self.kinds)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None,
        rng: Stream | None,
        pack_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        inner = x if self.first else self.attention_norm(x)
        angle = angles(positions, self.width // self.num_heads, self.base)
        mixed, _ = self.attention(inner, mask, None, None, pack_ids, angle)
        x = x + dropout(mixed, self.dropout, rng, "attention_out")
        return x + dropout(self.mlp(self.mlp_norm(x)), self.dropout, rng, "mlp_out")


class MaskedHead(nn.Module):
    """The transform before the tied vocabulary table, and the bias of each vocabulary row."""

    width: int
    vocab_size: int
    norm_kind: str
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.transform = Dense(self.width, self.width, truncated_normal(INIT), use_bias=False, **self.kinds)
        self.norm = Norm(self.width, self.norm_kind, EPSILON, **self.kinds)
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), self.kinds["param_dtype"])

    def __call__(self, rows: Float[Array, "N D"]) -> Float[Array, "N D"]:
        return self.norm(jax.nn.gelu(self.transform(rows), approximate=False))


class Heads(nn.Module):
    """The head of the objective."""

    width: int
    vocab_size: int
    norm_kind: str
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.mlm = MaskedHead(self.width, self.vocab_size, self.norm_kind, self.kinds)


class Model(nn.Module):
    """ModernBERT of any size; the defaults are base, of 149.7 M parameters with its masked-word head.

    Attributes:
      mlp_dim: width of each half of the gated MLP.
      norm: "layer", LayerNorm without a bias, as published; "rms" leaves the mean where it is.
      window: words that a local layer sees, half of them on each side.
      global_every: layers 0, n, 2 n, ... see the whole row.
      rope_base, local_rope_base: of the rotary positions of global and of local layers.
      scaled_residuals: start the last product of every block smaller by the root of the number of blocks.
      remat: what of a layer the backward pass computes again: "none", "full" or "dots", see `layers/depth.py`.
      scan: layers under one scan: "deep" from 48 layers on, "always", "never".
      attention_implementation: see `layers/attention.py`.
    """

    vocab_size: int = 50368
    width: int = 768
    depth: int = 22
    num_heads: int = 12
    mlp_dim: int = 1152
    max_len: int = 8192
    dropout: float = 0.0
    norm: str = "layer"
    window: int = 128
    global_every: int = 3
    rope_base: float = 160_000.0
    local_rope_base: float = 10_000.0
    scaled_residuals: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str | bool = "none"
    scan: str = "deep"
    attention_implementation: str | None = None
    predicts = "masked"

    def setup(self) -> None:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(
                f"model.width={self.width} over model.num_heads={self.num_heads} is not an even whole number"
            )
        if self.norm not in ("layer", "rms"):
            raise ValueError(f"model.norm={self.norm!r} is neither 'layer' nor 'rms'")
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed = Embeddings(self.vocab_size, self.width, self.norm, kinds)
        layer = rematerialized(Layer, self.remat, scans(self.scan, self.depth))
        deviation = INIT / math.sqrt(2 * self.depth) if self.scaled_residuals else INIT
        for index in range(self.depth):
            whole = index % self.global_every == 0
            made = layer(
                self.width, self.num_heads, self.mlp_dim, 0 if whole else self.window,
                self.rope_base if whole else self.local_rope_base, index == 0, self.norm, self.dropout,
                self.attention_implementation, deviation, kinds,
            )  # fmt: skip
            setattr(self, f"layer_{index}", made)
        self.final_norm = Norm(self.width, self.norm, EPSILON, **kinds)
        self.heads = Heads(self.width, self.vocab_size, self.norm, kinds, name="head")

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Encode `tokens [B T]`, with `mask`, `positions` and `pack_ids` where they are given.

        Packed rows hold several texts: those of equal `pack_ids` see one another, and `positions` begin again.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the normalised token embeddings first, the last one normalised. No pooler.
        """
        tokens = inputs["tokens"]
        rng = stream(self.make_rng("dropout")) if train and self.dropout else None
        x = self.embed.norm(self.embed.tokens(tokens)).astype(self.dtype)
        x = dropout(x, self.dropout, rng, "embed")
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        positions = inputs["positions"] if "positions" in inputs else places
        mask, packs = inputs.get("mask"), inputs.get("pack_ids")

        def call(layer: Layer, x: Array, below: Stream | None) -> Array:
            return layer(x, positions, mask, below, packs)

        # Layer 0 has no norm; from layer 1 on kinds repeat every `global_every`.
        scanned = scans(self.scan, self.depth)
        hidden = run_layers(self, x, rng, call, self.depth, scanned, first=1, period=self.global_every)
        hidden[-1] = self.final_norm(hidden[-1])
        return Outputs(tuple(hidden), None, ())

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """Transformed rows, the tied token table, and the bias."""
        return self.heads.mlm(rows), self.embed.tokens.embedding, self.heads.mlm.bias

    def head(self, name: str, *features: Array) -> Any:
        """ModernBERT has no head beside its softmax."""
        raise ValueError(f"this ModernBERT has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int) -> Carry:
        """ModernBERT has no state."""
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the layers: products alone; in local layers of each query with the keys of its window.

        All keys of the row or window count, also where packed texts do not see one another.
        """
        rows, length = shapes["tokens"]
        dense = 4 * self.width**2 + 3 * self.width * self.mlp_dim
        whole = len(range(0, self.depth, self.global_every))
        seen = whole * length + (self.depth - whole) * min(length, self.window + 1)
        return 2.0 * rows * length * (self.depth * dense + 2 * seen * self.width)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the transform and the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.width * (self.width + self.vocab_size)


def tiny() -> Model:
    """A test-sized ModernBERT, with both kinds of layers."""
    sizes = {"width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 24, "max_len": 24}
    return Model(vocab_size=53, window=4, global_every=2, **sizes)
