r"""Render run records: a ledger of results as Markdown, learning curves as a picture.

    python -m ctxjax.report --ledger                       # experiments/RESULTS.md from experiments/records/
    python -m ctxjax.report runs/a runs/b --output curves.png
    python -m ctxjax.report runs/a runs/b --suite suite.json --page page.html   # suite.json: evaluate ... --output

Every figure comes from a record that a run or a bench wrote; nothing is typed by hand. `--add RUN` copies the record of
a finished run into the records first.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ctxjax import cli
from ctxjax import ledger as downstream
from ctxjax.config import ConfigError
from ctxjax.ledger import count, hardware

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDS, RESULTS = ROOT / "experiments" / "records", ROOT / "experiments" / "RESULTS.md"
PUBLISHED = ROOT / "experiments" / "published.json"
SYSTEMS = ROOT / "experiments" / "systems.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help="run folders whose curves to draw")
    parser.add_argument("--output", type=pathlib.Path, help="picture of the curves, as in curves.png")
    parser.add_argument(
        "--suite",
        type=pathlib.Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="JSON that `ctxjax.evaluate --output` wrote of the same models, in one file or several",
    )
    parser.add_argument("--tasks", type=pathlib.Path, help="record.json of experiments/tasks/compare.py")
    parser.add_argument("--page", type=pathlib.Path, help="one HTML page of the runs, the suite and the tasks")
    parser.add_argument("--ledger", action="store_true", help=f"render {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--add", metavar="RUN", help="first add a finished run's record to the ledger")
    parser.add_argument("--name", help="name of the added record, as in bert_mini")
    args = parser.parse_args(argv)
    if not (args.runs or args.ledger or args.add):
        parser.error("nothing to do: give run folders with --output, --ledger or --add RUN")
    if args.runs and not (args.output or args.page):
        parser.error("run folders need --output PICTURE.png or --page PAGE.html")
    if args.add and not args.name:
        parser.error("--add RUN needs --name NAME")
    if args.add:
        print(f"wrote {add(args.add, args.name)}")
    if args.ledger:
        tables = (json.loads(path.read_text(encoding="utf-8")) for path in (PUBLISHED, SYSTEMS))
        RESULTS.write_text(ledger(read_records(RECORDS), *tables), encoding="utf-8")
        print(f"wrote {RESULTS}")
    if args.runs and args.page:
        from ctxjax import page

        suite = {name: found for path in args.suite for name, found in read_json(path, "--suite").items()}
        tasks = read_json(args.tasks, "--tasks") if args.tasks else {}
        page.write(args.page, args.runs, suite, tasks.get("comparison", {}))
        print(f"wrote {args.page}")
    if args.runs and args.output:
        draw(args.runs, args.output)
        print(f"wrote {args.output}")
    return 0


def add(run: str | os.PathLike[str], name: str) -> os.PathLike[str]:
    """Copy the record of a finished run, with its curve, to the ledger's records.

    Raises:
      ConfigError: the run has no record, because it has not ended.
    """
    from ctxjax import metrics, paths, records

    run = paths.at(run)
    file = run / "record.json"
    if not file.is_file():
        raise ConfigError(f"{file} does not exist: a run writes it at its end, and {run} has not ended")
    record = json.loads(file.read_text(encoding="utf-8"))
    lines = metrics.read(run) if (run / "metrics.jsonl").is_file() else []  # several seeds have one each
    record["curve"] = thin([{k: v for k, v in line.items() if _charted(k)} for line in lines])
    return records.write(name, record | {"name": name}, RECORDS)


def read_json(path: pathlib.Path, option: str) -> dict[str, Any]:
    """What a suite found, model by model, or a record.

    Raises:
      ConfigError: no such file, or it is not JSON.
    """
    made = {"--suite": "ctxjax.evaluate --output", "--tasks": "experiments/tasks/compare.py"}[option]
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option} {path} cannot be read ({error}); write it by {made}") from None


def _charted(name: str) -> bool:
    return name in ("step", "tokens", "loss", "mlm", "nsp", "forward", "backward") or "/" in name


def thin(curve: list[dict[str, Any]], most: int = 120) -> list[dict[str, Any]]:
    """At most `most` training lines, evenly spread; every line with a held-out figure stays."""
    stride = max(1, len(curve) // most)
    return [line for index, line in enumerate(curve) if index % stride == 0 or any("/" in name for name in line)]


def read_records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All records of a folder by name and date.

    Raises:
      ConfigError: a file that is no record, by name.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}); remove it or write it again") from None
        missing = {"date", "name", "hardware"} - set(record)
        if missing:
            raise ConfigError(f"{path} is not a run record: it has no {', '.join(sorted(missing))}; remove it")
        found.append(record | {"file": path.name})
    return sorted(found, key=lambda record: (record["name"], record["date"]))


def ledger(
    records: list[dict[str, Any]], published: list[dict[str, Any]], systems: Mapping[str, Any] | None = None
) -> str:
    """The whole of RESULTS.md.

    Raises:
      ConfigError: a record says that it reproduces what is no published row.
    """
    if unknown := downstream.unknown(records, published):
        raise ConfigError(f"config.reproduces={unknown[0]!r} is no TASK/SYSTEM of {PUBLISHED.relative_to(ROOT)}")
    tasks = downstream.rows(records, published, systems or {})
    measured = sum(downstream.NOT_RUN not in row for row in tasks)
    published = [row for row in published if "task" not in row]
    runs = [record for record in records if "evaluation" in record and not downstream.reproduces(record)]
    others = [record for record in runs if record["config"].get("source", {}).get("task")]
    runs = [record for record in runs if record not in others]
    benches = [record for record in records if "figures" in record]
    lines = [
        "# Results",
        "",
        "Rendered from `experiments/records/` by `python -m ctxjax.report --ledger`; every figure was measured by the",
        "command of its record, and none is typed by hand. What went wrong on the way is in `LOG.md`.",
        "",
        "## Pretraining",
        "",
        "Held-out figures at the end of each run, beside the figure published for the full-sized system, and how much",
        "smaller our model and its reading were (tokens of all passes, as far as the published number is known).",
        "",
        *table(RUN_HEAD, [row for record in runs for row in _run_rows(record, published)]),
        "",
        "## Without labels",
        "",
        "What `experiments/evaluate/without_labels.py` found of each model (its latest record), beside figures",
        "published for models of the same kind that were trained on far more text.",
        "",
        *_without_labels([record for record in records if "suite" in record], published),
        "",
        "## Downstream",
        "",
        f"Every figure of the published tables, {len(tasks)} in all, {measured} of them measured here, each beside the",
        "latest run that reproduces it (`config.reproduces`). Means over the seeds that did not fail, in percent.",
        "",
        *table(downstream.HEAD, tasks),
        "",
        "## The comparison",
        "",
        "One way to use a pretrained model beside the other, each trained on the same examples from models pretrained",
        "on the same text by `experiments/tasks/compare.py`: held-out figures, one seed, the latest record.",
        "",
        *_compared([record for record in records if "comparison" in record]),
        "",
        "## Downstream, other runs",
        "",
        *table(RUN_HEAD, [row for record in others for row in _run_rows(record, published)]),
        "",
        "## Speed",
        "",
        *table(
            ("bench", "figure", "value", "hardware", "commit", "date"),
            [row for record in benches for row in _bench_rows(record)],
        ),
        "",
        "## Pods",
        "",
        "One train step of one chip, compiled for a TPU slice by `experiments/pods/table.py` and never run: FLOPs from",
        "the analytic count, bytes and collectives from the compiled program with loops as often as they run, and the",
        "time that products, memory and links need by the data sheet, each alone. The longest of the three is the",
        "least that a step can take, and no measurement. Rows a chip are fixed; the last cell names what is not within",
        "3 % of the smallest slice of the same chip.",
        "",
        *_pods([record for record in records if "pods" in record]),
        "",
        "## What the published figures are",
        "",
        *(f"* {row['value']} {row['unit']}: {row['what']} ({row['source']})." for row in published),
        "",
    ]
    return "\n".join(lines)


RUN_HEAD = (
    *("run", "model", "parameters", "tokens", "figure", "ours", "published", "scale"),
    *("time", "hardware", "commit", "other figures"),
)


def _without_labels(records: list[dict[str, Any]], published: list[dict[str, Any]]) -> list[str]:
    """A row a figure, a column a model; what no model has is left out."""
    from ctxjax.page import COLUMNS

    latest = {record["of"]: record for record in sorted(records, key=lambda record: record["date"])}
    rows = []
    for title, figure, show in COLUMNS:
        found = [record["suite"].get(figure) for record in latest.values()]
        theirs = [f"{show(row['value'])} {row['model']}" for row in published if row["metric"] == figure]
        if any(value is not None for value in found):
            cells = ["" if value is None else show(value) for value in found]
            rows.append((title, *cells, ", ".join(theirs)))
    if rows:
        rows.append(("commit", *(str(record["commit"]) for record in latest.values()), ""))
    return table(("", *latest, "published"), rows)


def _pods(records: list[dict[str, Any]]) -> list[str]:
    """The latest table of pods."""
    from ctxjax import pods

    steps = max(records, key=lambda record: record["date"])["pods"] if records else []
    commits = sorted({str(step["commit"]) for step in steps})
    return [*table(pods.HEAD, list(pods.rows(steps))), *(["", f"Commits: {', '.join(commits)}."] if steps else [])]


def _compared(records: list[dict[str, Any]]) -> list[str]:
    """The latest comparison: what was pretrained, and the table."""
    if not records:
        return table((), [])
    from ctxjax import comparison

    record = max(records, key=lambda record: record["date"])
    found = record["comparison"]
    pretrained = ", ".join(
        f"{name} ({count(about['parameters'])} parameters, {count(about['tokens'])} tokens)"
        for name, about in found["systems"].items()
    )
    commits = ", ".join(sorted({commit for one in found["tasks"] for commit in one["commits"]}))
    lines = [
        f"Pretrained: {pretrained}. Commits: {commits}; {hardware(record)}; all runs {duration(found['seconds'])}."
    ]
    return [*lines, "", *comparison.markdown(found)]


def table(head: Sequence[str], rows: list[Sequence[str]]) -> list[str]:
    """A Markdown table, or a line that says there is nothing yet."""
    if not rows:
        return ["Nothing has been run yet."]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _run_rows(record: Mapping[str, Any], published: list[dict[str, Any]]) -> list[Sequence[str]]:
    """A row for each figure that has a published one, or for the first; the rest stand in the first row's last cell."""
    model = record["config"]["model"]
    model = model.get("encoder") or model
    size = f"{model['name']} {model['depth']}x{model['width']}" if "depth" in model else model["name"]
    if "order" in model:
        size = f"{model['name']} of order {model['order']}, {model['smoothing']}"
    same = [row for row in published if row["model"] == model["name"]]
    known = {row["metric"]: row for row in same if row.get("fields", {}).items() <= model.items()}
    deviation, figures = record.get("deviation", {}), downstream.figures(record)

    def shown(metric: str) -> str:
        more = f" ± {number(float(deviation[metric]))}" if metric in deviation else ""
        return number(figures[metric]) + more

    main = [metric for metric in figures if metric in known] or list(figures)[:1]
    others = ", ".join(f"{metric} {shown(metric)}" for metric in figures if metric not in main)
    rows: list[Sequence[str]] = []
    for metric in main:
        first, row = not rows, known.get(metric, {})
        value = number(row["value"]) if row else ""
        about = [record["name"], size, count(record["parameters"]), count(record["tokens"])]
        run = [duration(record["wall_seconds"]), hardware(record), str(record["commit"]), others]
        rows.append(
            (
                *(about if first else [""] * len(about)),
                *(metric, shown(metric), value, scale(record, row)),
                *(run if first else [""] * len(run)),
            )
        )
    return rows


def scale(record: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    """How much less this run is than what a published figure is of: `1/10 of the parameters, 1/6,000 of the tokens`."""
    parts = []
    for name in ("parameters", "tokens"):
        if name in published and record[name]:
            ratio = published[name] / record[name]
            parts.append(f"1/{number(float(f'{ratio:.2g}'))} of the {name}" if ratio > 1.05 else f"as many {name}")
    return ", ".join(parts)


def _bench_rows(record: Mapping[str, Any]) -> list[Sequence[str]]:
    return [
        (record["name"], figure, show(value), hardware(record), str(record["commit"]), record["date"][:10])
        for figure, value in record["figures"].items()
    ]


def show(value: Any) -> str:
    """A figure as text: a number, or `{"median", "low", "high", "unit"}`."""
    if isinstance(value, Mapping):
        spread = f" ({number(value['low'])} to {number(value['high'])})" if "low" in value else ""
        return f"{number(value['median'])}{spread} {value.get('unit', '')}".strip()
    return number(value) if isinstance(value, (int, float)) else str(value)


def number(value: float | int) -> str:
    """Three or four significant digits, thousands apart."""
    if value != value or abs(value) == float("inf"):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float | int) -> str:
    """`1 h 05 min`."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def draw(runs: Sequence[str | os.PathLike[str]], output: pathlib.Path) -> None:
    """One panel for the training loss and one for each held-out figure, all runs in each, over tokens.

    Raises:
      ConfigError: a folder without metrics.
    """
    from ctxjax import metrics, paths

    curves = {}
    for run in map(paths.at, runs):
        if not (run / "metrics.jsonl").is_file():
            raise ConfigError(f"{run} is not a run folder: it has no metrics.jsonl")
        curves[run.name] = metrics.read(run)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    held = sorted({name for lines in curves.values() for line in lines for name in line if "/" in name})
    panels = ["loss", *held]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, name in zip(axes.flat, panels):
        for run, lines in curves.items():
            tokens = {line["step"]: line["tokens"] for line in lines if "tokens" in line}
            points = [(tokens[line["step"]], line[name]) for line in lines if name in line and line["step"] in tokens]
            if points:
                axis.plot(*zip(*points), marker="o" if "/" in name else None, markersize=3, label=run)
        axis.set(title=name, xlabel="tokens")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    cli.main_guard(main)
