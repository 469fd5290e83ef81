"""Evaluations without labels, of any models that `ctxjax.load` opens, in one table.

A suite is a config with `evals` alone. Each of its evaluators says in `needs` which method of a loaded model it uses;
for a model that has not got it the place in the table stays empty.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctxjax import config as configs
from ctxjax.config import ConfigError, did_you_mean

Figures = dict[str, int | float]


def is_suite(config: Any) -> bool:
    """Whether a config names evaluations alone, and no model."""
    return "model" not in config


def evaluators(config: Any, only: str | None = None) -> dict[str, Any]:
    """The evaluators of a suite by name, with their files read.

    Raises:
      ConfigError: one that there is not, or a file that is missing or broken.
    """
    if only and only not in config.evals:
        raise ConfigError(f"config.evals has no {only!r}{did_you_mean(only, config.evals)}")
    wanted = {name: fields for name, fields in config.evals.items() if only in (None, name)}
    return {name: configs.build("evaluator", fields) for name, fields in wanted.items()}


def run(suite: Mapping[str, Any], model: Any, report: Callable[[str], Any]) -> Figures:
    """What every evaluator that fits a loaded model finds, as `evaluator/figure`; `report` is told of the others."""
    found: Figures = {}
    left_out: dict[str, list[str]] = {}
    for name, evaluator in suite.items():
        if evaluator.needs in model.can:
            found |= {f"{name}/{figure}": value for figure, value in evaluator.run(model).items()}
        else:
            left_out.setdefault(evaluator.needs, []).append(name)
    for method, those in left_out.items():
        report(f"{model.path} ({model.kind}) cannot {method}; left out: {', '.join(those)}")
    return found


def names(paths: Sequence[str]) -> list[str]:
    """A short name for each path: its last part, or as many as tell them apart."""
    parts = [pathlib.Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-depth:]) for part in parts]
        if len(set(short)) == len(set(paths)):
            return short
    return list(paths)


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table: a row for each figure, a column for each model."""
    rows = list(dict.fromkeys(figure for figures in found.values() for figure in figures))
    parts = list(dict.fromkeys(row.split("/")[0] for row in rows))
    rows.sort(key=lambda row: parts.index(row.split("/")[0]))  # the figures of an evaluator stand together
    lines = [["", *found], ["---", *["---:"] * len(found)]]
    lines += [[row, *(_number(figures.get(row)) for figures in found.values())] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(found) + 1)]
    padded = [[line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _number(value: int | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3f}"
