"""What became of a run, and of several that differ in their seed: figures, failures, mean and deviation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from ctxjax import best, metrics, significance

MAJORITY = "majority_"  # before the name of a figure: of the same answer to every example


def read(folder: epath.Path) -> dict[str, Any]:
    """record.json of a run folder."""
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """What a run is judged by: its best evaluation where it chose one, else its last."""
    found = record.get("best", {}).get("figures") or record["evaluation"]
    return {name: float(value) for name, value in found.items()}


def failure(record: Mapping[str, Any]) -> str:
    """Why a run counts as failed, or nothing.

    It has diverged; or a figure is not a number, or no better than what the same answer to every example gets, where
    the evaluator tells that beside it: `majority_NAME` beside `NAME`. Of a run with `config.best` only the figure that
    it is chosen by is asked. Fine-tuning of large models on few examples fails like that now and then, for which Devlin
    et al. 2019, section 4.1, run it several times.
    """
    if record.get("failed"):
        return record["failed"]
    found = figures(record)
    metric, sign = best.parse(record["best"]["by"]) if record.get("best") else ("", 1.0)
    for name in [metric] if metric else found:
        evaluator, _, figure = name.partition("/")
        majority = found.get(f"{evaluator}/{MAJORITY}{figure}")
        if math.isnan(found.get(name, math.nan)) and (metric or majority is not None):
            return f"{name} is not a number"
        if majority is not None and sign * found[name] <= sign * majority:
            return f"{name} {found[name]:.4g} is no better than one answer for all, {majority:.4g}"
    return ""


def summary(config: Mapping[str, Any], found: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The record of all seeds, from theirs: every figure, and mean and deviation over the runs that did not fail."""
    one = next(iter(found.values()))
    failed = {seed: why for seed, record in found.items() if (why := failure(record))}
    good = [figures(record) for seed, record in found.items() if seed not in failed]
    means, deviations = significance.spread(good)
    wall = sum(record["wall_seconds"] / record.get("at_once", 1) for record in found.values())
    return dict(one) | {
        "date": max(record["date"] for record in found.values()),
        "config": one["config"] | {name: config[name] for name in ("seed", "seeds")},
        "tokens": sum(record["tokens"] for record in found.values()),
        "flops": sum(record["flops"] for record in found.values()),
        "evaluation": {name: metrics.plain(value) for name, value in means.items()},
        "deviation": {name: metrics.plain(value) for name, value in deviations.items()},
        "seeds": {
            str(seed): {
                "steps": record["steps"],
                "step": record.get("best", {}).get("step") or record["steps"],
                "figures": {name: metrics.plain(value) for name, value in figures(record).items()},
            }
            for seed, record in found.items()
        },
        "failed": {str(seed): why for seed, why in failed.items()},
        "best": {},
        "wall_seconds": round(wall, 1),
        "sessions": [],
    }
