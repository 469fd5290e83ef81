r"""Write what a fine-tuned run tells of a split, in the official layout of its task.

    python -m ctxjax.predict --workdir runs/rte --split test --output predictions
    python -m ctxjax.predict --workdir runs/mnli --split test_mm --output predictions
    python -m ctxjax.predict --workdir runs/mnli --split diagnostic --output predictions

The config is the one in the checkpoint; --config.source.corpus=DIR names its files where they have moved. What is
written has the official name of a submission (RTE.tsv, MNLI-mm.tsv, AX.tsv, predictions.json), or that of the
split; of tagged words it is what conlleval reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ctxjax import cli

WRITERS = ("task", "squad", "entities", "word_accuracy")  # evaluators that write predictions


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="run folder or step folder; --config.FIELD=VALUE as in train")
    parser.add_argument("--step", type=int, help="the newest step by default")
    parser.add_argument("--split", default="test", help="of the task's files; default: test")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the file of predictions is written")
    args, settings = cli.parse_with_settings(parser, argv)

    import jax

    from ctxjax import config as configs
    from ctxjax import folders, processes, trained
    from ctxjax.config import ConfigError

    processes.cache_compilations()
    processes.initialize()
    folder = folders.find(args.workdir, args.step)
    meta = folders.read_meta(folder)
    config = trained.from_meta(meta, settings)
    fields = next((fields for fields in config.get("evals", {}).values() if fields.name in WRITERS), None)
    if fields is None:
        names = " or ".join(map(repr, WRITERS))
        raise ConfigError(f"{args.workdir} has no evaluator {names} in config.evals, which write predictions")
    run, mesh, params = trained.restored(config, folder, meta)
    given = {**fields.to_dict(), "split": args.split} | ({"baseline": False} if fields.name == "task" else {})
    about = {"model": run.model, "objective": run.objective, "open_source": run.open_source, "mesh": mesh}
    evaluator = configs.build("evaluator", given, **about, train_batch_size=config.batch_size)
    path = evaluator.predict(params, args.output)
    if jax.process_index() == 0:
        source = evaluator.source
        told = len(source.examples if hasattr(source, "examples") else source.sentences)
        print(f"wrote {path}: {told} predictions of {args.split} by step {meta['step']}")
    processes.shutdown()
    return 0


if __name__ == "__main__":
    cli.main_guard(main)
