"""What systems reach on tasks, on the page: a table, bars, curves over labels, probes of layers, learned mixes.

What is drawn is the `comparison` of a record; see `ctxjax/comparison.py`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ctxjax import comparison
from ctxjax.page.pictures import picture, pyplot

Found = Mapping[str, Any]
COLUMNS = 4  # panels side by side
NAMES = {"pos": "parts of speech", "ner": "names", "sense": "senses"}  # of the probes


def sections(found: Found) -> str:
    """Everything as HTML; what was not measured is left out."""
    if not found.get("tasks"):
        return ""
    parts = [
        "<h2>Put to use</h2>",
        "<p>Every system begins with the model of its family above and is trained on the same examples; each figure is "
        "of held-out examples, from 0 to 100, more is better, and bold is the best of a row; grey is no better than "
        "the same answer to every example (majority); a dash: the system does not read such a task, or nobody ran it."
        "</p>",
        f'<div class="wide">{table(found)}</div>',
        "<p>The same figures as bars: what reaches no further than the dashed line of the majority has learned "
        f"nothing of the task.</p>{picture(bars(found), 'systems on tasks')}",
    ]
    if found.get("curves"):
        parts += [
            "<h2>How many labels</h2>",
            "<p>Error over the number of labelled texts: the lower a line begins on the left, the more of the task was "
            f"there before it was shown.</p>{picture(curves(found), 'error over labels')}",
        ]
    if found.get("probes"):
        parts += [
            "<h2>What each layer knows</h2>",
            "<p>A linear probe reads each layer of the frozen models (0: the token layer); dotted is the same probe on "
            "random labels of words, and the difference, selectivity, is what the layer and not the probe knows.</p>",
            picture(probes(found), "probes of layers"),
        ]
    if found.get("mixes"):
        parts += [
            "<h2>Which layers ELMo's tasks have chosen</h2>",
            "<p>The learned share of each layer in the mix that a task reads, a row a task: even shares mean that the "
            f"task has no preference.</p>{picture(mixes(found['mixes']), 'learned mixes of layers')}",
        ]
    return "".join(parts)


def table(found: Found) -> str:
    """A row a task, a column a system, majority first."""
    systems = list(found["systems"])
    heads = ["task", "metric", "examples", "majority", *systems]
    rows = []
    for one in found["tasks"]:
        chosen, majority = comparison.best(one["figures"]), one["majority"]
        cells = [html.escape(one["title"]), one["metric"], f"{one['examples']:,}", comparison.number(majority)]
        told = [f"<td>{cell}</td>" for cell in cells]
        for name in systems:
            value = one["figures"].get(name)
            learned = value is not None and (majority is None or value > majority)
            kind = "" if learned else "none" if value is not None else ""
            kind = "best" if learned and name in chosen else kind
            mark = f' class="{kind}"' if kind else ""
            told.append(f"<td{mark}>{comparison.number(value)}</td>")
        rows.append(f"<tr>{''.join(told)}</tr>")
    head = "".join(f"<th>{html.escape(title)}</th>" for title in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def colours(found: Found) -> dict[str, str]:
    """Of each system, the same in every plot."""
    return {name: f"C{number}" for number, name in enumerate(found["systems"])}


def bars(found: Found) -> Any:
    """A panel a task, a bar a system, and the majority as a line."""
    systems, colour = list(found["systems"]), colours(found)
    rows = -(-len(found["tasks"]) // COLUMNS)
    size = (11.5, rows * (0.9 + 0.27 * len(systems)))
    figure, axes = pyplot().subplots(rows, min(COLUMNS, len(found["tasks"])), figsize=size, squeeze=False)
    for axis, one in zip(axes.flat, found["tasks"]):
        values = [one["figures"].get(name) for name in systems]
        axis.barh(range(len(systems)), [value or 0.0 for value in values], color=[colour[name] for name in systems])
        ends = [0.0, *(value for value in (*values, one["majority"]) if value is not None)]
        wide = (max(ends) - min(ends)) or 1.0
        for place, value in enumerate(values):
            axis.text(max(ends) + 0.25 * wide, place, comparison.number(value), va="center", ha="right", fontsize=8)
        if one["majority"] is not None:
            axis.axvline(one["majority"], color="black", linestyle="--", linewidth=1)
        axis.set_xlim(min(ends) - (0.05 * wide if min(ends) < 0 else 0.0), max(ends) + 0.27 * wide)
        axis.set_title(f"{one['title']}, {one['metric']}", fontsize=9)
        first = axis.get_subplotspec().is_first_col()
        axis.set_yticks(range(len(systems)), systems if first else [""] * len(systems))
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(found["tasks"]) :]:
        axis.remove()
    figure.tight_layout()
    return figure


def curves(found: Found) -> Any:
    """Error over the number of labels, on a logarithmic axis; a panel a task."""
    colour = colours(found)
    figure, axes = pyplot().subplots(1, len(found["curves"]), figsize=(7.0 * len(found["curves"]), 4.2), squeeze=False)
    for axis, (title, rows) in zip(axes[0], found["curves"].items()):
        for name in found["systems"]:
            figures = [(one["examples"], one["figures"].get(name)) for one in rows]
            points = [(count, 100.0 - figure) for count, figure in figures if figure is not None]
            if points:
                axis.plot(*zip(*points), marker="o", markersize=4, color=colour[name], label=name)
        if rows[-1]["majority"] is not None:
            axis.axhline(100.0 - rows[-1]["majority"], color="black", linestyle="--", linewidth=1, label="majority")
        counts = [one["examples"] for one in rows]
        axis.set(xscale="log", xlabel="labelled texts", ylabel="error, held out (%)", title=title)
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.tight_layout()
    return figure


def probes(found: Found) -> Any:
    """A column a task of the probes: accuracy and selectivity over layers, a line a model."""
    models, colour = found["probes"], colours(found)
    tasks = list(next(iter(models.values()))["tasks"])
    figure, axes = pyplot().subplots(2, len(tasks), figsize=(3.9 * len(tasks), 5.6), squeeze=False, sharex="col")
    for column, task in enumerate(tasks):
        above, below = axes[:, column]
        for number, (name, model) in enumerate(models.items()):
            shade = colour.get(name, f"C{number}")
            told = model["tasks"][task]
            layers = range(len(told["accuracy"]))
            style = {"color": shade, "marker": "o", "markersize": 4}
            above.plot(layers, _percent(told["accuracy"]), label=name, **style)
            above.plot(layers, _percent(told["control"]), color=shade, linestyle=":")
            below.plot(layers, _percent(told["selectivity"]), **style)
        first = next(iter(models.values()))["tasks"][task]
        above.axhline(100.0 * first["by_type"], color="gray", linestyle="--", linewidth=1, label="by word alone")
        above.set_title(NAMES.get(task, task), fontsize=10)
        above.set(ylabel="accuracy (%)" if not column else "")
        below.set(xlabel="layer", ylabel="selectivity (%)" if not column else "")
        below.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    return figure


def _percent(values: Sequence[float]) -> list[float]:
    return [100.0 * value for value in values]


def mixes(found: Mapping[str, Sequence[float]]) -> Any:
    """Shares of layers: a row a task, a column a layer, darker where it is more."""
    depth = max(map(len, found.values()))
    shares = [[*row, *[float("nan")] * (depth - len(row))] for row in found.values()]
    figure, axis = pyplot().subplots(figsize=(2.2 + 1.1 * depth, 0.9 + 0.36 * len(found)))
    axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for place, row in enumerate(found.values()):
        for layer, share in enumerate(row):
            axis.text(layer, place, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.6 else "black")
    axis.set_xticks(range(depth), ["token layer", *(f"layer {layer}" for layer in range(1, depth))])
    axis.set_yticks(range(len(found)), list(found))
    axis.tick_params(labelsize=9, length=0)
    figure.tight_layout()
    return figure
