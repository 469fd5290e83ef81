"""The head of a tagger on an encoder that is fine-tuned: a product behind dropout, and perhaps a CRF.

Reference: Devlin et al. 2019, section 5.3, without a CRF; Lample et al. 2016 for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ctxjax.models.layers import crf
from ctxjax.models.layers.core import Dense
from ctxjax.models.layers.dropout import dropout, stream, substream
from ctxjax.types import Outputs


class Tags(nn.Module):
    """Scores of every tag for every position; which of them tell a word is said by the mask.

    Attributes:
      features: width of what is read. outcomes: tags.
      dropout: of what is read.
      chain: scores of neighbouring tags.
    """

    features: int
    outcomes: int
    kinds: Mapping[str, Any]
    dropout: float = 0.1
    chain: bool = False

    def setup(self) -> None:
        out = Dense(self.features, self.outcomes, **self.kinds)
        self.out = out
        nn.share_scope(self, out)
        if self.chain:
            self.transitions = crf.Transitions(self.outcomes, self.kinds["param_dtype"], name="crf")

    def _dropped(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """In training, which has keys of a batch."""
        rng = substream(stream(self.make_rng("dropout")), "task") if self.has_rng("shared") else None
        return dropout(x, self.dropout, rng, "top")

    def __call__(self, top: Float[Array, "B T D"]) -> Float[Array, "B T N"]:
        """Scores, in f32."""
        return self.out(self._dropped(top)).astype(jnp.float32)

    def scores(self, top: Float[Array, "B T D"]) -> Float[Array, "B T N"]:
        """The same by the name that every tagger has it under."""
        return self(top)

    def crf(
        self, top: Float[Array, "B T D"], mask: Bool[Array, "B T"], targets: Int[Array, "B T"]
    ) -> Float[Array, " B"]:
        """`-log p(tags)` of every row."""
        if not self.chain:
            raise ValueError("this tagger has no chain: set model.options.chain, or objective.crf=False")
        return crf.negative_log_likelihood(self(top), self.transitions(), targets, mask)

    def tags(self, top: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """The best path of the chain, or else the best tag of every word; 0 where the mask is False."""
        if not self.chain:
            return jnp.where(mask, self(top).argmax(-1), 0)
        return crf.viterbi(self(top), self.transitions(), mask)[0]

    def readout(self, rows: Float[Array, "R D"]) -> tuple[Array, Array, Array]:
        """Rows, one row a tag, and the biases."""
        return self._dropped(rows), self.out.kernel.T, self.out.bias

    def touch(self, outputs: Outputs) -> Array:
        """Make every parameter."""
        top = outputs.hidden[-1]
        if not self.chain:
            return self(top)
        return self.crf(top, jnp.ones(top.shape[:2], bool), jnp.zeros(top.shape[:2], jnp.int32))

    def products(self, rows: int) -> int:
        """Multiply-adds for so many words."""
        return rows * self.features * self.outcomes
