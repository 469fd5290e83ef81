"""What systems reach on tasks, side by side: the record that experiments/tasks/compare.py writes, as a table.

A comparison is JSON: `systems`, name to what was pretrained; `tasks`, a row each (see `row`); `curves`, task to rows of
rising numbers of training examples; `mixes`, task to the shares of layers that ELMo's heads have learned; `probes`, as
`ctxjax.probe` writes them; `seconds`, of all runs together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EVALUATORS = ("heldout", "spans", "words")  # which one of a config gives a task's official figure
MAJORITY = "majority_"  # before the name of a figure: of the same answer to every example


def metric_of(task: str) -> str:
    """The official figure of a task: of texts by the task, of words F1 where tags say spans, else accuracy."""
    from ctxjax.data.tasks import open_task
    from ctxjax.data.tasks.tagging import TASKS

    if task in TASKS:
        return "f1" if TASKS[task].read else "accuracy"
    return open_task(task).metrics[0]


def figure_of(figures: Mapping[str, float], metric: str) -> float | None:
    """A figure by its name, of whichever evaluator gives it; None where none does."""
    names = (f"{evaluator}/{metric}" for evaluator in EVALUATORS)
    return next((float(figures[name]) for name in names if name in figures), None)


def row(title: str, task: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One task: `metric`, `examples` trained on, `majority`, `figures` by system, and `seconds` that each took.

    Args:
      title, task: what it is called, and its name in ctxjax/data/tasks.
      runs: the records, by system.
    """
    metric = metric_of(task)
    evaluations = {system: record["evaluation"] for system, record in runs.items()}
    figures = {system: figure_of(found, metric) for system, found in evaluations.items()}
    majorities = (figure_of(found, f"{MAJORITY}{metric}") for found in evaluations.values())
    return {
        "title": title,
        "task": task,
        "metric": metric,
        "examples": max(int(record["examples"]) for record in runs.values()),
        "majority": next((value for value in majorities if value is not None), None),
        "figures": figures,
        "seconds": {system: record["wall_seconds"] for system, record in runs.items()},
        "commits": sorted({str(record["commit"]) for record in runs.values()}),
    }


def mixes(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, list[float]]:
    """The share of every layer in ELMo's mix, by task.

    Args:
      runs: task to system to record.
    """
    found: dict[str, list[float]] = {}
    for task, systems in runs.items():
        figures = systems.get("ELMo", {}).get("evaluation", {})
        shares = {int(name.rpartition("_")[2]): value for name, value in figures.items() if _is_share(name)}
        if shares:
            found[task] = [float(shares[layer]) for layer in sorted(shares)]
    return found


def _is_share(name: str) -> bool:
    return name.startswith(("mix/mix_layer_", "mix/mix_0_layer_"))


def best(values: Mapping[str, float | None]) -> set[str]:
    """The systems whose figure is highest as it is shown, with one decimal."""
    shown = {name: round(value, 1) for name, value in values.items() if value is not None}
    return {name for name, value in shown.items() if value == max(shown.values())}


def markdown(found: Mapping[str, Any]) -> list[str]:
    """The table in Markdown, a row a task: majority first, the best in bold; and the curves, a row each point."""
    systems = list(found["systems"])
    head = ["task", "metric", "examples", "majority", *systems]
    lines = _table(head, [_cells(one, systems) for one in found["tasks"]])
    for title, rows in found["curves"].items():
        lines += ["", f"{title}, by the number of training examples:", ""]
        lines += _table(head, [_cells(one, systems) for one in rows])
    return lines


def _cells(one: Mapping[str, Any], systems: Sequence[str]) -> list[str]:
    chosen = best(one["figures"])
    values = [(name, one["figures"].get(name)) for name in systems]
    cells = [number(value) if name not in chosen else f"**{number(value)}**" for name, value in values]
    return [one["title"], one["metric"], f"{one['examples']:,}", number(one["majority"]), *cells]


def number(value: float | None) -> str:
    """With one decimal; a dash for what a system cannot do or nobody ran."""
    return "–" if value is None else f"{value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", "---", *["---:"] * (len(head) - 2)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]
