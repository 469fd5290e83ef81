"""Run a config's evaluators on a checkpoint and print what they find.

    python -m ctxjax.evaluate --workdir runs/mini
    python -m ctxjax.evaluate --workdir runs/mini --step 10000 --config.evals.heldout.batches=0
    python -m ctxjax.evaluate --workdir runs/names@best --only spans --examples told
    python -m ctxjax.evaluate --workdir runs/kn5 runs/mini gpt2/ --config experiments/evaluate/without_labels.py

Without --config the config is the one in the checkpoint. A config without a model is a suite: it is run on anything
that ctxjax.load opens, on several at once, and prints one table. Otherwise the numbers go to stdout as JSON. Where
--record names a folder, they go to a record too.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxjax import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser, required=False)
    parser.add_argument(
        "--workdir", required=True, nargs="+", help="run folder or step folder; for a suite any models, several too"
    )
    parser.add_argument("--step", type=int, help="the newest step by default")
    parser.add_argument("--only", help="the name of one evaluator of config.evals")
    parser.add_argument("--record", metavar="FOLDER", help="write a record of the numbers there")
    parser.add_argument(
        "--examples", metavar="FOLDER", help="write what the run tells of every example there, for ctxjax.compare"
    )
    parser.add_argument("--output", metavar="FILE", help="of a suite: write the table as JSON too")
    args, settings = cli.parse_with_settings(parser, argv)

    from ctxjax import counted, digests, folders, processes, suite, trained
    from ctxjax.config import ConfigError

    processes.cache_compilations()
    config = cli.parse_config(args.config, settings) if args.config else None
    if config is not None and suite.is_suite(config):
        return run_suite(config, args)
    if len(args.workdir) > 1:
        raise ConfigError("--workdir names several models, which a suite compares; this config is of one model")
    processes.initialize()
    folder = folders.find(args.workdir[0], args.step)
    meta = folders.read_meta(folder)
    config = trained.from_meta(meta, settings) if config is None else config
    if counted.is_counted(config):
        raise ConfigError(
            f"{args.workdir[0]} is a table of counts, whose record has its figures; for others name a suite, as in "
            "--config experiments/evaluate/without_labels.py"
        )
    found = evaluate(config, folder, meta, args.only, args.examples)
    import jax

    from ctxjax import records

    if jax.process_index() == 0:
        print(json.dumps({"step": meta["step"], **found}, indent=1))
        if args.record:
            about = {
                "step": meta["step"],
                "trained_at": meta["code"],
                "digests": digests.digest_file(folder / digests.DIGESTS),
            }
            path = records.write("evaluate", about | {"evaluation": found, "config": config_of(config)}, args.record)
            print(f"wrote {path}", file=sys.stderr)
    processes.shutdown()
    return 0


def run_suite(config: Any, args: argparse.Namespace) -> int:
    """Every evaluator of a suite on every model; prints a table, and writes a record a model."""
    from ctxjax import config as configs
    from ctxjax import pretrained, records, suite

    evaluators = suite.evaluators(config, args.only)
    found = {}
    for name, path in zip(suite.names(args.workdir), args.workdir):
        model = pretrained.load(path, args.step)
        print(repr(model), file=sys.stderr)
        found[name] = suite.run(evaluators, model, lambda text: print(text, file=sys.stderr))
        if args.record:
            about = {
                "model": model.config,
                "step": model.meta.get("step"),
                "config": records.without_paths(configs.to_dict(config)),
            }
            written = records.write("suite", about | {"of": name, "suite": found[name]}, args.record)
            print(f"wrote {written}", file=sys.stderr)
        del model
    if args.output:
        records.write_json(args.output, found)
    print(suite.table(found))
    return 0


def config_of(config: Any) -> dict[str, Any]:
    """The config as JSON-able data, without the path of the corpus."""
    from ctxjax import config as configs
    from ctxjax import records

    plain = records.without_paths(configs.to_dict(config))
    plain["source"]["corpus"] = pathlib.Path(plain["source"]["corpus"]).name
    return plain


def evaluate(
    config: Any, folder: Any, meta: dict[str, Any], only: str | None = None, examples: str | None = None
) -> dict[str, float]:
    """Every evaluator of a config on the parameters of a step folder.

    Args:
      config, folder, meta: of the run, its step folder and that one's meta data.
      only: the name of one evaluator.
      examples: a folder where evaluators that can tell about single examples write NAME.jsonl.

    Raises:
      ConfigError: a damaged checkpoint, another model, a tokenizer that is not the checkpoint's, no such evaluator.
    """
    from ctxjax import paths, trained
    from ctxjax.config import ConfigError, did_you_mean

    if only and only not in config.evals:
        raise ConfigError(f"config.evals has no {only!r}{did_you_mean(only, config.evals)}")
    run, mesh, params = trained.restored(config, folder, meta)
    found: dict[str, float] = {}
    for name, evaluator in run.evaluators(mesh).items():
        if only in (None, name):
            found |= {f"{name}/{metric}": value for metric, value in evaluator.run(params).items()}
            if examples and hasattr(evaluator, "examples"):
                write_examples(paths.at(examples) / f"{name}.jsonl", evaluator.examples(params))
    return found


def write_examples(path: str | os.PathLike[str], examples: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    import jax

    from ctxjax import paths

    lines = [json.dumps(example, ensure_ascii=False) for example in examples]
    if jax.process_index() == 0:
        path = paths.at(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_text(path, "".join(f"{line}\n" for line in lines))
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    cli.main_guard(main)
