"""A model in use: sequences of any length through a few compiled shapes, to hidden states and log-probabilities.

Sequences are sorted by length and padded to the next of a fixed set of lengths (8, 16, 32, 48, 64, 96, ...), in 1,
2, 4, ... rows or as many as fit, so a program is compiled for each such shape and never again. Every sequence is a
dict of arrays with time on axis 0, as a row of `batch["inputs"]` without its row axis; masks are made here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ctxjax.objectives.vocabulary import rows_per_chunk
from ctxjax.types import Params

TOKENS_PER_BATCH = 4096
SHORTEST = 8


class Batch(NamedTuple):
    """Which sequences go together, in how many rows of what length."""

    indices: list[int]
    rows: int
    length: int


def padded_length(length: int, longest: int | None = None) -> int:
    """The next of 8, 16, 32, 48, 64, 96, 128, ...; at most `longest`, where a model has one."""
    size = SHORTEST
    while size < length:
        whole = size & (size - 1) == 0
        size = size * 2 if size < 32 else size * 3 // 2 if whole else size * 4 // 3
    return size if longest is None else min(size, longest)


def plan(lengths: Sequence[int], longest: int | None = None, tokens_per_batch: int = TOKENS_PER_BATCH) -> list[Batch]:
    """Cut sequences into batches of similar length.

    Args:
      lengths: of every sequence.
      longest: the model's `max_len`, or None.
      tokens_per_batch: rows times padded length is at most this, but never less than one row.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    batches: list[Batch] = []
    while order:
        length = padded_length(lengths[order[-1]], longest)
        most = 1 << (max(1, tokens_per_batch // length).bit_length() - 1)
        fitting = [index for index in order[-most:] if padded_length(lengths[index], longest) == length]
        rows = min(most, 1 << (len(fitting) - 1).bit_length())
        batches.append(Batch(fitting, rows, length))
        del order[len(order) - len(fitting) :]
    return batches[::-1]


def stack(sequences: Sequence[Mapping[str, np.ndarray]], rows: int, length: int) -> dict[str, np.ndarray]:
    """Pad sequences to `[rows, length, ...]` and add their mask; rows of padding attend to their first position."""
    first = sequences[0]
    inputs = {name: np.zeros((rows, length, *array.shape[1:]), array.dtype) for name, array in first.items()} | {
        "mask": np.zeros((rows, length), bool)
    }
    for row, sequence in enumerate(sequences):
        for name, array in sequence.items():
            inputs[name][row, : len(array)] = array
            inputs["mask"][row, : len(array)] = True
    inputs["mask"][len(sequences) :, 0] = True
    return inputs


def _hidden(model: Any, params: Params, inputs: Any, carry: Any, top: bool) -> tuple[Array, Any]:
    method = "encode" if getattr(model, "predicts", "") == "target" else "__call__"
    outputs = model.apply({"params": params}, inputs, carry, False, method=method)
    layers = outputs.hidden[-1:] if top else outputs.hidden
    widest = max(layer.shape[-1] for layer in layers)
    wide = [jnp.pad(layer, ((0, 0), (0, 0), (0, widest - layer.shape[-1]))) for layer in layers]
    return jnp.stack([layer.astype(jnp.float32) for layer in wide], axis=1), outputs.carry


class Runner:
    """A model bound to its parameters.

    Args:
      model: built from a config's `model`.
      params: nested dict; moved to the default device once.
      tokens_per_batch: bounds the memory of one forward pass.
    """

    def __init__(self, model: Any, params: Params, tokens_per_batch: int = TOKENS_PER_BATCH):
        self.model, self.tokens_per_batch = model, tokens_per_batch
        self.params = jax.tree.map(jnp.asarray, params)
        self.longest: int | None = getattr(model, "max_len", None)
        self._hidden = jax.jit(functools.partial(_hidden, model), static_argnames="top")
        self._masked, self._stream = (
            jax.jit(functools.partial(_masked, model)),
            jax.jit(functools.partial(_stream, model)),
        )
        self._distribution = jax.jit(functools.partial(_distribution, model))
        self._next = jax.jit(functools.partial(_next, model))
        self._labels = jax.jit(functools.partial(_labels, model))

    def hidden(
        self, sequences: Sequence[Mapping[str, np.ndarray]], top: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """`(index, [layers, length, width] float32)` of every sequence, in the order in which batches are done."""
        for batch in plan([_length(one) for one in sequences], self.longest, self.tokens_per_batch):
            inputs = stack([sequences[index] for index in batch.indices], batch.rows, batch.length)
            carry = self.model.init_carry(batch.rows)
            values = np.asarray(self._hidden(self.params, inputs, carry, top=top)[0])
            for row, index in enumerate(batch.indices):
                yield index, values[row, :, : _length(sequences[index])].copy()

    def fresh_carry(self) -> Any:
        """The state of one row before its first sequence."""
        return self.model.init_carry(1)

    def hidden_next(self, sequence: Mapping[str, np.ndarray], carry: Any, top: bool = False) -> tuple[np.ndarray, Any]:
        """`[layers, length, width]` of a sequence read from a given state, and the state behind it."""
        inputs = stack([sequence], 1, padded_length(_length(sequence), self.longest))
        values, carry = self._hidden(self.params, inputs, carry, top=top)
        return np.asarray(values)[0, :, : _length(sequence)].copy(), carry

    def masked_log_probs(
        self, sequences: Sequence[Mapping[str, np.ndarray]], positions: Sequence[int], targets: Sequence[int]
    ) -> np.ndarray:
        """Log-probability of one target at one position of each sequence, by a masked model; float64."""
        found = np.zeros(len(sequences))
        for batch in plan([_length(one) for one in sequences], self.longest, self.tokens_per_batch):
            inputs = stack([sequences[index] for index in batch.indices], batch.rows, batch.length)
            where, wanted = np.zeros(batch.rows, np.int32), np.zeros(batch.rows, np.int32)
            where[: len(batch.indices)] = [positions[index] for index in batch.indices]
            wanted[: len(batch.indices)] = [targets[index] for index in batch.indices]
            values = np.asarray(self._masked(self.params, inputs, where, wanted))
            found[batch.indices] = values[: len(batch.indices)]
        return found

    def masked_distribution(self, sequence: Mapping[str, np.ndarray], position: int) -> np.ndarray:
        """Log-probabilities of the whole vocabulary at one position of a sequence, by a masked model."""
        inputs = stack([sequence], 1, padded_length(_length(sequence), self.longest))
        return np.asarray(self._distribution(self.params, inputs, np.array([position], np.int32)))[0]

    def next_log_probs(self, sequences: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """What a left-to-right model gives to every token but the first: float64 [n - 1] a sequence."""
        return [values for values, _ in self.next_predictions(sequences)]

    def next_predictions(self, sequences: Sequence[Mapping[str, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Beside the log-probabilities, whether each token is the most probable one: bool [n - 1] a sequence."""
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0, bool))] * len(sequences)
        for batch in plan([_length(one) for one in sequences], self.longest, self.tokens_per_batch):
            inputs = stack([sequences[index] for index in batch.indices], batch.rows, batch.length)
            values, best = (np.asarray(part) for part in self._next(self.params, inputs))
            for row, index in enumerate(batch.indices):
                last = _length(sequences[index]) - 1
                found[index] = values[row, :last].astype(np.float64), best[row, :last]
        return found

    def label_probs(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of the labels, `[texts, labels]`, given the rows that each text is the mean of."""
        sequences = [{"tokens": rows} for rows in texts]
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for batch in plan([len(rows) for rows in texts], self.longest, self.tokens_per_batch):
            inputs = stack([sequences[index] for index in batch.indices], batch.rows, batch.length)
            values = np.asarray(self._labels(self.params, inputs))
            for row, index in enumerate(batch.indices):
                found[index] = values[row]
        return np.stack(found) if found else np.zeros((0, 0))

    def stream_log_probs(
        self, sequences: Sequence[Mapping[str, np.ndarray]], targets: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """What a biLM gives to each word and sentence mark.

        Args:
          sequences: each with its sentence marks, n + 2 positions.
          targets: the vocabulary id at every position, sentence marks included.

        Returns:
          float64 [2, n + 1] a sequence: forward, of positions 1 to n + 1; backward, of positions 0 to n.
        """
        found: list[np.ndarray] = [np.zeros((2, 0))] * len(sequences)
        for batch in plan([_length(one) for one in sequences], self.longest, self.tokens_per_batch):
            inputs = stack([sequences[index] for index in batch.indices], batch.rows, batch.length)
            wanted = np.zeros((batch.rows, batch.length), np.int32)
            for row, index in enumerate(batch.indices):
                wanted[row, : len(targets[index])] = targets[index]
            carry = self.model.init_carry(batch.rows)
            values = np.asarray(self._stream(self.params, inputs, carry, wanted), np.float64)
            for row, index in enumerate(batch.indices):
                found[index] = values[row, :, : _length(sequences[index]) - 1]
        return found


def _length(sequence: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(sequence.values())))


def log_probs(
    rows: Float[Array, "N D"], table: Float[Array, "V D"], bias: Float[Array, " V"], targets: Int[Array, " N"]
) -> Float[Array, " N"]:
    """`log softmax(rows @ table.T + bias)[target]` in f32, of which only some rows of logits exist at a time."""
    return predictions(rows, table, bias, targets)[0]


def predictions(
    rows: Float[Array, "N D"], table: Float[Array, "V D"], bias: Float[Array, " V"], targets: Int[Array, " N"]
) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
    """Beside the log-probability of each target, whether none is more probable."""

    def one(item: tuple[Array, Array]) -> tuple[Array, Array]:
        row, target = item
        logits = jnp.matmul(table, row, preferred_element_type=jnp.float32) + bias.astype(jnp.float32)
        return logits[target] - jax.nn.logsumexp(logits), logits[target] >= logits.max()

    chunk = min(rows.shape[0], rows_per_chunk(table.shape[0]))
    return jax.lax.map(one, (rows, targets), batch_size=chunk)


def _masked(model: Any, params: Params, inputs: Any, positions: Array, targets: Array) -> Array:
    top = model.apply({"params": params}, inputs).hidden[-1]
    rows = jnp.take_along_axis(top, positions[:, None, None], axis=1)[:, 0]
    return log_probs(*model.apply({"params": params}, rows, method="readout"), targets)


def _distribution(model: Any, params: Params, inputs: Any, positions: Array) -> Array:
    top = model.apply({"params": params}, inputs).hidden[-1]
    rows = jnp.take_along_axis(top, positions[:, None, None], axis=1)[:, 0]
    rows, table, bias = model.apply({"params": params}, rows, method="readout")
    logits = (rows @ table.T).astype(jnp.float32)
    return jax.nn.log_softmax(logits + jnp.broadcast_to(bias.astype(jnp.float32)[None], logits.shape))


def _next(model: Any, params: Params, inputs: Any) -> tuple[Array, Array]:
    top = model.apply({"params": params}, inputs).hidden[-1][:, :-1]
    readout = model.apply({"params": params}, top.reshape(-1, top.shape[-1]), method="readout")
    values, best = predictions(*readout, inputs["tokens"][:, 1:].reshape(-1))
    return values.reshape(top.shape[:2]), best.reshape(top.shape[:2])


def _labels(model: Any, params: Params, inputs: Any) -> Array:
    pooled = model.apply({"params": params}, inputs).pooled[:, 0]
    rows, table, _ = model.apply({"params": params}, pooled, method="readout")
    return jax.nn.softmax(rows @ table.T)


def _stream(model: Any, params: Params, inputs: Any, carry: Any, targets: Array) -> Array:
    top = model.apply({"params": params}, inputs, carry, False).hidden[-1]
    forward, backward = jnp.split(top, 2, axis=-1)
    rows = jnp.stack([forward[:, :-1], backward[:, 1:]], axis=1)  # [B 2 T-1 P]
    wanted = jnp.stack([targets[:, 1:], targets[:, :-1]], axis=1)
    readout = model.apply({"params": params}, rows.reshape(-1, rows.shape[-1]), method="readout")
    return log_probs(*readout, wanted.reshape(-1)).reshape(wanted.shape)
