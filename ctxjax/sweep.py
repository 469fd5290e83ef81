r"""Train every run of a config's `get_sweep()`, one after another, and choose among them by `config.best`.

    python -m ctxjax.sweep --config FILE.py:ARG --workdir runs/grid --config.best="highest dev/accuracy"

`get_sweep()` stands beside `get_config` in the file and yields dicts of dotted fields, as in

    def get_sweep():
        yield from grid(**{"optim.lr": (5e-5, 3e-5, 2e-5), "total": ("2 epochs", "3 epochs", "4 epochs")})

Each run has a folder within the workdir, named after its fields; with config.seeds each has several seeds, and is
chosen by their mean. The same command goes on where it stopped, and leaves finished runs alone. At the end a table goes
to stdout, and to WORKDIR/record.json the record of the chosen run with that table in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ctxjax import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--workdir", required=True, help="folder for the runs of the sweep")
    args, settings = cli.parse_with_settings(parser, argv)

    import jax

    from ctxjax import best, processes, run
    from ctxjax.config import ConfigError

    made = {name: cli.parse_config(args.config, point) for name, point in points(args.config, settings).items()}
    for config in made.values():
        run.validate(config)
    chosen = run.optional(next(iter(made.values())), "best", "")
    if not chosen:
        raise ConfigError("config.best is empty, and a sweep chooses by it: as in --config.best='highest dev/accuracy'")
    processes.cache_compilations()
    processes.initialize()
    code = train(made, args.workdir)
    if code == 0:
        metric, sign = best.parse(chosen)
        rows = read(args.workdir, list(made))
        order = choose(rows, metric, sign)
        if jax.process_index() == 0:
            print(table(rows, order, metric))
        write(args.workdir, rows, order, chosen)
    processes.shutdown()
    return code


def points(spec: str, settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Every run of `get_sweep()` by its name: all of its dotted settings, as text.

    Raises:
      ConfigError: no `get_sweep`, no run, or one that comes twice.
    """
    from ctxjax import config as configs
    from ctxjax.config import ConfigError

    found = configs.load_sweep(spec)
    made = {name_of(point): {**settings, **{name: _text(value) for name, value in point.items()}} for point in found}
    if not made:
        raise ConfigError(f"get_sweep() of {spec} yields nothing")
    if len(made) < len(found):
        raise ConfigError(f"get_sweep() of {spec} yields the same run twice")
    return made


def name_of(point: Mapping[str, Any]) -> str:
    """`{"optim.lr": 5e-5, "total": "2 epochs"}` -> `lr=5e-05,total=2_epochs`."""
    parts = (f"{field.rpartition('.')[2]}={_text(value)}" for field, value in point.items())
    return re.sub(r"[^A-Za-z0-9_.=,+-]", "_", ",".join(parts))


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, tuple)) else str(value)


def train(made: Mapping[str, Any], workdir: str | os.PathLike[str]) -> int:
    """Train what has not ended; returns the exit code of the first run that was stopped.

    A run that diverges is recorded as failed, as one of several seeds is.
    """
    from ctxjax import paths, seeds

    workdir = paths.at(workdir)
    for number, (name, config) in enumerate(made.items(), start=1):
        print(f"run {number} of {len(made)}: {name}", file=sys.stderr, flush=True)
        code = seeds.train(config, workdir / name, survives=True)
        if code or not seeds.ended([workdir / name]):
            return code
    return 0


def read(workdir: str | os.PathLike[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The record of each run."""
    from ctxjax import paths

    workdir = paths.at(workdir)
    return {name: json.loads((workdir / name / "record.json").read_text(encoding="utf-8")) for name in names}


def figure(record: Mapping[str, Any], metric: str) -> float:
    """The figure that a run is chosen by; NaN of one that has none."""
    from ctxjax.seeds import outcome

    return (
        float("nan")
        if record.get("failed") and not record.get("seeds")
        else outcome.figures(record).get(metric, float("nan"))
    )


def choose(rows: Mapping[str, Mapping[str, Any]], metric: str, sign: float) -> list[str]:
    """The names of the runs, the best first; of two that are equal the one that came first, and failed ones last."""
    from math import inf, isnan

    worth = {name: figure(record, metric) for name, record in rows.items()}
    return sorted(rows, key=lambda name: inf if isnan(worth[name]) else -sign * worth[name])


def table(rows: Mapping[str, Mapping[str, Any]], order: Sequence[str], metric: str) -> str:
    """The runs as Markdown, the best first."""
    head = ["run", metric, "deviation", "failed", "steps"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name in order:
        record = rows[name]
        deviation, failed = record.get("deviation", {}).get(metric), record.get("failed")
        count = len(failed) if isinstance(failed, Mapping) else int(bool(failed))
        cells = (name, f"{figure(record, metric):.4f}", f"{float(deviation):.4f}" if deviation else "", count)
        lines.append(f"| {' | '.join(str(cell) for cell in (*cells, record['steps']))} |")
    return "\n".join(lines)


def write(workdir: str | os.PathLike[str], rows: Mapping[str, Any], order: Sequence[str], chosen: str) -> None:
    """record.json of the sweep: the chosen run's, and what it was chosen from."""
    import jax

    from ctxjax import best, metrics, paths, records

    if jax.process_index() == 0:
        metric, _ = best.parse(chosen)
        points = [{"run": name, metric: metrics.plain(figure(rows[name], metric))} for name in order]
        records.write_json(
            paths.at(workdir) / "record.json", rows[order[0]] | {"sweep": {"by": chosen, "runs": points}}
        )


if __name__ == "__main__":
    cli.main_guard(main)
