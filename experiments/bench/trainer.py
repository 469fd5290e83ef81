"""What training costs beside its steps: waiting for data, and standing still for checkpoints.

    python experiments/bench/trainer.py bert_mini|bert_base|elmo_small [--corpus FOLDER] [--steps 40]

Runs `python -m ctxjax.train` on the config of that size, with four checkpoints on the way, and reads its metrics.jsonl:
the share of wall time that the loop waits for the next batch, and the seconds that it stands still at a save (after the
first interval, which fills the pipeline and starts the threads of the writer). Beside it, alone on the machine: batches
made by the same pipeline. Without --corpus the text is generated, and words of it are as short as syllables.

The floor. Data: none, as long as the pipeline makes batches faster than steps take them. A save: on a CPU the arrays
are copied once (the next step overwrites them), so twice the bytes of the state (parameters and two moments, or one
accumulator: 12 or 8 bytes a parameter) over the rate at which memory is copied, which is measured here too; the rest is
written behind the back of the loop.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
CONFIGS = {  # config file and argument, changes
    "bert_mini": ("bert/pretrain.py:size=mini", ["--config.batch_size=16"]),
    "bert_base": ("bert/pretrain.py:size=base", ["--config.batch_size=8"]),
    "elmo_small": ("elmo/pretrain.py:size=small", []),
}


def train(name: str, corpus: str, steps: int, workdir: pathlib.Path) -> list[dict]:
    """The training lines of the metrics of a short run, the first interval left out."""
    path, changes = CONFIGS[name]
    every = steps // 5
    command = [sys.executable, "-m", "ctxjax.train", "--config", f"experiments/{path}", "--workdir", str(workdir)]
    command += [f"--config.source.corpus={corpus}", f"--config.total={steps} steps", "--config.evals.heldout.batches=1"]
    command += [f"--config.{field}_every={every} steps" for field in ("log", "save")]
    subprocess.run([*command, f"--config.eval_every={steps} steps", *changes], cwd=ROOT, check=True)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "step_seconds" in line][1:]


def pipeline_alone(workdir: pathlib.Path, count: int = 300) -> float:
    """Batches a second of the run's pipeline when nobody else wants the processor."""
    from ctxjax import config as configs
    from ctxjax.data import pipeline

    config = json.loads((workdir / "config.json").read_text())
    source = configs.build("source", config["source"])
    with pipeline.batches(source, seed=0, batch_size=config["batch_size"], threads=config["threads"]) as stream:
        for _ in range(20):
            next(stream)
        start = time.perf_counter()
        for _ in range(count):
            next(stream)
        return count / (time.perf_counter() - start)


def copy_rate() -> float:
    """Bytes a second that a copy of a large array reads and writes."""
    x = np.ones(2**26, np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        x.copy()
        best = min(best, time.perf_counter() - start)
    return 2 * x.nbytes / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--corpus", help="a prepared corpus (default: generated)")
    parser.add_argument("--steps", type=int, default=40, help="steps of the run, a multiple of five (default 40)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    if options.steps < 10 or options.steps % 5:
        parser.error("--steps must be a multiple of five, 10 or more")
    from ctxjax import records
    from ctxjax.data.generated import generated_corpus

    corpus = options.corpus or generated_corpus("wordpiece" if options.name.startswith("bert") else "words")
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        lines = train(options.name, corpus, options.steps, workdir)
        alone = pipeline_alone(workdir)
        state = max((workdir / "checkpoints").iterdir(), key=lambda path: path.name)
        arrays = json.loads((state / "meta.json").read_text())["state"].values()
    nbytes = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for kind, shape in arrays)
    stalls = [line["checkpoint_stall_seconds"] for line in lines]
    seconds = statistics.median(line["step_seconds"] for line in lines)
    result = {
        "bench": options.name,
        "corpus": "given" if options.corpus else "generated",
        "step_seconds": seconds,
        "data_wait_share": statistics.median(line["data_wait"] for line in lines),
        "pipeline_batches_per_second": alone,
        "pipeline_over_step": alone * seconds,
        "state_bytes": nbytes,
        "stall_seconds": stalls,
        "stall_floor_seconds": 2 * nbytes / copy_rate(),
    }
    for name, value in result.items():
        print(f"{name:28} {value}")
    if not options.no_record:
        figures = {
            "share of time waiting for data": f"{100 * result['data_wait_share']:.2f} %",
            "batches the pipeline makes alone, a step": round(result["pipeline_over_step"], 1),
            f"stall of a save of {nbytes / 1e6:,.0f} MB": f"{statistics.median(stalls):.3f} s",
            "floor of it (one copy)": f"{result['stall_floor_seconds']:.3f} s",
        }
        print(records.write(f"bench_trainer_{options.name}", result | {"figures": figures}))


if __name__ == "__main__":
    main()
