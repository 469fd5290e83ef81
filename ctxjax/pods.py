"""The table of pods: what one step costs a chip of a slice, compiled and not run (`experiments/pods/table.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Step = Mapping[str, Any]
HEAD = (
    *("model", "slice", "chips", "rows a chip", "mesh", "TFLOP", "GB read and written", "GB sent", "GiB of memory"),
    *("products", "memory", "links", "bound by", "tokens a second, at most", "beside the smallest"),
)
FLAT = 0.03
FIGURES = {"flops": "FLOPs", "accessed": "bytes", "sent": "sent", "memory": "memory"}


def rows(steps: Sequence[Step]) -> list[tuple[str, ...]]:
    """A row a step; every figure is of one chip."""
    return [(*_about(step), *(_figures(step, steps) if "failed" not in step else _failed(step))) for step in steps]


def _about(step: Step) -> tuple[str, ...]:
    mesh = " x ".join(f"{name} {size}" for name, size in step.get("mesh", {}).items() if size > 1)
    return step["model"], step["slice"], str(step["chips"]), str(step["rows"]), mesh


def _failed(step: Step) -> tuple[str, ...]:
    why = f"does not fit: {step['failed']}" if "mesh" in step else step["failed"]
    return (*[""] * (len(HEAD) - 6), why.replace("|", "/"))


def _figures(step: Step, steps: Sequence[Step]) -> tuple[str, ...]:
    least = step["roofline"]
    there = step["chip_memory"]
    times = (f"{1e3 * least[name]:.3g} ms" for name in ("products", "memory", "links"))
    return (
        f"{step['flops'] / 1e12:.3g}",
        f"{step['accessed'] / 1e9:.3g}",
        f"{step['sent'] / 1e9:.3g}",
        f"{step['memory'] / 2**30:.2f} of {there / 2**30:.0f}" + ("" if step["fits"] else ", does not fit"),
        *times,
        least["bound"],
        f"{step['chips'] * step['tokens'] / least['seconds']:,.0f}",
        beside(step, steps),
    )


def beside(step: Step, steps: Sequence[Step]) -> str:
    """What differs by more than 3 % from the smallest slice of the same chip, and which collectives did that."""
    kind = step["slice"].partition("-")[0]
    same = [
        one
        for one in steps
        if one["model"] == step["model"] and one["slice"].startswith(f"{kind}-") and "failed" not in one
    ]
    first = min(same, key=lambda one: one["chips"])
    if first is step:
        return ""
    words = []
    for field, name in FIGURES.items():
        change = step[field] / first[field] - 1 if first[field] else 0.0
        if abs(change) > FLAT:
            words.append(f"{name} {change:+.0%}" + (f" ({_kinds(step, first)})" if field == "sent" else ""))
    return "; ".join(words) or "flat"


def _kinds(step: Step, first: Step) -> str:
    """The kinds of collectives whose bytes changed by more than a hundredth of all."""
    size = lambda one, kind: one["collectives"].get(kind, {"nbytes": 0})["nbytes"]
    changes = {kind: size(step, kind) - size(first, kind) for kind in {**first["collectives"], **step["collectives"]}}
    return ", ".join(
        f"{kind} {change / 1e9:+.2g} GB" for kind, change in changes.items() if abs(change) > 0.01 * first["sent"]
    )
