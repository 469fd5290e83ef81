"""GPT, a left-to-right Transformer that normalises after each residual sum; one table for words and places.

The rows of tokens, special pieces and positions are one table in the released code: it is dropped as a whole, once a
batch, and the softmax is taken over the dropped table, positions and all. Here tokens and positions are parameters of
their own, as Hugging Face has them, so that rows are found by piece; they are joined where the table is used. Special
pieces are the last ones of the vocabulary (`ctxjax/text/bpe.py`).

Reference: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"; train.py of
openai/finetune-transformer-lm.
The paper's names: n_layer = depth, n_embd = width.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctxjax.models.layers.causal import EPSILON, Causal, Tables
from ctxjax.models.layers.dropout import dropout, stream
from ctxjax.models.layers.transformer import PostNorm


class Model(Causal):
    """GPT of any size; the defaults are the released one, of 116.5 M parameters.

    Attributes:
      table_dropout: of the table of tokens and positions, one draw for a whole batch: a number that is dropped is so
        for every token that looks it up, and in the softmax.
      joint_softmax: in training the softmax spans the positions too, which are never a target, as in the released code.
        In use it is over tokens alone.
    """

    vocab_size: int = 40478
    table_dropout: float = 0.1
    joint_softmax: bool = True

    def setup(self) -> None:
        self.embed = Tables(self.vocab_size, self.width, self.max_len, 0.02, self.param_dtype)
        self.make_layers(PostNorm, causal=True, init=nn.initializers.normal(0.02), epsilon=EPSILON)

    def tables(self, train: bool) -> tuple[Float[Array, "V D"], Float[Array, "M D"]]:
        """The token and the position rows of the table, dropped in training."""
        if not train:
            return super().tables(train)
        rng = stream(self.make_rng("shared"))
        table = dropout(jnp.concatenate(super().tables(train)), self.table_dropout, rng, "table")
        return table[: self.vocab_size], table[self.vocab_size :]

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The rows, the table as the layers saw it, and no bias (zeros); only in training are there keys of a batch."""
        train = self.has_rng("shared")
        tokens, positions = self.tables(train)
        table = jnp.concatenate([tokens, positions]) if train and self.joint_softmax else tokens
        return rows, table, jnp.zeros(table.shape[:1], table.dtype)

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the logits of `rows` rows in training."""
        return 2.0 * rows * self.width * (self.vocab_size + self.joint_softmax * self.max_len)


def tiny() -> Model:
    """A test-sized GPT."""
    return Model(vocab_size=53, width=16, depth=2, num_heads=2, mlp_dim=32, max_len=24)
