"""Measure ctxjax, and with --compare other people's code in turn with it, and write one JSON line an item.

    python -m experiments.bench --list
    python -m experiments.bench bert_mini --compare
    python -m experiments.bench word2vec_skipgram glove --corpus corpora/words --cores 2

Each item prints one line on stdout, and everything else on stderr; several items have a process each. An item leaves a
record in experiments/records/, which `python -m ctxjax.report --ledger` renders. docs/bench.md says what every number
means. The peers need the extra [bench].
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

from ctxjax import cli
from experiments.bench import (
    awd_lstm,
    bert,
    bilm,
    encode,
    finetune,
    gpt2,
    measure,
    prepare,
    similarity,
    start,
    trainer,
    training,
    vectors,
)

KINDS = (bert, bilm, awd_lstm, gpt2, encode, finetune, vectors, similarity, prepare, trainer, start)
ITEMS: dict[str, ModuleType] = {name: kind for kind in KINDS for name in kind.ITEMS}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="*", metavar="ITEM", help="see --list")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    parser.add_argument("--compare", action="store_true", help="take turns with the peers")
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each side (default 5)")
    parser.add_argument("--steps", type=int, default=0, help="steps of a turn (default: what the item takes)")
    parser.add_argument("--cores", type=int, default=0, help="use this many processor cores (default: all)")
    parser.add_argument("--corpus", default="", metavar="FOLDER", help="a prepared corpus (default: generated)")
    parser.add_argument("--text", default="", metavar="FILE", help="raw text of `prepare` items (default: generated)")
    parser.add_argument("--tiny", action="store_true", help="shapes that show that everything runs; no record")
    parser.add_argument("--no-record", action="store_true", help="write no record")
    options = parser.parse_intermixed_args(argv)  # items may stand behind flags
    if options.list:
        width = max(map(len, ITEMS))
        print("\n".join(f"{name:{width}}  {kind.ITEMS[name]}" for name, kind in ITEMS.items()))
        return 0
    check(options, parser)
    if len(options.items) > 1:
        return each_alone(argv, options.items)
    # Before JAX is imported: its threads are as many as cores, and a peer in this process needs device memory too.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores or None])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    line = measured(options.items[0], options)
    if not (options.no_record or options.tiny):
        from ctxjax import records

        path = records.write(f"bench_{line['item']}", line | {"figures": measure.figures(line)})
        print(f"wrote {path}", file=sys.stderr)
    print(json.dumps(line), flush=True)
    return 0


def check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what cannot be run, before anything is.

    Raises:
      ConfigError: an item that there is not.
    """
    from ctxjax.config import ConfigError, did_you_mean

    if not options.items:
        parser.error("name one item or several; --list says which there are")
    for name in options.items:
        if name not in ITEMS:
            raise ConfigError(f"there is no item {name!r}{did_you_mean(name, ITEMS)}; see --list")
    if options.turns < 1 or min(options.steps, options.cores) < 0:
        parser.error("--turns is at least 1, and --steps and --cores are not negative")


def each_alone(argv: Sequence[str], items: Sequence[str]) -> int:
    """A process for each item, so that peaks of memory and compiled programs are its own; 1 where one failed."""
    flags = [argument for argument in argv if argument not in items]
    codes = {name: subprocess.run([sys.executable, "-m", __package__, name, *flags]).returncode for name in items}
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def measured(name: str, options: argparse.Namespace) -> dict:
    """Measure one item in this process; what is printed meanwhile goes to stderr.

    Raises:
      ConfigError: a peer's library is missing, or the item cannot be run here.
    """
    from ctxjax.config import ConfigError

    settings = training.Settings(options.tiny, options.corpus, options.text)
    with contextlib.redirect_stdout(sys.stderr):
        work = ITEMS[name].make(name, settings)
        missing = [module for module in work.needs if importlib.util.find_spec(module) is None]
        if options.compare and work.peers and missing:
            raise ConfigError(f"the peers of {name} need {', '.join(missing)}; pip install -e .[bench]")
        if options.compare and not work.peers:
            print(f"{name} has no peer", file=sys.stderr)
        if options.compare and "torch" in work.needs:
            import torch

            torch.set_num_threads(len(os.sched_getaffinity(0)))
        size = 256 if options.tiny else 0
        return measure.measure(name, work, options.turns, options.steps, options.compare, size)


if __name__ == "__main__":
    cli.main_guard(main)
