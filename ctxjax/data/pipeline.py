"""Batches: a pure function of (source, seed, step), whoever asks and in whatever order.

Rows come from a random-access `grain.MapDataset`; this process makes only its own rows of each global batch, ahead of
time in threads or in worker processes. The order does not depend on processes, workers, threads or where a run resumes,
so a checkpoint holds a step number and the data's fingerprint and nothing else.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from ctxjax.config import ConfigError

Batch = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """What a file under `ctxjax/data/sources/` exports as `Source`; `example()` makes a small one on generated text."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-able: everything that the rows depend on beside seed and batch size; digests, never paths."""
        ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def tokens_per_row(self) -> int:
        """Real positions of a row (on average), for tokens per second and lengths in tokens."""
        ...

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Endless single rows, nested dicts without the batch axis; row i of step s is element s * batch_size + i.

        A source may also have `batch(seed, batch_size, elements)`, the same rows made together (and then get `rows`
        from `rows_of`): NumPy on whole batches is several times faster than on rows.
        """
        ...

    def steps_per_pass(self, batch_size: int) -> int: ...


def rows_of(source: Any, seed: int, batch_size: int) -> grain.MapDataset:
    """The `rows` of a source that has `batch(seed, batch_size, elements)`, which makes any elements together."""
    return grain.MapDataset.source(_Rows(source, seed, batch_size))


def batch_at(source: Source, seed: int, batch_size: int, step: int) -> Batch:
    """The whole global batch of one step."""
    return _Steps(source, seed, batch_size, 0, 1)[step]


def batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
) -> Batches:
    """Endless batches from a step on: the rows of this process, in order, made ahead of time.

    Args:
      source: what the rows are.
      seed: of the order and of everything random in a row.
      batch_size: rows of a *global* batch.
      start_step: where to begin; nothing before it is read.
      process_index, process_count: this process takes the rows [index, index + 1) * batch_size / count.
      threads: threads that make batches (in each worker); 0 makes them when they are asked for.
      workers: worker processes, for sources that keep a core busy; 0 for none.

    Raises:
      ConfigError: the batch cannot be divided among the processes.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ConfigError(f"config.batch_size={batch_size} is not a multiple of the {process_count} processes")
    if threads < 0 or workers < 0:
        raise ConfigError("config.threads and config.workers are not negative")
    steps = _Steps(source, seed, batch_size, process_index, process_count)
    dataset = grain.MapDataset.source(steps)[start_step:]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, 2 * threads) if threads else 0)
    stream = dataset.to_iter_dataset(options)
    if workers:
        _parse_flags()
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        stream = stream.mp_prefetch(processes, worker_init_fn=_start_worker)
    return Batches(iter(stream))


class Batches(Iterator[Batch]):
    """An iterator of batches that owns threads and processes; close it, or use it in a `with`."""

    def __init__(self, iterator: Any):
        self._iterator = iterator

    def __next__(self) -> Batch:
        if self._iterator is None:
            raise StopIteration
        return next(self._iterator)

    def close(self) -> None:
        """Stop threads and workers; a second time does nothing."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if sys is not None and not sys.is_finalizing():  # at the very end modules are already gone
            self.close()


class _Steps:
    """Random access by step: the rows that one process makes of each global batch, stacked."""

    def __init__(self, source: Source, seed: int, batch_size: int, process_index: int, process_count: int):
        self.source, self.seed, self.batch_size = source, seed, batch_size
        self.low = batch_size * process_index // process_count
        self.high = batch_size * (process_index + 1) // process_count
        self._rows: grain.MapDataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, step: Any) -> Batch:
        if self._rows is None:
            self._rows = self.source.rows(self.seed, self.batch_size)
        elements = np.arange(self.low, self.high) + int(step) * self.batch_size
        try:
            if hasattr(self.source, "batch"):
                return self.source.batch(self.seed, self.batch_size, elements)
            return _stack([self._rows[element] for element in elements.tolist()])
        except Exception as error:
            error.add_note(f"while making the rows {self.low}:{self.high} of the batch of step {int(step)}")
            raise


class _Rows:
    """Random access by element, for a source that makes batches."""

    def __init__(self, source: Any, seed: int, batch_size: int):
        self.source, self.seed, self.batch_size = source, seed, batch_size

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, element: Any) -> dict[str, Any]:
        return _first(self.source.batch(self.seed, self.batch_size, np.array([int(element)])))


def _first(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _first(values) for name, values in batch.items()}
    return batch[0]


def _stack(rows: list[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {name: _stack([row[name] for row in rows]) for name in rows[0]}
    return np.stack(rows)


def _parse_flags() -> None:
    """Grain's workers read absl flags, which nobody has parsed in a notebook, a test or a plain script."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _start_worker(index: int, count: int) -> None:
    """A worker ends when its parent does, however the parent ended."""
    del index, count
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
