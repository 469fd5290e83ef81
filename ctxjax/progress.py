"""What surrounds a loop: being told to stop, saying what happens, and summing numbers between two log lines."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ctxjax.metrics import add_terms, summarize

PREEMPTED = 143  # exit code of a run that saved and stopped because it was told to: 128 + SIGTERM
INTERRUPTED = 130


class Stop:
    """Whether to save and stop after a step: a signal to this process, or a preemption notice to any of several."""

    def __init__(self, stop_at: int | None = None):
        self.stop_at, self.signal = stop_at, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        # With several processes JAX listens for SIGTERM itself, and makes all of them stop at the same step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        del frame
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def reached(self, step: int) -> bool:
        """Called once after every step, by every process."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal != 0 or step == self.stop_at

    @property
    def exit_code(self) -> int:
        return {0: 0, signal.SIGINT: INTERRUPTED}.get(self.signal, PREEMPTED)


class Log:
    """One sentence a line, on stderr (unless `silent`) and in `train.log`, from process 0 alone."""

    def __init__(self, folder: pathlib.Path | None, silent: bool = False):
        self._file = open(folder / "train.log", "a", encoding="utf-8") if folder else None
        self.silent = silent
        self.bar: Any = None

    def __call__(self, text: str, quiet: bool = False) -> None:
        if self._file is None:
            return
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._file.flush()
        if quiet or self.silent:
            return
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Interval:
    """What is summed between two log lines; skipped steps count, but their numbers are left out of the means."""

    def __init__(self) -> None:
        self.steps = self.skipped = 0
        self.loss = self.grad_norm = self.data_wait = self.save = self.padding = 0.0
        self.terms: dict[str, Any] | None = None
        self.start, self.paused = time.perf_counter(), 0.0

    def add(self, values: Mapping[str, Any]) -> None:
        """The metrics of one step, on the host."""
        self.steps += 1
        if values["skipped"]:
            self.skipped += 1
            return
        self.loss += float(values["loss"])
        self.grad_norm += float(values["grad_norm"])
        self.terms = add_terms(self.terms, values["terms"])

    def summary(self, perplexity: tuple[str, ...]) -> dict[str, float]:
        taken = self.steps - self.skipped
        nan = float("nan")
        values = {"loss": self.loss / taken if taken else nan, "grad_norm": self.grad_norm / taken if taken else nan}
        return values | summarize(self.terms or {}, perplexity) | {"skipped": self.skipped}

    def seconds_per_step(self) -> float:
        """Wall time without evaluations and checkpoints."""
        return max(time.perf_counter() - self.start - self.paused, 1e-9) / max(self.steps, 1)


def padding_share(batch: Mapping[str, Any]) -> float:
    """Share of positions of a host batch that hold no token; 0 where there is no mask."""
    mask = batch["inputs"].get("mask")
    return 0.0 if mask is None else float(1.0 - np.mean(mask))


def clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}h{rest // 60:02d}m" if hours else f"{rest // 60}m{rest % 60:02d}s"


@contextlib.contextmanager
def progress_bar(log: Log, start: int, total: int, wanted: bool) -> Iterator[Any]:
    """A bar with the time left, where stderr is a terminal; None elsewhere."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=start, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:
        log.bar = bar
        try:
            yield bar
        finally:
            log.bar = None
