#!/usr/bin/env python3
"""Start every run of a config's `get_sweep()` as a job of its own, by any of the launchers.

    python launch/sweep.py --config FILE.py:ARG --workdir DIR -- LAUNCHER

The launcher is a command to which `python -m ctxjax.train ...` is added; {number} in it is the number of the run:

    ... -- bash launch/slurm.sbatch submit --nodes=1 --gpus-per-node=8 --
    ... -- python launch/gke.py --name grid-{number} --image IMAGE --accelerator tpu-v6e-slice --topology 4x4 --
    ... --at-once 4 -- bash launch/tpu_pod.sh run --name grid-{number} --zone ZONE --type v5litepod-16 --
    ... -- python launch/local.py -n 2 --
    ... --

Without a launcher the runs are trained here, one after another. --dry-run prints every command and starts nothing.
When all have ended, `python -m ctxjax.sweep` with the same --config and --workdir finds them done and chooses.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from ctxjax import cli, sweep


def commands(
    spec: str,
    workdir: str,
    points: Mapping[str, Mapping[str, str]],
    launcher: Sequence[str],
    python: str,
    more: Sequence[str],
) -> list[list[str]]:
    """One command a run."""
    made = []
    for number, (name, settings) in enumerate(points.items(), start=1):
        train = [python, "-m", "ctxjax.train", "--config", spec, "--workdir", f"{workdir.rstrip('/')}/{name}", *more]
        fields = [f"--config.{field}={value}" for field, value in settings.items()]
        made.append([word.replace("{number}", str(number)) for word in launcher] + train + fields)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_config(parser)
    parser.add_argument("--workdir", required=True, help="folder for the runs of the sweep, or gs://...")
    parser.add_argument("--at-once", type=int, default=1, help="launchers that run at once")
    parser.add_argument("--python", default="python", help="the Python of the command that is added")
    parser.add_argument("--distributed", action="store_true", help="add --distributed: a TPU pod by launch/tpu_pod.sh")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument("launcher", nargs=argparse.REMAINDER, help="-- launcher and its options")
    args, settings = cli.parse_with_settings(parser, argv)
    launcher = args.launcher[1:] if args.launcher[:1] == ["--"] else args.launcher
    if args.at_once < 1:
        parser.error("--at-once is 1 or more")

    from ctxjax import run

    points = sweep.points(args.config, settings)
    for point in points.values():  # or a mistake shows when the machines are there
        run.validate(cli.parse_config(args.config, point))
    more = ["--distributed"] if args.distributed else []
    made = commands(args.config, args.workdir, points, launcher, args.python, more)
    if args.dry_run:
        print("\n".join(map(shlex.join, made)))
        return 0
    with ThreadPoolExecutor(args.at_once) as pool:
        codes = list(pool.map(lambda command: subprocess.run(command).returncode, made))
    for name, code in zip(points, codes):
        if code:
            print(f"{name}: exit code {code}", file=sys.stderr)
    return max(codes, key=abs)


if __name__ == "__main__":
    cli.main_guard(main)
