"""The mean of several classifiers: `python experiments/ulmfit/ensemble.py runs/forward runs/backward --split test`.

Prints the error of each run and that of their averaged probabilities, and writes them down as a record where asked. The
runs have to label the same texts, but each reads them its own way. Reference: Howard and Ruder 2018, section 3.3.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="run folders of classifiers")
    parser.add_argument("--split", default="test", help="train, heldout or test (default)")
    parser.add_argument("--corpus", help="where the texts are now, if not where they were")
    parser.add_argument("--record", type=pathlib.Path, help="folder of records to write one to")
    options = parser.parse_args(argv)
    found = ensemble(options.runs, options.split, options.corpus)
    width = max(len(name) for name in found)
    for name, error in found.items():
        print(f"{name:<{width}}  error {error:6.2f} %")
    if options.record:
        from ctxjax import records

        print(f"wrote {records.write('ensemble', {'split': options.split, 'error': found}, options.record)}")
    return 0


def ensemble(runs: list[pathlib.Path], split: str, corpus: str | None = None) -> dict[str, float]:
    """The error in percent of every run, and of their "mean".

    Raises:
      ConfigError: runs that do not label the same texts with the same labels.
    """
    from ctxjax import folders
    from ctxjax.config import ConfigError
    from ctxjax.evaluators.label_error import Evaluator
    from ctxjax.trained import from_meta, restored

    told: list[np.ndarray] = []
    about: list[Any] = []
    for path in runs:
        folder = folders.find(path)
        meta = folders.read_meta(folder)
        run, mesh, params = restored(from_meta(meta, {"source.corpus": corpus} if corpus else {}), folder, meta)
        given = {"model": run.model, "objective": run.objective, "open_source": run.open_source, "mesh": mesh}
        evaluator = Evaluator(split, **given, train_batch_size=run.config.batch_size)
        about.append((run.source.labels, evaluator.source.targets.tolist()))
        if about[-1] != about[0]:
            raise ConfigError(f"{path} and {runs[0]} label other texts, or with other labels; name runs of one task")
        told.append(evaluator.probabilities(params))
    targets = np.asarray(about[0][1])

    def error(probabilities: np.ndarray) -> float:
        return 100.0 * float((probabilities.argmax(-1) != targets).mean())

    return {str(path): error(one) for path, one in zip(runs, told)} | {"mean": error(np.mean(told, axis=0))}


if __name__ == "__main__":
    from ctxjax import cli

    cli.main_guard(main)
