r"""Pretrain from a config, or go on where the run folder stopped.

    python -m ctxjax.train --config experiments/bert/pretrain.py:size=mini --workdir runs/mini \
        --config.source.corpus=DIR

With --config.seeds=5 it trains five runs that differ in their seed, as many at once as have room, and a folder
seed_N for each of them. An n-gram model (experiments/ngram/count.py) is counted in one pass by the same command.

The same command continues a run that was stopped or killed. Exit codes: 0 done; 2 a mistake in config or files (one
sentence on stderr, before any step); 3 the run cannot go on (numbers that are not finite, a full disk); 143 and 130
saved and stopped on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ctxjax import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--workdir", required=True, help="run folder: checkpoints, metrics.jsonl, config.json, ...")
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="save and stop after this step, with exit code 0")
    parser.add_argument(
        "--peak-flops", type=float, default=0.0, help="peak FLOP/s of one device, for the fraction of it that is used"
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="join the other hosts of a TPU pod; found without this flag under SLURM, GKE and launch/local.py",
    )
    args, config = cli.parse(parser, argv)

    from ctxjax import counted, paths, processes, run

    workdir = paths.at(args.workdir)
    if counted.is_counted(config):
        return counted.train(config, workdir)
    run.validate(config)
    processes.cache_compilations()
    processes.initialize(force=args.distributed)
    from ctxjax import seeds

    code = seeds.train(config, workdir, args.stop_at, args.peak_flops)
    processes.shutdown()
    return code


if __name__ == "__main__":
    cli.main_guard(main)
