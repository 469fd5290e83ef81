"""Time to the first step after a restart: `python -m ctxjax.train` started again on a run, with a warm compile cache.

From the start of Python to the line of the first new step in metrics.jsonl: imports, checks, restoring the newest
checkpoint, the compiled step out of the cache, the first batch, one step. The run stops after that step and saves, so
each turn restarts from the one before. Beside it the same time of the very first start, with an empty cache. The cache
is a folder of this measurement alone.
"""

from __future__ import annotations

import json
import pathlib

from experiments.bench import programs
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

ITEMS = {"start_bert_base": "from the start of train to its first step, BERT base, compiled before"}
CONFIG = "experiments/bert/pretrain.py:size=base"


def make(name: str, settings: Settings) -> Work:
    """The work of the item."""
    del name
    changes = [] if settings.tiny else ["--config.batch_size=8"]
    config = f"{CONFIG},smoke" if settings.tiny else CONFIG
    return Work(
        counted="starts",
        ours=lambda: _ours(config, changes, programs.corpus_of(settings.corpus, "wordpiece")),
        notes={"corpus": "given" if settings.corpus else "generated"},
    )


def _ours(config: str, changes: list[str], corpus: str) -> Side:
    folder = programs.scratch()
    workdir, cache = folder / "run", folder / "compiled"
    fields = {"source.corpus": corpus, "total": "1000 steps", "log_every": "1 steps"}
    fields |= dict.fromkeys(("save_every", "eval_every"), "1000 steps")
    arguments = ["ctxjax.train", "--config", config, "--workdir", str(workdir), *changes]
    arguments += [f"--config.{field}={value}" for field, value in fields.items()]

    def start(step: int) -> tuple[float, int]:
        """Seconds until a step is logged, and peak bytes."""
        done = lambda: reached(workdir / "metrics.jsonl", step)
        environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        whole, peak, seen = programs.run([*arguments, "--stop-at", str(step)], environment, done, every=0.02)
        return whole if seen is None else seen, peak

    cold, _ = start(1)
    last = 1

    def step() -> Step:
        nonlocal last
        last += 1
        seconds, peak = start(last)
        also = {"seconds to the first step": seconds, "seconds to it when nothing is compiled": cold}
        return Step(1, seconds, memory=peak, also=also)

    return step


def reached(path: pathlib.Path, step: int) -> bool:
    """Whether metrics.jsonl has a whole line of a step."""
    if not path.is_file():
        return False
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return any("loss" in line and json.loads(line).get("step") == step for line in whole)
