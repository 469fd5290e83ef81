"""The texts of a task as ULMFiT reads them.

    python experiments/ulmfit/texts.py --task topics.trec6 --input DIR --output DIR

Writes train.jsonl, heldout.jsonl and test.jsonl, a text and its label a line, from the official files of any task of
`ctxjax/data/tasks/` that labels single texts. The texts have the marks of their beginning and their field; capitals and
repetitions are the tokenizer's business (`prepare --marked`). Where the task has no held-out file, a tenth of the
training texts is held out, those whose digest is smallest. `--unlabelled`, JSON lines with `text`, become
unlabelled.jsonl.

`prepare` reads the same files for the language model, and all text of the task may be in it, but for the test part.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

HELDOUT = 0.1
UNLABELLED = "unlabelled"


def texts(task: str, folder: pathlib.Path, share: float = 0.0, limit: int = 0) -> Iterator[tuple[str, str, str]]:
    """Split, label and text of every example, or of those that the source "examples" takes with a share and a limit.

    Raises:
      ConfigError: a task of another kind, a file that is missing, a label that the task does not have.
    """
    from ctxjax.config import ConfigError
    from ctxjax.data.tasks import Task, open_task

    found = open_task(task, "--task")
    if not isinstance(found, Task) or found.kind != "classify" or found.parts != 1:
        raise ConfigError(f"--task {task} does not label single texts, as topics.trec6 or sentiment.imdb do")
    from ctxjax.data.sources.examples import Source

    for split in ("train", "heldout") if share else ("train", "heldout", "test"):
        if share or split in found.files:
            whole = Source(str(folder), split, task, tokenizer="of no use", share=share, limit=limit) if share else None
            for example in whole.examples if whole else found.read(found.path(folder, split)):
                if found.labels and example.target not in found.labels:
                    raise ConfigError(
                        f"{example.where}: the label {example.target!r} is none of {', '.join(found.labels)}"
                    )
                yield split, str(example.target), example.texts[0]


def write(
    task: str,
    folder: pathlib.Path,
    output: pathlib.Path,
    rules: str = "script",
    unlabelled: pathlib.Path | None = None,
    share: float = 0.0,
    limit: int = 0,
) -> dict[str, int]:
    """Write all files of a task; returns the number of texts in each."""
    import xxhash

    from ctxjax.data.tasks import open_task
    from ctxjax.data.tasks.files import field, json_lines
    from ctxjax.text import marks

    output.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    drawn = not share and "heldout" not in open_task(task).files
    for split, label, raw in texts(task, folder, share, limit):
        text = marks.opened([raw], rules)
        digest = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
        if split == "train" and drawn and digest < HELDOUT * 2**64:
            split = "heldout"
        lines.setdefault(split, []).append(json.dumps({"label": label, "text": text}) + "\n")
    for where, value in json_lines(unlabelled) if unlabelled else ():
        text = marks.opened([str(field(value, "text", where))], rules)
        lines.setdefault(UNLABELLED, []).append(json.dumps({"text": text}) + "\n")
    for split, found in lines.items():
        part = output / f".{split}.part"
        part.write_text("".join(found))
        part.replace(output / f"{split}.jsonl")
    return {split: len(found) for split, found in lines.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="as topics.trec6, sentiment.imdb, topics.ag_news")
    parser.add_argument("--input", type=pathlib.Path, required=True, help="folder of the task's official files")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--marked", choices=("script", "fastai"), default="script", help="which marks (default script)")
    parser.add_argument("--unlabelled", type=pathlib.Path, help="more text for the language model, JSON lines")
    parser.add_argument("--share", type=float, default=0.0, help="held out as by source.share of tasks/finetune.py")
    parser.add_argument("--limit", type=int, default=0, help="with --share: to train on, as source.limit there")
    options = parser.parse_args(argv)
    made = write(
        options.task, options.input, options.output, options.marked, options.unlabelled, options.share, options.limit
    )
    for split, number in made.items():
        print(f"{options.output / split}.jsonl: {number:,} texts")
    return 0


if __name__ == "__main__":
    from ctxjax import cli

    cli.main_guard(main)
