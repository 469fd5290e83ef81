"""BERT, the masked bidirectional Transformer encoder, as published: post-LayerNorm, learned positions, tied MLM head.

Reference: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding";
google-research/bert modeling.py.
The paper's names: L = depth, H = width, A = num_heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers.core import Dense, Embed, LayerNorm
from ctxjax.models.layers.depth import rematerialized, run_layers, scans
from ctxjax.models.layers.dropout import Stream, dropout, stream
from ctxjax.models.layers.transformer import PostNorm, gelu
from ctxjax.types import Carry, Inputs, Outputs


class Embeddings(nn.Module):
    """LayerNorm of the sum of token, position and segment embeddings, then dropout."""

    vocab_size: int
    width: int
    max_len: int
    type_vocab_size: int
    dropout: float
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        param_dtype = self.kinds["param_dtype"]
        self.tokens = Embed(self.vocab_size, self.width, param_dtype=param_dtype)
        self.positions = Embed(self.max_len, self.width, param_dtype=param_dtype)
        self.segments = Embed(self.type_vocab_size, self.width, param_dtype=param_dtype)
        self.norm = LayerNorm(self.width, **self.kinds)

    def __call__(self, inputs: Inputs, rng: Stream | None) -> Float[Array, "B T D"]:
        tokens = inputs["tokens"]
        x = self.tokens(tokens)
        if "positions" in inputs:
            x = x + self.positions(inputs["positions"])
        else:
            x = x + jnp.broadcast_to(self.positions.embedding[None, : tokens.shape[1]], x.shape)
        segments = inputs["segment_ids"] if "segment_ids" in inputs else jnp.zeros_like(tokens)
        x = x + self.segments.few(segments)
        return dropout(self.norm(x), self.dropout, rng, "embed")


class MaskedHead(nn.Module):
    """The transform before the tied vocabulary table, and the bias of each vocabulary row."""

    width: int
    vocab_size: int
    activation: str
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.transform = Dense(self.width, self.width, **self.kinds)
        self.norm = LayerNorm(self.width, **self.kinds)
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), self.kinds["param_dtype"])

    def __call__(self, rows: Float[Array, "N D"]) -> Float[Array, "N D"]:
        return self.norm(gelu(self.transform(rows), self.activation))


class Heads(nn.Module):
    """The heads of pre-training: masked words and next sentence."""

    width: int
    vocab_size: int
    next_sentence: bool
    activation: str
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        self.mlm = MaskedHead(self.width, self.vocab_size, self.activation, self.kinds)
        if self.next_sentence:
            self.nsp = Dense(self.width, 2, **self.kinds)


class Model(nn.Module):
    """BERT of any size; the defaults are BERT-base, uncased where `vocab_size=30522`.

    Attributes:
      remat: what of a layer the backward pass computes again: "none", "full" or "dots", see `layers/depth.py`.
      scan: layers under one scan: "deep" from 48 layers on, "always", "never".
      next_sentence: whether the next-sentence head exists.
      attention_implementation: see `layers/attention.py`.
      activation: "gelu_tanh" as published, or "gelu", the exact one that Hugging Face's weights are run with.
    """

    vocab_size: int
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    max_len: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str | bool = "none"
    scan: str = "deep"
    next_sentence: bool = True
    attention_implementation: str | None = None
    activation: str = "gelu_tanh"
    predicts = "masked"

    def setup(self) -> None:
        if self.activation not in ("gelu_tanh", "gelu"):
            raise ValueError(f"model.activation={self.activation!r} is neither 'gelu_tanh' nor 'gelu'")
        if self.width % self.num_heads:
            raise ValueError(f"model.width={self.width} is not a multiple of model.num_heads={self.num_heads}")
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embed = Embeddings(self.vocab_size, self.width, self.max_len, self.type_vocab_size, self.dropout, kinds)
        make_layer = rematerialized(PostNorm, self.remat, scans(self.scan, self.depth))
        for index in range(self.depth):
            layer = make_layer(
                self.width,
                self.num_heads,
                self.mlp_dim,
                self.dropout,
                self.attention_dropout,
                self.attention_implementation,
                kinds,
                self.activation,
            )
            setattr(self, f"layer_{index}", layer)
        self.pooler = Dense(self.width, self.width, **kinds)
        self.heads = Heads(self.width, self.vocab_size, self.next_sentence, self.activation, kinds, name="head")

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Encode `tokens [B T]`; `segment_ids`, `positions`, `mask`, `cls_positions` and `pack_ids` are optional.

        Packed rows hold several examples: those of equal `pack_ids` see one another, and `positions` begin again.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the embedding first. pooled: `[B S D]`, tanh of a dense layer of the last
          hidden state at `cls_positions` (the first token where they are absent).
        """
        length = inputs["tokens"].shape[1]
        if length > self.max_len:
            raise ValueError(f"{length} tokens a row are more than model.max_len={self.max_len}")
        rng = stream(self.make_rng("dropout")) if train else None
        x = self.embed(inputs, rng)
        mask, packs = inputs.get("mask"), inputs.get("pack_ids")

        def call(layer: PostNorm, x: Array, below: Stream | None) -> Array:
            return layer(x, mask, below, None, packs)[0]

        hidden = run_layers(self, x, rng, call, self.depth, scans(self.scan, self.depth))
        x = hidden[-1]
        if "cls_positions" in inputs:
            firsts = jnp.take_along_axis(x, inputs["cls_positions"][:, :, None], axis=1)
        else:
            firsts = x[:, :1]
        return Outputs(tuple(hidden), jnp.tanh(self.pooler(firsts)), ())

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The transformed rows, the token table tied to the embedding, and the vocabulary bias."""
        return self.heads.mlm(rows), self.embed.tokens.embedding, self.heads.mlm.bias

    def head(self, name: str, *features: Array) -> Array:
        """`head("nsp", pooled [B S D])`: logits `[B S 2]`; class 0 = the true next sentence, 1 = a random one."""
        if name != "nsp" or not self.next_sentence:
            raise ValueError(f"this BERT has no head {name!r}; it has {['nsp'] if self.next_sentence else []}")
        return self.heads.nsp(*features).astype(jnp.float32)

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        outputs = self(inputs)
        self.readout(outputs.hidden[-1][:, 0])
        return self.head("nsp", outputs.pooled) if self.next_sentence else outputs.pooled

    def init_carry(self, batch_size: int) -> Carry:
        """BERT has no state."""
        return ()

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the encoder and its pooler: products alone, two for each multiply-add.

        Every query is counted with every key of its row, also where packed examples do not see one another.
        """
        rows, length = shapes["tokens"]
        segments = shapes.get("cls_positions", (rows, 1))[1]
        dense = 4 * self.width**2 + 2 * self.width * self.mlp_dim
        layer = rows * length * (dense + 2 * length * self.width)
        embed = rows * length * self.type_vocab_size * self.width
        return 2.0 * (self.depth * layer + embed + rows * segments * self.width**2)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the MLM transform and the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.width * (self.width + self.vocab_size)


def tiny() -> Model:
    """A test-sized BERT."""
    return Model(vocab_size=53, width=16, depth=2, num_heads=2, mlp_dim=32, max_len=24)
