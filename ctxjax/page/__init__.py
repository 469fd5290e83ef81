"""Runs and what a suite found of them, side by side on one self-contained HTML page: a table, bars, curves, senses.

Everything on the page comes from `record.json` and `metrics.jsonl` of the runs, from the JSON of a suite, and from the
record of a comparison on tasks (`tasks.py`). Plots are pictures within the page; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import html
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.page import pictures, tasks

Figures = Mapping[str, Any]
# Title, figure of the suite, how it is shown; more is better, or less.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bits a character", "text/bits_per_character", "{:.3f}".format),
    ("pseudo-bits a character", "text/pseudo_bits_per_character", "{:.3f}".format),
    ("BLiMP", "blimp/accuracy", "{:.1%}".format),
    ("LAMBADA", "lambada/accuracy", "{:.1%}".format),
    ("WordSim-353", "wordsim/spearman", "{:.3f}".format),
    ("SimLex-999", "simlex/spearman", "{:.3f}".format),
    ("rare words", "rare_words/spearman", "{:.3f}".format),
    ("analogies", "analogies/add_total", "{:.1%}".format),
    ("word senses", "senses/accuracy", "{:.1%}".format),
)
BARS = ("blimp/accuracy", "wordsim/spearman", "simlex/spearman", "analogies/add_total", "senses/accuracy")
NOTES = """Perplexity is of a model's own pieces on its held-out split, and compares only among models of the same
pieces; bits a character compare all models that give a text a probability, and flatter those of words, which need not
spell an unknown one. A masked model's pseudo-likelihood sees both sides of a piece and is no such probability. A word's
vector is layer 0 of a model that reads the word alone. Dashes: the model cannot do it, or nobody measured it."""
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:84rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.8rem}td{white-space:nowrap}
td,th{padding:.25rem .5rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}thead th{vertical-align:bottom;border-bottom:2px solid #888}
img{max-width:100%}.best{font-weight:700}.none{color:#888}.wide{overflow-x:auto}small{color:#666}"""


def write(
    path: pathlib.Path,
    runs: Sequence[str | os.PathLike[str]],
    suite: Mapping[str, Figures],
    compared: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of some runs.

    Args:
      path: of the page.
      runs: run folders.
      suite: name of a run to figures.
      compared: of a record; see `ctxjax/comparison.py`.

    Raises:
      ConfigError: a run that has not ended.
    """
    path.write_text(page(read_runs(runs), suite, compared or {}), encoding="utf-8")


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> dict[str, dict[str, Any]]:
    """Name of each run -> its record, with the lines of its metrics as `lines`."""
    from ctxjax import metrics, paths

    found = {}
    for folder in map(paths.at, folders):
        file = folder / "record.json"
        if not file.is_file():
            raise ConfigError(f"{file} does not exist: a run writes it at its end, and {folder} has not ended")
        record = json.loads(file.read_text(encoding="utf-8"))
        lines = metrics.read(folder) if (folder / "metrics.jsonl").is_file() else []
        found[folder.name] = record | {"lines": lines}
    return found


def page(
    runs: Mapping[str, Mapping[str, Any]], suite: Mapping[str, Figures], compared: Mapping[str, Any] | None = None
) -> str:
    """The page as HTML."""
    parts = [
        "<h1>The line, side by side</h1>",
        f"<p>{len(runs)} models, trained and evaluated alike. {_where(runs)}</p>",
        "<h2>What was trained, and what it knows</h2>",
        f'<div class="wide">{table(runs, suite)}</div>',
        f"<p><small>{NOTES}</small></p>",
    ]
    for title, figure, text in (
        ("Bars", bars(suite), "The same figures as bars; the line is chance, or what guessing gives."),
        ("Curves", curves(runs), "Held-out loss of each model's own objective over the tokens that it read."),
    ):
        if figure is not None:
            parts.append(f"<h2>{title}</h2><p>{text}</p>{pictures.picture(figure, title)}")
    parts += [senses(suite), tasks.sections(compared or {})]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>ctxjax: the line, side by side</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _where(runs: Mapping[str, Mapping[str, Any]]) -> str:
    places = {
        f"{run['hardware']['cores']} core{'s' * (run['hardware']['cores'] != 1)} of {run['hardware']['cpu']}"
        if run["hardware"].get("platform", "cpu") == "cpu"
        else f"{run['hardware']['devices']} x {run['hardware']['device']}"
        for run in runs.values()
    }
    return html.escape(f"Hardware: {'; '.join(sorted(places))}.")


def table(runs: Mapping[str, Mapping[str, Any]], suite: Mapping[str, Figures]) -> str:
    """A row a model: parameters, tokens, FLOPs, time, perplexity, and the figures of the suite."""
    shown = [column for column in COLUMNS if any(column[1] in found for found in suite.values())]
    best = {}
    for _, figure, show in shown:
        values = [found[figure] for found in suite.values() if _number(found.get(figure))]
        differ = len({show(value) for value in values}) > 1
        best[figure] = (min(values) if "bits" in figure else max(values)) if differ else None
    head = ["model", "parameters", "tokens", "FLOPs", "minutes", "perplexity", *(title for title, _, _ in shown)]
    rows = []
    for name, run in runs.items():
        found = suite.get(name, {})
        cells = [
            html.escape(name),
            _scaled(run.get("parameters")),
            _scaled(run.get("tokens")),
            _scaled(run.get("flops")),
            f"{run['wall_seconds'] / 60:.1f}",
            perplexity(run["evaluation"]),
        ]
        cells = [f"<td>{cell}</td>" for cell in cells]
        for _, figure, show in shown:
            value = found.get(figure)
            mark = ' class="best"' if _number(value) and value == best[figure] else ""
            cells.append(f"<td{mark}>{show(value) if _number(value) else '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def perplexity(evaluation: Figures) -> str:
    """The perplexity in a record, or one for each direction of a biLM."""
    values = [value for name, value in evaluation.items() if name.endswith("_perplexity") and _number(value)]
    return " / ".join(f"{value:,.1f}" for value in values) or "–"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _scaled(value: int | float | None) -> str:
    """`12.3 M`."""
    if value is None:
        return "–"
    for scale, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:g}"


def bars(suite: Mapping[str, Figures]) -> Any:
    """One panel of horizontal bars a figure; None where no model has any."""
    titles = {figure: title for title, figure, _ in COLUMNS}
    shown = [figure for figure in BARS if any(_number(found.get(figure)) for found in suite.values())]
    if not shown:
        return None
    pyplot = pictures.pyplot()
    tall = 1.2 + 0.28 * len(suite)
    figure, axes = pyplot.subplots(1, len(shown), figsize=(2.5 * len(shown) + 1.2, tall), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], shown):
        values = [found[name] if _number(found.get(name)) else np.nan for found in suite.values()]
        axis.barh(range(len(suite)), values, color="tab:blue")
        axis.set(title=titles[name], yticks=range(len(suite)), yticklabels=list(suite))
        axis.invert_yaxis() if axis is axes[0][0] else None
        axis.tick_params(labelsize=8)
        line = 0.5 if name == "blimp/accuracy" else None
        if name == "senses/accuracy":
            line = next((f["senses/most_frequent_sense"] for f in suite.values() if "senses/accuracy" in f), None)
        if line is not None:
            axis.axvline(line, color="tab:red", linestyle="--", linewidth=1)
    figure.tight_layout()
    return figure


def curves(runs: Mapping[str, Mapping[str, Any]]) -> Any:
    """Held-out loss over tokens, a panel for models of one kind of loss; None where no run has a curve."""
    drawn: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, run in runs.items():
        tokens = {line["step"]: line["tokens"] for line in run["lines"] if "tokens" in line}
        for term in ("lm", "mlm", "forward", "backward"):
            points = [
                (tokens[line["step"]], line[f"heldout/{term}"])
                for line in run["lines"]
                if f"heldout/{term}" in line and line["step"] in tokens
            ]
            if len(points) > 1:
                panel = "masked pieces" if term == "mlm" else "next words or pieces"
                label = f"{name}, {term}" if term in ("forward", "backward") else name
                drawn.setdefault(panel, {})[label] = points
    if not drawn:
        return None
    pyplot = pictures.pyplot()
    figure, axes = pyplot.subplots(1, len(drawn), figsize=(5.6 * len(drawn), 4.0), squeeze=False)
    for axis, (panel, lines) in zip(axes[0], drawn.items()):
        for label, points in lines.items():
            axis.plot([x / 1e6 for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=label)
        axis.set(title=panel, xlabel="million tokens read", ylabel="nats, held out")
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def senses(suite: Mapping[str, Figures]) -> str:
    """The section of one word in two senses: accuracy and distance by layer, beside the most frequent sense."""
    layers = {
        name: [found[f"senses/accuracy_{i}"] for i in range(100) if f"senses/accuracy_{i}" in found]
        for name, found in suite.items()
    }
    layers = {name: values for name, values in layers.items() if values}
    if not layers:
        return ""
    first = next(found for found in suite.values() if "senses/accuracy" in found)
    baseline = first["senses/most_frequent_sense"]
    pyplot = pictures.pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(12.5, 4.2))
    for number, (name, values) in enumerate(layers.items()):
        apart = [suite[name][f"senses/apart_{i}"] for i in range(len(values))]
        for axis, row in zip(axes, (values, apart)):
            if len(row) == 1:  # a static model, the same at every depth
                axis.axhline(row[0], color=f"C{number}", linestyle=":", label=f"{name} (static)")
            else:
                axis.plot(range(len(row)), row, color=f"C{number}", marker="o", markersize=4, label=name)
    axes[0].axhline(baseline, color="gray", linestyle="--", label="most frequent sense")
    axes[0].set(title="nearest other occurrence has the same sense", xlabel="layer", ylabel="accuracy")
    axes[1].axhline(0.0, color="gray", linestyle="--")
    axes[1].set(title="cosine within a sense less between the two", xlabel="layer")
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    told = axes[0].get_legend_handles_labels()
    axes[1].legend(*told, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.tight_layout()
    count, occurrences = first["senses/lemmas"], first["senses/occurrences"]
    return (
        "<h2>One word, two senses</h2>"
        f"<p>{count:,} lemmas that SemCor attests in exactly two senses, {occurrences:,} occurrences. A static vector "
        "is the same in both senses: its nearest neighbours are all other occurrences of the same form, and it can do "
        f"about as well as the more frequent sense, {baseline:.1%}. Layer 0 of a contextual model is its token layer."
        "</p>"
        f"{pictures.picture(figure, 'word senses by layer')}"
    )
