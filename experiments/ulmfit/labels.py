"""How many labels a classifier needs: error against the number of labelled texts, as in figure 3 of the paper.

    python experiments/ulmfit/labels.py --task topics.trec6 --texts texts/trec6 --pretrained runs/stage1 \
        --output runs/labels --size small --counts 100 200 500 1000

Three curves. `scratch`: a classifier without a language model. `supervised`: the language model goes on learning on the
labelled texts alone. `semi-supervised`: on all text of the task, train.jsonl and, where it is, unlabelled.jsonl. The
labelled texts are balanced, and smaller sets are parts of larger ones. Every stage is a program of this repository,
printed before it runs; run again, it goes on. At the end OUTPUT/curve.png and a record beside it.

Reference: Howard and Ruder 2018, section 5 and figure 3; errors there are of held-out texts, as here.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MODES = ("scratch", "supervised", "semi-supervised")
HERE = "experiments/ulmfit"
LANE = 140  # words of a lane at least, where there is little text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="topics.trec6", help="of classify.py (default topics.trec6)")
    parser.add_argument("--texts", type=pathlib.Path, required=True, help="what texts.py wrote")
    parser.add_argument("--pretrained", type=pathlib.Path, required=True, help="run folder of the first stage")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=("published", "small"), default="published")
    parser.add_argument("--recipe", choices=("paper", "script"), default="paper", help="of the third stage")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200, 500, 1000, 2000, 5000])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--lm_epochs", type=int, default=0, help="of the second stage (default: of its config)")
    parser.add_argument("--epochs", type=int, default=0, help="of the third (default: of its config)")
    parser.add_argument("--batch_size", type=int, default=32, help="texts of a step (default 32)")
    options = parser.parse_args(argv)

    from ctxjax.stages import run_stages

    (options.output / "texts").mkdir(parents=True, exist_ok=True)
    write_texts(options)
    if code := run_stages(prepare_stages(options)):
        return code
    if code := run_stages(train_stages(options)):
        return code
    errors = {mode: [error_of(run_of(options, mode, count)) for count in options.counts] for mode in options.modes}
    write_curve(options, errors)
    return 0


def run_of(options: argparse.Namespace, mode: str, count: int) -> pathlib.Path:
    """The run folder of one point of the curve."""
    return options.output / f"{mode}-{count}"


def corpus_of(options: argparse.Namespace, mode: str, count: int) -> pathlib.Path:
    """What the language model of one point learns from."""
    return options.output / "corpora" / (f"{count}" if mode == "supervised" else "all")


def write_texts(options: argparse.Namespace) -> None:
    """The text of the language models: all of the task, and that of every number of labels."""
    import numpy as np

    from ctxjax.data.sources.labelled_texts import read_texts
    from ctxjax.data.sources.long_texts import balanced

    lines = (options.texts / "train.jsonl").read_text().splitlines(keepends=True)
    labels = [label for label, _ in read_texts(options.texts / "train.jsonl")]
    _, targets = np.unique(labels, return_inverse=True)
    for count in options.counts if "supervised" in options.modes else ():
        chosen = balanced(targets, count)
        (options.output / "texts" / f"{count}.jsonl").write_text("".join(lines[place] for place in chosen))


def prepare_stages(options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """A vocabulary of all text of the task, and the corpora in it."""
    everything = [options.texts / f"{name}.jsonl" for name in ("train", "unlabelled")]
    inputs = {corpus_of(options, "semi-supervised", 0): [str(path) for path in everything if path.exists()]}
    for count in options.counts if "supervised" in options.modes else ():
        inputs[corpus_of(options, "supervised", count)] = [str(options.output / "texts" / f"{count}.jsonl")]
    stages = []
    for place, (corpus, paths) in enumerate(inputs.items()):
        words = ["--vocab", str(corpus_of(options, "semi-supervised", 0) / "tokenizer")]
        if not place:
            words = ["--tokenizer", "words", "--vocab_size", "30000", "--marked", "script"]
        heldout = ["--heldout_input", str(options.texts / "heldout.jsonl")]
        stages.append(
            (
                f"prepare {corpus.name}",
                ["-m", "ctxjax.prepare", "--input", *paths, *heldout, "--output", str(corpus), *words],
            )
        )
    return stages


def train_stages(options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Second and third stage of every point."""
    manifest = json.loads((corpus_of(options, "semi-supervised", 0) / "manifest.json").read_text())
    size = manifest["tokenizer"]["pieces"]
    made: dict[str, list[str]] = {}
    for mode in options.modes:
        for count in options.counts:
            corpus = corpus_of(options, mode, count)
            model = options.output / "lm" / corpus.name
            if mode != "scratch":
                held = json.loads((corpus / "manifest.json").read_text())["splits"]["train"]
                lanes = max(1, min(64 if options.size == "published" else 16, held["tokens"] // LANE))
                made[f"language model, {corpus.name}"] = [
                    *("-m", "ctxjax.train", "--config", f"{HERE}/finetune_lm.py:size={options.size}"),
                    *("--workdir", str(model), f"--config.source.corpus={corpus}", f"--config.model.vocab_size={size}"),
                    *(f"--config.init_from.path={options.pretrained}", f"--config.batch_size={lanes}"),
                    *([f"--config.total={options.lm_epochs} epochs"] if options.lm_epochs else []),
                ]
            recipe = "scratch" if mode == "scratch" else options.recipe
            begins = f"--config.init_from.path={model}"
            if mode == "scratch":
                begins = f"--config.source.tokenizer={corpus_of(options, 'semi-supervised', 0) / 'tokenizer'}"
            made[f"classifier, {mode}, {count} labels"] = [
                *(
                    "-m",
                    "ctxjax.train",
                    "--config",
                    f"{HERE}/classify.py:task={options.task},size={options.size},recipe={recipe}",
                ),
                *("--workdir", str(run_of(options, mode, count)), f"--config.source.corpus={options.texts}", begins),
                *(f"--config.source.limit={count}", f"--config.batch_size={min(options.batch_size, count)}"),
                *([f"--config.total={options.epochs} epochs"] if options.epochs else []),
            ]
    return list(made.items())


def error_of(run: pathlib.Path) -> float:
    """The error of held-out texts at the end of a run."""
    return json.loads((run / "record.json").read_text())["evaluation"]["heldout/error"]


def write_curve(options: argparse.Namespace, errors: dict[str, list[float]]) -> None:
    """The figure, and the record that it is drawn from."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from ctxjax import records

    about: dict[str, Any] = {
        "task": options.task,
        "size": options.size,
        "recipe": options.recipe,
        "counts": options.counts,
    }
    records.write_json(options.output / "curve.json", records.stamp("labels", about | {"error": errors}))
    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for mode, values in errors.items():
        axes.plot(options.counts, values, marker="o", label=mode)
    axes.set(xscale="log", xlabel="labelled texts", ylabel="error on held-out texts (%)", title=options.task)
    axes.set_xticks(options.counts, [str(count) for count in options.counts], minor=False)
    axes.minorticks_off()
    axes.legend()
    figure.savefig(options.output / "curve.png", dpi=150)
    print(f"wrote {options.output / 'curve.png'} and curve.json")


if __name__ == "__main__":
    from ctxjax import cli

    cli.main_guard(main)
