"""Where the numbers of a run go: JSON lines always, TensorBoard and wandb when asked; and where its time went.

`metrics.jsonl` is the record of truth: one JSON object a line, flushed at once, only ever appended to. A run that was
killed and continued from an earlier step writes `{"resumed": step}`, and `read` leaves out what that made void.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ctxjax import paths
from ctxjax.config import ConfigError
from ctxjax.types import Mean

# Dense bf16 peak of one device in FLOP/s, by what JAX calls it; from the makers' data sheets. First match wins.
PEAKS = (
    ("TPU v6 lite", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),  # a core, which is a device there
    ("TPU v2", 23e12),
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("V100", 125e12),
)


def peak_flops(kind: str) -> float | None:
    """Dense bf16 peak FLOP/s of a device kind, None where it is not known (every CPU)."""
    return next((peak for name, peak in PEAKS if name.lower() in kind.lower()), None)


def summarize(terms: Mapping[str, Mean], perplexity: tuple[str, ...] = ()) -> dict[str, float]:
    """Means of terms, and `exp` of those that are log-likelihoods; `perplexity` alone is that of all of them."""
    values = {name: mean.compute() for name, mean in terms.items()}
    logs = [name for name in perplexity if name in values]
    for name in logs:
        values[f"{name}_perplexity"] = _exp(values[name])
    if len(logs) > 1:
        values["perplexity"] = _exp(float(np.mean([values[name] for name in logs])))
    return values


def _exp(value: float) -> float:
    return math.inf if value >= 700 else math.exp(value)


def add_terms(total: dict[str, Mean] | None, terms: Mapping[str, Mean]) -> dict[str, Mean]:
    """Sum on the host in float64."""
    fresh = {
        name: Mean(np.asarray(mean.total, np.float64), np.asarray(mean.weight, np.float64))
        for name, mean in terms.items()
    }
    return fresh if total is None else {name: total[name] + mean for name, mean in fresh.items()}


@runtime_checkable
class Writer(Protocol):
    """A place for numbers."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def plain(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite becomes the text that `float` reads back."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class JsonLines:
    """Appends to a file, a line at a time."""

    def __init__(self, path: str | os.PathLike[str]):
        path = pathlib.Path(path)
        torn = path.exists() and path.stat().st_size and path.read_bytes()[-1:] != b"\n"
        self._file = open(path, "a", encoding="utf-8")
        if torn:  # the last writer was killed within a line
            self._file.write("\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.event({"step": step, **values})

    def event(self, values: Mapping[str, Any]) -> None:
        """A line of its own kind."""
        self._file.write(json.dumps({name: plain(value) for name, value in values.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: str | os.PathLike[str], everything: bool = False) -> list[dict[str, Any]]:
    """The lines of a metrics file that have a step, without those that a later resume made void.

    Args:
      path: `metrics.jsonl` or the run folder.
      everything: the lines without a step too (`resumed`, `session`), and the void ones.
    """
    path = paths.at(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn by a kill
        line = {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in line.items()}
        if "resumed" in line and not everything:
            lines = [earlier for earlier in lines if earlier["step"] <= line["resumed"]]
        elif "step" in line or everything:
            lines.append(line)
    return lines


class TensorBoard:
    """Scalars for TensorBoard, without TensorFlow."""

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError("config.tensorboard needs tensorboardX: pip install ctxjax[tensorboard]") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Scalars for Weights & Biases; the run continues under the id that is kept in the run folder."""

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise ConfigError("config.wandb needs wandb: pip install ctxjax[wandb]") from None
        identity = pathlib.Path(folder) / "wandb_id"
        if not identity.exists():
            identity.write_text(os.urandom(4).hex())
        self._run = wandb.init(
            project="ctxjax", id=identity.read_text(), resume="allow", dir=str(folder), config=dict(config)
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def make_writers(
    folder: str | os.PathLike[str], config: Mapping[str, Any], tensorboard: bool = False, wandb: bool = False
) -> list[Writer]:
    """The writers of a run folder, JSON lines first."""
    writers: list[Writer] = [JsonLines(pathlib.Path(folder) / "metrics.jsonl")]
    if tensorboard:
        writers.append(TensorBoard(pathlib.Path(folder) / "tensorboard"))
    if wandb:
        writers.append(Wandb(folder, config))
    return writers


class Ledger:
    """Where the wall clock went: named spans that do not overlap (an inner span is taken out of the outer one).

    The spans and "other" add up to the wall time since the ledger was made.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self._stack: list[tuple[str, float]] = []

    def _charge(self, now: float) -> None:
        if self._stack:
            name, since = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - since
            self._stack[-1] = (name, now)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge(time.perf_counter())
        self._stack.append((name, time.perf_counter()))
        try:
            yield
        finally:
            now = time.perf_counter()
            self._charge(now)
            self._stack.pop()
            if self._stack:
                self._stack[-1] = (self._stack[-1][0], now)

    def summary(self) -> dict[str, float]:
        """Seconds by name, with `other` and `wall`."""
        self._charge(time.perf_counter())
        wall = time.perf_counter() - self._start
        spans = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return spans | {"other": round(wall - sum(self.seconds.values()), 3), "wall": round(wall, 3)}
