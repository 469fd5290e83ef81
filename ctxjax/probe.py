"""Probe the layers of frozen models: which one knows parts of speech, names, senses, beside a control task.

    python -m ctxjax.probe --config experiments/probe/layers.py --config.models='["runs/bert"]' --output probes
    python -m ctxjax.probe --config experiments/probe/layers.py --output dynamics \
        --config.models='["runs/bert/checkpoints/00001000", "runs/bert/checkpoints/00010000"]'

Each model's vectors of each task's words are stored once, as `python -m ctxjax.features` does, and linear probes of all
layers are trained on them (ctxjax/probing.py). OUTPUT gets probes.json and probes.png; of several steps of a run the
picture shows how each layer learns. --config.mixes='["runs/names"]' draws the mixes of layers that taggers have learned
beside them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ctxjax import cli


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--output", required=True, help="folder for probes.json and probes.png")
    parser.add_argument("--record", metavar="FOLDER", help="write a record there, too")
    args, config = cli.parse(parser, argv)

    from ctxjax import config as configs
    from ctxjax import paths, pretrained, records, suite
    from ctxjax.config import ConfigError

    output = paths.local(args.output, "--output")
    if not config.models:
        raise ConfigError("config.models is empty: set it to a JSON list of what ctxjax.load opens")
    mixes = {path: read_mix(path) for path in config.mixes}
    found: dict[str, Any] = {}
    for name, path in zip(suite.names(list(config.models)), config.models):
        model = pretrained.load(path)
        print(repr(model), file=sys.stderr)
        tasks = {task: probe_task(model, path, task, config) for task in config.tasks}
        found[name] = {"step": model.meta.get("step"), "tasks": tasks}
        del model
    payload = {"probes": found, "mixes": mixes, "config": configs.to_dict(config)}
    output.mkdir(parents=True, exist_ok=True)
    records.write_json(output / "probes.json", records.stamp("probe", payload))
    draw(found, mixes, output / "probes.png")
    if args.record:
        print(f"wrote {records.write('probe', payload, args.record)}", file=sys.stderr)
    print(table(found))
    print(f"wrote {output / 'probes.json'} and probes.png", file=sys.stderr)
    return 0


def probe_task(model: Any, path: str, task: str, config: Any) -> dict[str, Any]:
    """The figures of one task on one model: see `ctxjax.probing.figures`, and f1 where the tags say spans."""
    from tqdm import tqdm

    from ctxjax import probing

    train, heldout = (_source(path, task, split, config) for split in ("train", "heldout"))
    labels = train.labels
    ours, theirs = (_labelled(source, model, labels) for source in (train, heldout))
    with tqdm(desc=f"{task}: probes of {path}", disable=None, dynamic_ncols=True, unit=" steps") as bar:
        fields = config.probe.to_dict()
        bar.total = fields["epochs"] * (len(ours.places) // min(fields["batch_size"], len(ours.places)))
        told = probing.fit(ours, theirs, len(labels), progress=lambda _: bar.update(), **fields)
    found: dict[str, Any] = dict(probing.figures(ours, theirs, told, len(labels), fields["seed"]))
    if heldout.scheme and config.edges:
        found["edges"] = probe_edges(train, heldout, ours.vectors, theirs.vectors, config.edges.to_dict())
    if heldout.scheme:
        sentences = heldout.sentences
        lengths, tags = [len(one.words) for one in sentences], [one.tags for one in sentences]
        found["f1"] = probing.span_scores(told, labels, lengths, tags)
    return found | {"labels": len(labels), "trained_on": len(ours.places)}


def probe_edges(train: Any, heldout: Any, ours: Any, theirs: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What edge probes find of the spans of a task: see `ctxjax.edge_probing.fit`."""
    from ctxjax import edge_probing
    from ctxjax.text import tags

    kinds = sorted({tags.cut(label)[1] for label in train.labels} - {""})
    spans = [
        edge_probing.spans_of(source.sentences, source.scheme, vectors, kinds)
        for source, vectors in ((train, ours), (heldout, theirs))
    ]
    return edge_probing.fit(*spans, len(kinds), **fields)


def _source(path: str, task: str, split: str, config: Any) -> Any:
    from ctxjax import config as configs
    from ctxjax.evaluators import reading

    fields = config.tasks[task]
    corpus = str(reading.existing(f"tasks.{task}.corpus", fields.corpus))
    more = {"corpus": corpus, "split": split, "vectors_of": (path,), "layers": "all"}
    return configs.build("source", {**fields, **more})


def _labelled(source: Any, model: Any, labels: Sequence[str]) -> Any:
    """The words of a split that have a tag, with their vectors, stored first where they are not yet."""
    import numpy as np

    from ctxjax import probing, storing
    from ctxjax.config import ConfigError

    numbers = {label: number for number, label in enumerate(labels)}
    tagged = [(word, tag) for one in source.sentences for word, tag in zip(one.words, one.tags)]
    places = np.array([place for place, (_, tag) in enumerate(tagged) if tag], np.int64)
    if not len(places):
        raise ConfigError(f"{source.file(source.split)} has no word with a tag")
    words = [tagged[place][0] for place in places.tolist()]
    targets = np.array([numbers.get(tagged[place][1], -1) for place in places.tolist()], np.int32)
    return probing.Labelled(storing.store(source, 0, model), places, words, targets)


def read_mix(path: str) -> dict[str, float]:
    """The shares of layers that a finished run's record has of its mixes.

    Raises:
      ConfigError: no record, or a run without a mix.
    """
    from ctxjax import paths
    from ctxjax.config import ConfigError

    file = paths.at(path) / "record.json"
    if not file.is_file():
        raise ConfigError(f"config.mixes: {file} does not exist; a run writes it at its end")
    figures = json.loads(file.read_text(encoding="utf-8"))["evaluation"]
    found = {name.partition("/")[2]: float(value) for name, value in figures.items() if name.startswith("mix/")}
    if not found:
        raise ConfigError(f"config.mixes: the record of {path} has no mix of layers; its config needs evals.mix")
    return found


def table(found: Mapping[str, Any]) -> str:
    """A Markdown table: a row for each model, task and layer."""
    lines = ["| model | task | layer | accuracy | control | selectivity |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for model, probes in found.items():
        for task, figures in probes["tasks"].items():
            for layer, row in enumerate(zip(figures["accuracy"], figures["control"], figures["selectivity"])):
                lines.append(f"| {model} | {task} | {layer} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
            lines.append(f"| {model} | {task} | by word type | {figures['by_type']:.3f} | | |")
            for layer, value in enumerate(figures.get("edges", {}).get("accuracy", ())):
                lines.append(f"| {model} | {task}, kinds of spans | up to {layer} | {value:.3f} | | |")
    return "\n".join(lines)


def draw(found: Mapping[str, Any], mixes: Mapping[str, Mapping[str, float]], output: pathlib.Path) -> None:
    """A column a task: accuracy and selectivity over layers, and accuracy over steps where models are steps of a run;
    below, the learned mixes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    tasks = list(next(iter(found.values()))["tasks"])
    steps = {name: probes["step"] for name, probes in found.items() if probes["step"] is not None}
    dynamics = len(set(steps.values())) > 1
    rows = 2 + dynamics + bool(mixes)
    figure, axes = pyplot.subplots(rows, len(tasks), figsize=(4.6 * len(tasks), 3.2 * rows), squeeze=False)
    for column, task in enumerate(tasks):
        for name, probes in found.items():
            figures = probes["tasks"][task]
            layers = range(len(figures["accuracy"]))
            (line,) = axes[0, column].plot(layers, figures["accuracy"], marker="o", markersize=3, label=name)
            axes[0, column].plot(layers, figures["control"], linestyle=":", color=line.get_color())
            axes[1, column].plot(layers, figures["selectivity"], marker="o", markersize=3, label=name)
        by_type = next(iter(found.values()))["tasks"][task]["by_type"]
        axes[0, column].axhline(by_type, color="grey", linewidth=0.8, label="most frequent of the word")
        axes[0, column].set(title=f"{task}: accuracy (dotted: control)", xlabel="layer")
        axes[1, column].set(title=f"{task}: selectivity", xlabel="layer")
        for axis in axes[:2, column]:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.legend(fontsize=7)
        if dynamics:
            ordered = sorted(steps, key=lambda name: steps[name])
            every = [found[name]["tasks"][task]["accuracy"] for name in ordered]
            for layer in range(min(map(len, every))):
                curve = [row[layer] for row in every]
                axes[2, column].plot([steps[name] for name in ordered], curve, marker="o", markersize=3, label=layer)
            axes[2, column].set(title=f"{task}: accuracy of each layer", xlabel="step")
            axes[2, column].legend(fontsize=7, title="layer", title_fontsize=7)
    if mixes:
        for axis in axes[-1, 1:]:
            axis.remove()
        for path, shares in mixes.items():
            for mix in sorted({name.partition("_layer_")[0] for name in shares if "_layer_" in name}):
                chosen = [share for name, share in shares.items() if name.startswith(f"{mix}_layer_")]
                axes[-1, 0].plot(chosen, marker="s", markersize=4, label=f"{pathlib.Path(path).name} {mix}")
        axes[-1, 0].set(title="learned mix: share of each layer", xlabel="layer of the mix", ylim=(0, None))
        axes[-1, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    cli.main_guard(main)
