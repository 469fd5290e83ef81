r"""Compare systems: figures of their runs side by side, and whether a difference may be chance.

    python -m ctxjax.compare runs/bert runs/elmo              # record.json of each: mean ± deviation of the seeds
    python -m ctxjax.compare a.jsonl b.jsonl --metric f1      # what each told of the same examples

A file of examples (python -m ctxjax.evaluate --examples FOLDER) has one JSON object a line, with `id` and
    score                 of that example, as F1 of an answer; the figure is their mean;
    correct, told, gold   counts of that example, as of spans in a sentence; the figure is F1 of their sums; or
    target, prediction    labels or numbers; the figure is --metric.
The files must be of the same examples, in whatever order. Each system after the first is compared with it by the paired
bootstrap: examples are drawn with replacement, the same for both, and p is the share of draws in which the difference
is more than twice what it is on all of them.

Reference: Berg-Kirkpatrick et al. 2012, "An Empirical Investigation of Statistical Significance in NLP".
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxjax import cli
from ctxjax.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

SHAPES = (("score",), ("correct", "told", "gold"), ("target", "prediction"))
NUMBERS = ("pearson", "spearman", "squared_error")
METRICS = ("accuracy", "f1", "macro_f1", "matthews", *NUMBERS)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="+", help="run folders or records, or files of examples")
    parser.add_argument(
        "--metric", choices=METRICS, default="accuracy", help="of targets and predictions; accuracy by default"
    )
    parser.add_argument("--positive", default="1", help="the label that --metric f1 counts; 1 by default")
    parser.add_argument("--resamples", type=int, default=10_000, help="draws of the bootstrap; 10,000 by default")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    args = parser.parse_args(argv)
    if args.resamples < 1:
        raise ConfigError(f"--resamples={args.resamples} must be at least 1")
    if any(path.endswith(".jsonl") for path in args.systems):
        print(of_examples(args.systems, args.metric, args.positive, args.resamples, args.seed))
    else:
        print(of_records(args.systems))
    return 0


# --- records ---


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a run folder, or a file that is one.

    Raises:
      ConfigError: there is none.
    """
    from ctxjax.paths import at

    file = at(path)
    file = file / "record.json" if file.is_dir() else file
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a record ({error}); a run writes it at its end") from None
    if "evaluation" not in record:
        raise ConfigError(f"{file} is no record of a run: it has no evaluation")
    return record


def of_records(paths: Sequence[str]) -> str:
    """A Markdown table: a row a figure, a column a system."""
    from ctxjax.ledger import figures

    found = {str(path): read_record(path) for path in paths}
    values = {name: figures(record) for name, record in found.items()}
    names = list(dict.fromkeys(figure for one in values.values() for figure in one))
    lines = [["figure", *found], ["---"] * (len(found) + 1)]
    lines.append(["seeds", *(_seeds(record) for record in found.values())])
    for figure in names:
        cells = []
        for name, record in found.items():
            deviation = float(record.get("deviation", {}).get(figure, "nan"))
            value = f"{values[name][figure]:.4g}" if figure in values[name] else ""
            cells.append(value + ("" if deviation != deviation else f" ± {deviation:.2g}"))
        lines.append([figure, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seeds(record: Mapping[str, Any]) -> str:
    failed = record.get("failed")
    if "seeds" not in record:
        return "1, failed" if failed else "1"
    return f"{len(record['seeds'])}" + (f", of which {len(failed)} failed" if failed else "")


# --- examples ---


def read_examples(path: str | os.PathLike[str]) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """What kind of file it is, and its examples by id.

    Raises:
      ConfigError: a line that is no such object, or an id that was there before, by file and line.
    """
    from ctxjax.paths import at

    shape: tuple[str, ...] = ()
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = at(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            example = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not JSON ({error})") from None
        fields = example if isinstance(example, dict) else {}
        known = shape or next((names for names in SHAPES if all(name in fields for name in names)), ())
        missing = [name for name in ("id", *known) if name not in fields]
        if missing or not known:
            raise ConfigError(f"{where}: no field {missing[0] if missing else 'score'!r}; see --help for what there is")
        if str(fields["id"]) in found:
            raise ConfigError(f"{where}: the id {fields['id']!r} was there before")
        shape, found[str(fields["id"])] = known, fields
    if not found:
        raise ConfigError(f"{path} holds no example")
    return shape, found


def figure_of(
    shape: tuple[str, ...], examples: Sequence[Mapping[str, Any]], metric: str, positive: str
) -> Callable[[np.ndarray], float]:
    """The figure of some of these examples, by their numbers."""
    import numpy as np

    if shape == ("score",):
        values = np.array([example["score"] for example in examples], np.float64)
        return lambda drawn: float(values[drawn].mean())
    if shape == ("correct", "told", "gold"):
        counts = np.array([[example[name] for name in shape] for example in examples], np.float64)

        def f1(drawn: np.ndarray) -> float:
            correct, told, gold = counts[drawn].sum(axis=0).tolist()
            return 200.0 * correct / max(1.0, told + gold)

        return f1
    from ctxjax.evaluators.scores import scores

    targets, told = ([example[name] for example in examples] for name in shape)
    names = [] if metric in NUMBERS else sorted({str(one) for one in [*targets, *told, positive]})
    kind = np.int64 if names else np.float64
    right, ours = (
        np.array([names.index(str(one)) if names else float(one) for one in some], kind) for some in (targets, told)
    )
    label = names.index(positive) if names else 0
    return lambda drawn: scores((metric,), ours[drawn], right[drawn], label)[metric]


def of_examples(paths: Sequence[str], metric: str, positive: str, resamples: int, seed: int) -> str:
    """A Markdown table: every system beside the first.

    Raises:
      ConfigError: files of different kinds, or not of the same examples.
    """
    from ctxjax.significance import paired_bootstrap

    if len(paths) < 2:
        raise ConfigError("one file of examples has nothing to be compared with; give two or more")
    read = [read_examples(path) for path in paths]
    shape, first = read[0]
    for path, (other, examples) in zip(paths, read):
        if other != shape:
            raise ConfigError(f"{path} has {' and '.join(other)}, and {paths[0]} has {' and '.join(shape)}")
        if strange := sorted(first.keys() ^ examples.keys()):
            raise ConfigError(
                f"{path} has {len(examples)} examples and {paths[0]} {len(first)}: {strange[0]!r} is in one alone"
            )
        if "target" in shape:
            for name, example in examples.items():
                if str(example["target"]) != str(first[name]["target"]):
                    raise ConfigError(f"{path}: the target of {name!r} is not the one of {paths[0]}")
    figures = [figure_of(shape, [examples[name] for name in first], metric, positive) for _, examples in read]
    what = {1: "mean score", 3: "F1", 2: metric}[len(shape)]
    lines = [["system", what, "difference", "95 %", "p"], ["---"] * 5]
    for path, figure in zip(paths, figures):
        found = paired_bootstrap(figure, figures[0], len(first), resamples, seed)
        rest = [f"{found.a - found.b:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}", f"{found.p:.4f}"]
        lines.append([str(path), f"{found.a:.4f}", *(rest if figure is not figures[0] else [""] * 3)])
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", f"{len(first):,} examples, drawn {resamples:,} times."])


if __name__ == "__main__":
    cli.main_guard(main)
