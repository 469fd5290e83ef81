"""The ledger of downstream results: one row for each figure of the published tables, beside it what was measured here.

`experiments/published.json` has the figures: one line a row, of `task`, `system`, `metric`, `split`, `value` and
`source`. A run says which system it reproduces: `config.reproduces = "GLUE/RTE/BERT base"` (task, slash, system), and
is then found for every row of that system on that task whose metric one of its evaluators gives (of a row that names an
`evaluator`, that one); several are separated by `;`. Of several runs the latest counts, so nothing is chosen by its
result. What is different from the published system is worded from the record
and from `experiments/systems.json`, which says what is known of the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
HEAD = "task,system,figure,published,ours,data,run,commit,seeds,hardware,difference,source".split(",")
NOT_RUN = "not run"


def rows(records: Sequence[Row], published: Sequence[Row], systems: Mapping[str, Row]) -> list[tuple[str, ...]]:
    """The cells of every row of the published tables, in their order."""
    found = []
    for row in published:
        if "task" in row:
            cells = (row["task"], row["system"], f"{row['metric']}, {row['split']}", f"{row['value']:g}")
            if row["metric"] == "average":
                ours = _average(records, row, published)
            else:
                latest = _latest(records, row)
                ours = _ours(latest, row, systems) if latest else (NOT_RUN, *[""] * 6)
            found.append((*cells, *ours, row["source"] + (f"; {row['note']}" if "note" in row else "")))
    return found


def _latest(records: Sequence[Row], row: Row) -> Row | None:
    runs = [record for record in records if f"{row['task']}/{row['system']}" in reproduces(record)]
    return max((one for one in runs if figure_of(one, row)), key=lambda one: one["date"], default=None)


def _average(records: Sequence[Row], row: Row, published: Sequence[Row]) -> tuple[str, ...]:
    """The mean of what a system has on the tasks of a family, once it has all that the published one has."""
    family = row["task"].rpartition("/")[0] + "/"
    same = [one for one in published if one.get("system") == row["system"] and one["task"].startswith(family)]
    same = [one for one in same if one["metric"] != "average"]
    values = [_value(latest, one) for one in same if (latest := _latest(records, one))]
    if not values:
        return (NOT_RUN, *[""] * 6)
    if len(values) < len(same):
        return (NOT_RUN, f"{len(values)} of {len(same)} tasks were", *[""] * 5)
    mean = sum(values) / len(values)
    side = "above" if mean > row["value"] else "below"
    return (f"{mean:.1f}", "mean of the rows of the tasks", "", "", "", "", f"{abs(mean - row['value']):.1f} {side}")


def reproduces(record: Row) -> list[str]:
    """`TASK/SYSTEM` of a run that says so; of one with figures of several, each."""
    told = record.get("config", {}).get("reproduces") or ""
    return [name.strip() for name in told.split(";") if name.strip()]


def unknown(records: Sequence[Row], published: Sequence[Row]) -> list[str]:
    """What records say that they reproduce and no published row has."""
    known = {f"{row['task']}/{row['system']}" for row in published if "task" in row}
    return sorted({name for record in records for name in reproduces(record)} - known)


def figure_of(record: Row, row: Row) -> str:
    """The name of the figure of a record that a row is about, or nothing.

    The evaluator on the row's split comes first, then the one that the best step is chosen by, then any other. An error
    rate is what is missing to an accuracy of 100.
    """
    found, evals = figures(record), record["config"].get("evals", {})
    wanted = (row["metric"], "accuracy") if row["metric"] == "error" else (row["metric"],)
    chosen = (record.get("best", {}).get("by") or record["config"].get("best") or "").partition(" ")[2]
    names = [name for name in found if name.rpartition("/")[2] in wanted]
    names = [name for name in names if name.partition("/")[0] == row.get("evaluator", name.partition("/")[0])]
    # Terms of an objective are shares of 1, and not the official figures.
    names = [name for name in names if evals.get(name.partition("/")[0], {}).get("name") != "objective"]

    def order(name: str) -> tuple[bool, bool]:
        evaluator = name.partition("/")[0]
        return split_of(evals.get(evaluator, {}), evaluator) != row["split"], not chosen.startswith(f"{evaluator}/")

    return min(names, key=order, default="")


def split_of(fields: Row, evaluator: str) -> str:
    """`test` or `dev`, as the published tables call what an evaluator reads."""
    split = fields.get("split") or evaluator
    return "test" if split.startswith("test") else "dev"


def figures(record: Row) -> dict[str, float]:
    """The best evaluation of a record where it chose one, else its last; of several seeds the means."""
    found = record.get("best", {}).get("figures") or record.get("evaluation", {})
    return {name: float(value) for name, value in found.items()}


def _ours(record: Row, row: Row, systems: Mapping[str, Row]) -> tuple[str, ...]:
    name, value = figure_of(record, row), _value(record, row)
    deviation = float(record.get("deviation", {}).get(name, "nan"))
    config, seeds = record["config"], record.get("seeds", {})
    failed = record.get("failed") or ()
    evaluator = name.partition("/")[0]
    split = split_of(config.get("evals", {}).get(evaluator, {}), evaluator)
    read = f"{record['examples']:,} examples, " if "examples" in record else ""
    ran = f"{len(seeds)} ({len(failed)} failed)" if seeds else f"1 ({'failed' if failed else config.get('seed', 0)})"
    return (
        f"{value:.1f}" + ("" if deviation != deviation else f" ± {deviation:.1f}"),
        f"{config.get('source', {}).get('task') or row['task']}: {read}{split}",
        _run(record),
        str(record["commit"]),
        ran,
        hardware(record),
        difference(record, row, value, split, systems),
    )


def _value(record: Row, row: Row) -> float:
    name = figure_of(record, row)
    value = figures(record)[name]
    return 100.0 - value if row["metric"] == "error" and name.endswith("accuracy") else value


def _run(record: Row) -> str:
    """The record, and what of its config one looks for first."""
    config = record["config"]
    optim = config.get("optim", {})
    parts = [f"lr {optim['lr']:g}" if "lr" in optim else "", config.get("total", "")]
    parts += [f"batch {config['batch_size']}" if "batch_size" in config else ""]
    return f"`{record['file']}`: {', '.join(filter(None, parts))}" if "file" in record else ", ".join(parts)


def difference(record: Row, row: Row, value: float, split: str, systems: Mapping[str, Row]) -> str:
    """What is not as published, from the record: the figure, the model, the pretraining, the split, the seeds."""
    theirs = next((systems[name] for name in _names(row["system"], systems)), {})
    model = record["config"]["model"]
    encoder = model.get("encoder") or model
    words = [f"{abs(value - row['value']):.1f} {'above' if value > row['value'] else 'below'}"]
    shape, known = (encoder.get("depth"), encoder.get("width")), (theirs.get("depth"), theirs.get("width"))
    if None not in (*shape, *known) and shape != known:
        words.append(f"{shape[0]} layers of {shape[1]} for {known[0]} of {known[1]}")
    if "parameters" in theirs and record.get("parameters", theirs["parameters"]) < 0.9 * theirs["parameters"]:
        words.append(f"{count(record['parameters'])} parameters for {count(theirs['parameters'])}")
    if "pretraining" in theirs:
        words.append(f"{_pretraining(record.get('origin') or {})} for {theirs['pretraining']}")
    if split != row["split"]:
        words.append(f"on {split} for {row['split']}")
    return "; ".join(words)


def _names(system: str, systems: Mapping[str, Row]) -> list[str]:
    """The systems that a row's may be a variant of, the longest name first."""
    return sorted((name for name in systems if name in system and "baseline" not in system), key=len, reverse=True)


def _pretraining(origin: Row) -> str:
    """What a run began with, back to the first of the runs before it."""
    tokens = steps = 0
    begun = bool(origin)
    while origin:
        tokens, steps = tokens + origin.get("tokens", 0), steps + origin.get("steps", 0)
        origin = origin.get("origin") or {}
    if not begun:
        return "not pretrained"
    return f"pretrained on {count(tokens)} tokens in {steps:,} steps" if steps else "published weights"


def count(value: float | int) -> str:
    """`12.3 M`."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:g}"


def hardware(record: Row) -> str:
    """The processor, or the accelerators, of a record."""
    found = record["hardware"]
    if found.get("platform", "cpu") == "cpu":
        return f"{found['cores']} cores, {found['cpu']}"
    return f"{found['devices']} x {found['device']}"
