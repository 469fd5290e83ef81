"""The Transformer: an encoder, and a decoder that attends to what it read; one table for both sides and the softmax.

The defaults are the base model of the paper, as the first released settings (`transformer_base_v1`) have it: each norm
behind its residual sum, dropout on the embeddings and on what every block adds. `pre_norm` with dropout inside is what
the released code took later (`transformer_base_v2` and v3).

Reference: Vaswani et al. 2017, "Attention Is All You Need"; tensorflow/tensor2tensor, models/transformer.py.
The paper's names: N = depth, d_model = width, h = num_heads, d_ff = mlp_dim, P_drop = dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers.core import Embed, LayerNorm
from ctxjax.models.layers.depth import rematerialized
from ctxjax.models.layers.dropout import Stream, dropout, stream, substream
from ctxjax.models.layers.transformer import MLP, Attention, Cache, Memory
from ctxjax.types import Carry, Inputs, Outputs

EPSILON = 1e-6
SINUSOIDS = ("concatenated", "interleaved")


def sinusoids(positions: Int[Array, "B T"], width: int, kind: str = "concatenated") -> Float[Array, "B T D"]:
    """Sines and cosines of positions, of wavelengths from 2 pi to about 10000 * 2 pi.

    "interleaved" is the paper's: dimension 2i is `sin(p / 10000^(2i / D))`, 2i + 1 its cosine. "concatenated" is the
    released code's: D / 2 sines, then their cosines, the i-th of `p / 10000^(i / (D / 2 - 1))`.
    """
    half = width // 2
    steps = jnp.arange(half, dtype=jnp.float32)
    exponents = steps / max(half - 1, 1) if kind == "concatenated" else 2.0 * steps / width
    angles = positions[..., None].astype(jnp.float32) * jnp.exp(-math.log(10000.0) * exponents)[None, None]
    parts = jnp.sin(angles), jnp.cos(angles)
    joined = jnp.concatenate(parts, axis=-1) if kind == "concatenated" else jnp.stack(parts, axis=-1)
    return joined.reshape(*positions.shape, 2 * half)


class Embeddings(nn.Module):
    """The one table, of deviation `width ** -0.5`."""

    vocab_size: int
    width: int
    param_dtype: str

    def setup(self) -> None:
        init = nn.initializers.normal(self.width**-0.5)
        self.tokens = Embed(self.vocab_size, self.width, init, param_dtype=self.param_dtype)


class Layer(nn.Module):
    """Attention and MLP; a decoder's has attention to the encoder between them, and sees nothing to the right."""

    width: int
    num_heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    mlp_dropout: float
    pre_norm: bool
    attention_bias: bool
    implementation: str | None
    decoder: bool
    kinds: Mapping[str, Any]

    def setup(self) -> None:
        init = nn.initializers.xavier_uniform()
        sizes = (self.width, self.num_heads, self.attention_dropout, self.implementation, self.kinds)
        self.attention = Attention(*sizes, self.decoder, init, init, self.attention_bias)
        self.attention_norm = LayerNorm(self.width, EPSILON, **self.kinds)
        if self.decoder:
            self.cross_attention = Attention(*sizes, False, init, init, self.attention_bias)
            self.cross_attention_norm = LayerNorm(self.width, EPSILON, **self.kinds)
        self.mlp = MLP(self.width, self.mlp_dim, "relu", self.kinds, init, init, self.mlp_dropout)
        self.mlp_norm = LayerNorm(self.width, EPSILON, **self.kinds)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        pack_ids: Int[Array, "B T"] | None,
        rng: Stream | None,
        cache: Cache | None = None,
        source: Float[Array, "B S D"] | Memory | None = None,
        source_mask: Bool[Array, "B S"] | None = None,
        source_pack_ids: Int[Array, "B S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        def add(x: Array, norm: LayerNorm, block: Callable[[Array], Array], name: str) -> Array:
            if self.pre_norm:
                return x + dropout(block(norm(x)), self.dropout, rng, name)
            return norm(x + dropout(block(x), self.dropout, rng, name))

        def attend(x: Array) -> Array:
            nonlocal cache
            mixed, cache = self.attention(x, mask, rng, cache, pack_ids)
            return mixed

        def attend_over(x: Array) -> Array:
            memory = source if isinstance(source, tuple) else self.cross_attention.memory(source)
            below = None if rng is None else substream(rng, "cross_attention")
            return self.cross_attention.over(x, memory, source_mask, below, pack_ids, source_pack_ids)

        x = add(x, self.attention_norm, attend, "attention_out")
        if self.decoder:
            x = add(x, self.cross_attention_norm, attend_over, "cross_attention_out")
        return add(x, self.mlp_norm, lambda x: self.mlp(x, rng), "mlp_out"), cache


class Stack(nn.Module):
    """The layers of one side, and with `pre_norm` a norm behind the last."""

    depth: int
    remat: str | bool
    layer: Mapping[str, Any]

    def setup(self) -> None:
        make_layer = rematerialized(Layer, self.remat)
        for index in range(self.depth):
            setattr(self, f"layer_{index}", make_layer(**self.layer))
        if self.layer["pre_norm"]:
            self.norm = LayerNorm(self.layer["width"], EPSILON, **self.layer["kinds"])

    def memories(self, source: Float[Array, "B S D"]) -> list[Memory]:
        """What every layer attends to in the encoder's output."""
        return [getattr(self, f"layer_{index}").cross_attention.memory(source) for index in range(self.depth)]

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        pack_ids: Int[Array, "B T"] | None,
        rng: Stream | None,
        caches: list[Cache] | None = None,
        source: Float[Array, "B S D"] | list[Memory] | None = None,
        source_mask: Bool[Array, "B S"] | None = None,
        source_pack_ids: Int[Array, "B S"] | None = None,
    ) -> tuple[list[Array], list[Any]]:
        hidden, after = [x], []
        for index in range(self.depth):
            below = None if rng is None else substream(rng, f"layer_{index}")
            cache = caches[index] if caches else None
            given = source[index] if isinstance(source, list) else source
            layer = getattr(self, f"layer_{index}")
            x, cache = layer(x, mask, pack_ids, below, cache, given, source_mask, source_pack_ids)
            hidden.append(x)
            after.append(cache)
        if self.layer["pre_norm"]:
            hidden[-1] = self.norm(x)
        return hidden, after


class Model(nn.Module):
    """The Transformer of any size; the defaults are the paper's base model.

    Attributes:
      depth: layers of the encoder, and of the decoder.
      dropout: on the sums of embeddings and positions and on what every block adds.
      attention_dropout, mlp_dropout: on attention probabilities and behind the ReLU; 0 in the paper, 0.1 in v2 and v3.
      pre_norm: normalise what every block reads, and once at the end of each side, instead of every sum.
      attention_bias: biases in the products round attention, which the paper's formulae do not have.
      sinusoid: "concatenated" or "interleaved", see `sinusoids`.
      remat: what of a layer the backward pass computes again: "none", "full" or "dots", see `layers/depth.py`.
      attention_implementation: see `layers/attention.py`.
    """

    vocab_size: int = 37000
    width: int = 512
    depth: int = 6
    num_heads: int = 8
    mlp_dim: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    pre_norm: bool = False
    attention_bias: bool = False
    sinusoid: str = "concatenated"
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str | bool = "none"
    attention_implementation: str | None = None
    predicts = "target"

    def setup(self) -> None:
        if self.width % self.num_heads or self.width % 2:
            raise ValueError(f"model.width={self.width} is not even, or no multiple of model.num_heads")
        if self.sinusoid not in SINUSOIDS:
            raise ValueError(f"model.sinusoid={self.sinusoid!r} is not one of {', '.join(SINUSOIDS)}")
        fields = ("width", "num_heads", "mlp_dim", "dropout", "attention_dropout", "mlp_dropout", "pre_norm")
        layer = {name: getattr(self, name) for name in (*fields, "attention_bias")}
        layer |= {"implementation": self.attention_implementation}
        layer |= {"kinds": {"dtype": self.dtype, "param_dtype": self.param_dtype}}
        self.embed = Embeddings(self.vocab_size, self.width, self.param_dtype)
        self.encoder = Stack(self.depth, self.remat, {**layer, "decoder": False})
        self.decoder = Stack(self.depth, self.remat, {**layer, "decoder": True})

    def _embedded(self, tokens: Array, positions: Array, rng: Stream | None) -> Float[Array, "B T D"]:
        x = self.embed.tokens(tokens) * math.sqrt(self.width)
        x = x + sinusoids(positions, self.width, self.sinusoid).astype(x.dtype)
        return dropout(x.astype(self.dtype), self.dropout, rng, "embed")

    def encode(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read the source alone: `tokens [B S]` with `mask`, and `pack_ids` and `positions` of packed rows.

        Returns:
          hidden: depth + 1 arrays `[B S D]`, the embedding first.
        """
        del carry
        rng = stream(self.make_rng("dropout")) if train else None
        tokens = inputs["tokens"]
        x = self._embedded(tokens, inputs.get("positions", _places(tokens)), rng)
        return Outputs(tuple(self.encoder(x, inputs.get("mask"), inputs.get("pack_ids"), rng)[0]))

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs:
        """Read `tokens [B S]`, and tell what follows each of `decoder_tokens [B T]`.

        Packed rows hold several pairs: those of equal `pack_ids [B S]` and `decoder_pack_ids [B T]` see one
        another, and `positions`, `decoder_positions` begin again in each.

        Args:
          carry: `init_carry(batch, max_len)` with a source, then what the last call gave and no source: these
            decoder tokens follow those, and the encoder is not run again.

        Returns:
          hidden: the decoder's, depth + 1 arrays `[B T D]`, the embedding first. carry: the cache, if any.
        """
        rng = stream(self.make_rng("dropout")) if train else None
        tokens, packs = inputs["decoder_tokens"], inputs.get("decoder_pack_ids")
        if not carry:
            source = self.encode(inputs, train=train).hidden[-1]
            theirs = None if packs is None else inputs["pack_ids"]
            x = self._embedded(tokens, inputs.get("decoder_positions", _places(tokens)), rng)
            hidden, _ = self.decoder(x, None, packs, rng, None, source, inputs.get("mask"), theirs)
            return Outputs(tuple(hidden))
        if "tokens" in inputs:
            memories = self.decoder.memories(self.encode(inputs, train=train).hidden[-1])
            mask = inputs["mask"] if "mask" in inputs else jnp.ones(inputs["tokens"].shape, bool)
            parts = (jnp.stack([memory[part] for memory in memories], axis=1) for part in (0, 1))
            carry = {**carry, "mask": mask} | dict(zip(("source_key", "source_value"), parts))
        elif "mask" not in carry:
            raise ValueError("the first call with a fresh carry needs the source, as tokens and mask")
        layers = range(self.depth)
        caches = [Cache(carry["key"][:, index], carry["value"][:, index], carry["used"]) for index in layers]
        memories = [(carry["source_key"][:, index], carry["source_value"][:, index]) for index in layers]
        x = self._embedded(tokens, carry["used"][:, None] + _places(tokens), rng)
        hidden, caches = self.decoder(x, None, None, rng, caches, memories, carry["mask"])
        keys, values = (jnp.stack([cache[part] for cache in caches], axis=1) for part in (0, 1))
        return Outputs(tuple(hidden), None, {**carry, "key": keys, "value": values, "used": caches[-1].used})

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows, the token table tied to the embeddings, and no bias (zeros)."""
        table = self.embed.tokens.embedding
        return rows, table, jnp.zeros((self.vocab_size,), table.dtype)

    def head(self, name: str, *features: Array) -> Any:
        """The Transformer has no head beside its softmax."""
        raise ValueError(f"this Transformer has no head {name!r}")

    def touch(self, inputs: Inputs) -> Any:
        """Run everything once, so that `init` makes every parameter."""
        return self.readout(self(inputs).hidden[-1][:, 0])

    def init_carry(self, batch_size: int, max_len: int = 0) -> Carry:
        """`()` for training; with `max_len` an empty cache of the decoder's keys and values, `[B L M H K]`.

        The first call adds the keys and values of the source, `source_key`, `source_value` and `mask`, made once.
        """
        if not max_len:
            return ()
        shape = (batch_size, self.depth, max_len, self.num_heads, self.width // self.num_heads)
        key, value = (jnp.zeros(shape, self.dtype) for _ in range(2))
        return {"key": key, "value": value, "used": jnp.zeros((batch_size,), jnp.int32)}

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward FLOPs of both sides: products alone, every query with every key, two for each multiply-add.

        With every key of its row, also where packed pairs do not see one another.
        """
        (rows, source), (_, target) = shapes["tokens"], shapes["decoder_tokens"]
        dense = 4 * self.width**2 + 2 * self.width * self.mlp_dim
        alone = sum(length * (dense + 2 * length * self.width) for length in (source, target))
        cross = 2 * self.width**2 * (source + target) + 2 * source * target * self.width
        return 2.0 * self.depth * rows * (alone + cross)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the vocabulary logits of `rows` rows."""
        return 2.0 * rows * self.width * self.vocab_size


def _places(tokens: Int[Array, "B T"]) -> Int[Array, "B T"]:
    return jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)


def tiny() -> Model:
    """A test-sized Transformer."""
    return Model(vocab_size=53, width=16, depth=2, num_heads=2, mlp_dim=32)
