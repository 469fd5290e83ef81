"""What training costs beside its steps: waiting for data, and standing still for checkpoints.

Runs `python -m ctxjax.train` on the config of a size, with four checkpoints on the way, and reads its metrics.jsonl:
the share of wall time that the loop waits for the next batch, and the seconds that it stands still at a save (after the
first interval, which fills the pipeline and starts the threads of the writer). Beside it, alone on the machine: batches
made by the same pipeline. The rate is that of the steps, without evaluations and saves. `--corpus FOLDER` is what is
read; the words of a generated one are as short as syllables.

The floor. Data: none, as long as the pipeline makes batches faster than steps take them. A save: on a CPU the arrays
are copied once (the next step overwrites them), so twice the bytes of the state (parameters and two moments, or one
accumulator: 12 or 8 bytes a parameter) over the rate at which memory is copied, which is measured here too; the rest is
written behind the back of the loop.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from typing import Any

import numpy as np

from experiments.bench import programs
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

CONFIGS = {  # config file and argument, kind of corpus, changes
    "trainer_bert_mini": ("bert/pretrain.py:size=mini", "wordpiece", ["--config.batch_size=16"]),
    "trainer_bert_base": ("bert/pretrain.py:size=base", "wordpiece", ["--config.batch_size=8"]),
    "trainer_elmo_small": ("elmo/pretrain.py:size=small", "words", []),
}
ITEMS = {name: f"waiting for data and for saves in a run of {config}" for name, (config, *_) in CONFIGS.items()}


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `CONFIGS`."""
    config, kind, changes = CONFIGS[name]
    steps, batches = (10, 20) if settings.tiny else (40, 300)
    if settings.tiny:
        config, changes = f"{config},smoke", []
    return Work(
        counted="tokens",
        ours=lambda: _ours(config, changes, settings.corpus, kind, steps, batches),
        notes={"corpus": "given" if settings.corpus else "generated", "steps_of_the_run": steps},
    )


def _ours(config: str, changes: list[str], corpus: str, kind: str, steps: int, batches: int) -> Side:
    corpus = programs.corpus_of(corpus, kind)
    fields = {"source.corpus": corpus, "total": f"{steps} steps", "evals.heldout.batches": 1}
    fields |= {f"{what}_every": f"{steps // 5} steps" for what in ("log", "save")} | {"eval_every": f"{steps} steps"}
    settings = [f"--config.{field}={value}" for field, value in fields.items()] + changes

    def step() -> Step:
        workdir = programs.scratch() / "run"
        arguments = ["ctxjax.train", "--config", f"experiments/{config}", "--workdir", str(workdir), *settings]
        _, peak, _ = programs.run(arguments)
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if "step_seconds" in line]
        timed = lines[1:]
        tokens = timed[-1]["tokens"] - lines[0]["tokens"]
        seconds = sum(line["step_seconds"] for line in timed) * (steps // 5)
        nbytes = _state_bytes(workdir)
        alone = _pipeline_alone(workdir, batches) * statistics.median(line["step_seconds"] for line in timed)
        also = {
            "share of time waiting for data": statistics.median(line["data_wait"] for line in timed),
            "batches the pipeline makes alone, a step": alone,
            "MB of a save": nbytes / 1e6,
            "seconds a save stands still": statistics.median(line["checkpoint_stall_seconds"] for line in timed),
            "seconds of its floor (one copy)": 2 * nbytes / _copy_rate(),
        }
        return Step(tokens, seconds, memory=peak, also=also)

    return step


def _state_bytes(workdir: pathlib.Path) -> int:
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: path.name)
    arrays = json.loads((newest / "meta.json").read_text())["state"].values()
    return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for kind, shape in arrays)


def _pipeline_alone(workdir: pathlib.Path, count: int) -> float:
    """Batches a second of the run's pipeline when nobody else wants the processor."""
    from ctxjax import config as configs
    from ctxjax.data import pipeline

    config: dict[str, Any] = json.loads((workdir / "config.json").read_text())
    source = configs.build("source", config["source"])
    with pipeline.batches(source, seed=0, batch_size=config["batch_size"], threads=config["threads"]) as stream:
        for _ in range(min(20, count)):
            next(stream)
        began = time.perf_counter()
        for _ in range(count):
            next(stream)
        return count / (time.perf_counter() - began)


def _copy_rate() -> float:
    """Bytes a second that a copy of a large array reads and writes."""
    x = np.ones(2**26, np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        x.copy()
        best = min(best, time.perf_counter() - began)
    return 2 * x.nbytes / best
