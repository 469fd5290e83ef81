"""The contracts every part shares: the batch, what an encoder returns, what an objective is handed.

Dimension legend for shape annotations, used everywhere:

    B batch rows   T time (tokens)   C characters of a word   V vocabulary   D width   H heads   K head width
    F feed-forward width   L layers   N gathered positions   S segments of a row   P projection width

Batch. A nested dict of arrays, `{"inputs": {...}, "targets": ..., "weights": ..., "is_first": ...}`. *Every leaf has
the batch rows on axis 0*, so sharding and gradient accumulation need no special cases. A model sees `inputs` alone, and
labels are never in it. Names in `inputs`:

    tokens [B T] int32, chars [B T C] int32, positions [B T] int32, cls_positions [B S] int32,
    mask [B T] bool (True = a real token, which may be attended to),
    segment_ids [B T] int32 (BERT's: 0 = the first of two sentences, 1 = the second),
    pack_ids [B T] int32 (which of several texts in one row, from 1; 0 = padding; they do not see one another),
    decoder_tokens, decoder_pack_ids, decoder_positions [B T'] int32 (the shifted target; tokens are the source),
    subwords [B T S] int32 (rows of n-grams behind those of words, -1 for none),
    features [B T F] float32 (vectors of every token by models that are not trained; [B T L F], layers to be mixed)

Choices of a row, and both orders of a pair, are an axis behind the rows: `tokens [B C T]`, `cls_positions [B C 1]`.

Beside them stand what an objective reads: `counts [B P]` float32 (of co-occurrence), labels of its own in int32;
`targets` are float32 where a number is told.
`weights` says how much a position counts in the loss; it never means attention validity. `is_first [B]` is True where a
lane of a stream restarts, and its carry with it. Training data of a bidirectional language model has a direction axis
after the rows (`tokens [B 2 T]`), because the published directions read differently shuffled streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float

Batch = Mapping[str, Any]
Inputs = Mapping[str, Array]
Params = Mapping[str, Any]
Carry = Any  # a pytree whose leaves have the batch rows on axis 0; () for models without state


class Outputs(NamedTuple):
    """What every encoder returns.

    Attributes:
      hidden: one `[B T D]` array a layer; entry 0 is the token layer. Where layers differ in width, what puts them side
        by side fills the narrower ones up with zeros.
      pooled: `[B S D]`, one vector a segment taken at `inputs.cls_positions`, or None where a model has no pooler.
      carry: state to hand to the next window of the same rows; `()` where there is none.
      raw: the last layer before its dropout, in training of a model whose objective regularises it; else None.
    """

    hidden: tuple[Array, ...]
    pooled: Array | None = None
    carry: Carry = ()
    raw: Array | None = None


class Mean(NamedTuple):
    """A weighted sum and its weight, which merge exactly over micro-batches, devices, hosts and batches.

    The mean is taken once, at the very end; a perplexity is `exp` of that mean.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    def __add__(self, other: Mean) -> Mean:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """The mean as a Python float; NaN when nothing was weighed."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else float("nan")


Terms = dict[str, Mean]


@runtime_checkable
class Model(Protocol):
    """What a file under `ctxjax/models/` exports as `Model` (a `flax.linen.Module`); `tiny()` makes a test-sized one.

    Fields have the same names everywhere: `vocab_size width depth num_heads mlp_dim max_len dropout dtype param_dtype`.

    A class attribute `predicts` says which words the readout tells: "masked" ones, the "next", the "neighbours", which
    are the next and the previous, the "context", those around, as static word vectors do, or those of a "target", of
    which `inputs.decoder_tokens` are the words before. Such a model has `encode(inputs, carry, train)` too, its encoder
    alone. A tagger of sentences says "tags", and its readout has a row for each of its `labels`. `ctxjax.load` goes by
    `predicts`; a model without it gives vectors alone.
    """

    def __call__(self, inputs: Inputs, carry: Carry = (), train: bool = False) -> Outputs: ...

    def readout(self, rows: Float[Array, "N D"]) -> tuple[Array, Array, Array]:
        """The arguments of the vocabulary loss: rows, table `[V D]` and bias `[V]`, for `rows @ table.T + bias`."""
        ...

    def head(self, name: str, *features: Array) -> Any:
        """Apply the head called `name`, one that owns parameters."""
        ...

    def touch(self, inputs: Inputs) -> Any:
        """Run encoder, readout and every head once: `init(key, inputs, method="touch")` makes all parameters."""
        ...

    def init_carry(self, batch_size: int) -> Carry:
        """The state of fresh rows, all zeros; `()` for a model without state."""
        ...

    def flops(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Forward multiply-adds counted twice, for one encoder call on inputs of these shapes."""
        ...

    def readout_flops(self, rows: int) -> float:
        """Forward FLOPs of the readout and the full vocabulary logits of `rows` rows."""
        ...


@runtime_checkable
class Forward(Protocol):
    """A model bound to parameters, keys and mode: all that an objective is handed. See `ctxjax.step.Forward`."""

    train: bool

    @property
    def vocab_size(self) -> int: ...

    def __call__(self, inputs: Inputs, carry: Carry = ()) -> Outputs: ...

    def readout(self, rows: Array) -> tuple[Array, Array, Array]: ...

    def head(self, name: str, *features: Array) -> Any: ...

    def key(self, name: str) -> Array: ...


@runtime_checkable
class Objective(Protocol):
    """One training signal; training and evaluation call the same one.

    `loss` maps each term that is minimised to its coefficient: the loss is the sum of coefficient * total / weight.
    Terms beside those are metrics. `weights(batch)` gives the weight of each loss term over a batch and depends on the
    batch alone, so micro-batches can divide by the weight of the whole batch.
    """

    loss: Mapping[str, float]

    def __call__(self, forward: Forward, batch: Batch, carry: Carry) -> tuple[Terms, Carry]: ...

    def weights(self, batch: Batch) -> Mapping[str, Array]: ...

    def flops(self, model: Model, batch: Mapping[str, Any]) -> float:
        """Forward FLOPs of one training batch, given its shapes (a tree of arrays or ShapeDtypeStructs)."""
        ...
