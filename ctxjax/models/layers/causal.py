"""What the left-to-right Transformers share: layers in a row, the cache of a generation, counts of work.

GPT and GPT-2 differ in their tables, in the order within a layer, and in the norm behind the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers.core import Embed
from ctxjax.models.layers.depth import rematerialized, run_layers, scans
from ctxjax.models.layers.dropout import Stream, stream
from ctxjax.models.layers.transformer import Cache
from ctxjax.types import Carry, Inputs, Outputs

EPSILON = 1e-5  # of every LayerNorm


class Tables(nn.Module):
    """The parameters of the token and the position table."""

    vocab_size: int
    width: int
    max_len: int
    position_deviation: float
    param_dtype: str

    def setup(self) -> None:
        tokens, positions = nn.initializers.normal(0.02), nn.initializers.normal(self.position_deviation)
        self.tokens = Embed(self.vocab_size, self.width, tokens, param_dtype=self.param_dtype)
        self.positions = Embed(self.max_len, self.width, positions, param_dtype=self.param_dtype)


class Causal(nn.Module):
    """A left-to-right Transformer; a subclass makes `embed: Tables` and the layers in its `setup`.

    Attributes:
      remat: what of a layer the backward pass computes again: "none", "full" or "dots", see `layers/depth.py`.
      scan: layers under one scan: "deep" from 48 layers on, "always", "never". With a cache
        they are always unrolled.
      attention_implementation: see `layers/attention.py`.
    """

    vocab_size: int
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    max_len: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str | bool = "none"
    scan: str = "deep"
    attention_implementation: str | None = None
    predicts = "next"

    def make_layers(self, layer: type[nn.Module], **fields: Any) -> None:
        """Make `layer_0`, `layer_1`, ... in `setup`, with the fields that all layers have and some of their own."""
        if self.width % self.num_heads:
            raise ValueError(f"model.width={self.width} is not a multiple of model.num_heads={self.num_heads}")
        make_layer = rematerialized(layer, self.remat, scans(self.scan, self.depth))
        for index in range(self.depth):
            made = make_layer(
                width=self.width,
                num_heads=self.num_heads,
                mlp_dim=self.mlp_dim,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                implementation=self.attention_implementation,
                kinds={"dtype": self.dtype, "param_dtype": self.param_dtype},
                **fields,
            )
            setattr(self, f"layer_{index}", made)

    def tables(self, train: bool) -> tuple[Float[Array, "V D"], Float[Array, "M D"]]:
        """The token and the position table."""
        del train
        return self.embed.tokens.embedding, self.embed.positions.embedding

    def first(self, x: Float[Array, "B T D"], rng: Stream | None) -> Float[Array, "B T D"]:
        """What the layers are given, from the sum of token and position."""
        del rng
        return x

    def last(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the softmax is given, from the last layer."""
        return x

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B T]`; `mask` (padding behind the tokens), `positions` and `pack_ids` are optional.

        Args:
          carry: `init_carry(batch, max_len)`, or what the last call gave: these tokens follow those.

        Returns:
          hidden: depth + 1 arrays `[B T D]`, the embedding first; the last is normalised. carry: the cache, if any.
        """
        tokens = inputs["tokens"]
        length = carry["key"].shape[2] if carry else tokens.shape[1]
        if length > self.max_len:
            raise ValueError(f"{length} tokens a row are more than model.max_len={self.max_len}")
        if carry and "pack_ids" in inputs:
            raise ValueError("inputs.pack_ids do not go with a cache: give each text a row of its own")
        words, places = self.tables(train)
        x = words[tokens]
        if "positions" in inputs:
            x = x + places[inputs["positions"]]
        elif carry:
            x = x + places[carry["used"][:, None] + jnp.arange(tokens.shape[1])[None]]
        else:
            x = x + jnp.broadcast_to(places[None, : tokens.shape[1]], x.shape)
        rng = stream(self.make_rng("dropout")) if train else None
        x = self.first(x.astype(self.dtype), rng)
        caches = [Cache(carry["key"][:, i], carry["value"][:, i], carry["used"]) for i in range(self.depth) if carry]
        mask, packs, after = inputs.get("mask"), inputs.get("pack_ids"), []

        def call(layer: Any, x: Array, below: Stream | None) -> Array:
            x, cache = layer(x, mask, below, caches[len(after)] if carry else None, packs)
            after.append(cache)
            return x

        hidden = run_layers(self, x, rng, call, self.depth, scans(self.scan, self.depth) and not carry)
        hidden[-1] = self.last(hidden[-1])
        if not carry:
            return Outputs(tuple(hidden), None, ())
        keys, values = (jnp.stack([cache[part] for cache in after], axis=1) for part in (0, 1))
        return Outputs(tuple(hidden), None, {"key": keys, "value": values, "used": after[-1].used})

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows, the token table tied to the embedding, and no bias (zeros)."""
        table = self.embed.tokens.embedding
        return rows, table, jnp.zeros((self.vocab_size,), table.dtype)

    def head(self, name: str, *features: Array) -> Any:
        """There is no head beside the softmax."""
        raise ValueError(f"this {type(self).__module__.rpartition('.')[2]} has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int, max_len: int = 0) -> Carry:
        """`()` for training; with `max_len` an empty cache of keys and values, `[B L M H K]`, for generation."""
        if not max_len:
            return ()
        shape = (batch_size, self.depth, max_len, self.num_heads, self.width // self.num_heads)
        key, value = (jnp.zeros(shape, self.dtype) for _ in range(2))
        return {"key": key, "value": value, "used": jnp.zeros((batch_size,), jnp.int32)}

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of the layers: products alone, every query with every key, two for each multiply-add.

        With every key of its row, also where packed texts do not see one another or a kernel leaves keys out.
        """
        rows, length = shapes["tokens"]
        dense = 4 * self.width**2 + 2 * self.width * self.mlp_dim
        return 2.0 * self.depth * rows * length * (dense + 2 * length * self.width)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.width * self.vocab_size
