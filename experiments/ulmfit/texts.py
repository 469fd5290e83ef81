"""The texts of a task as ULMFiT reads them: `python experiments/ulmfit/texts.py --task trec6 --input DIR --output DIR`.

Writes train.jsonl, heldout.jsonl and test.jsonl, a text and its label a line. The texts have the marks of their
beginning and of their fields; capitals and repetitions are the tokenizer's business (`prepare --marked`). A tenth of
the training texts is held out, those whose digest is smallest; unlabelled texts (IMDb's) have a file of their own.

`prepare` reads the same files for the language model, and all text of the task may be in it, but for the test part.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import pathlib
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

HELDOUT = 0.1
UNLABELLED = "unlabelled"
Labelled = tuple[str, tuple[str, ...]]  # label, fields


def trec6(folder: pathlib.Path) -> Iterator[tuple[str, Labelled]]:
    """TREC.train.all and TREC.test.all: a digit and a question a line, in Latin-1."""
    for split, name in (("train", "TREC.train.all"), ("test", "TREC.test.all")):
        for number, line in enumerate(_open(folder / name, "latin-1"), 1):
            label, _, text = line.rstrip("\n").partition(" ")
            yield split, (_known(label, "012345", folder / name, number), (text,))


def imdb(folder: pathlib.Path) -> Iterator[tuple[str, Labelled]]:
    """train.jsonl and test.jsonl, perhaps .xz, objects with `label` and `text`; unlabelled.jsonl where it is."""
    for split in ("train", "test", UNLABELLED):
        path = next((found for ending in ("", ".xz") if (found := folder / f"{split}.jsonl{ending}").is_file()), None)
        if path is None and split == UNLABELLED:
            continue
        for number, line in enumerate(_open(path or folder / f"{split}.jsonl"), 1):
            record = json.loads(line)
            label = "" if split == UNLABELLED else _known(str(record["label"]), "01", path, number)
            yield split, (label, (record["text"],))


def columns(folder: pathlib.Path) -> Iterator[tuple[str, Labelled]]:
    """train.csv and test.csv of Zhang et al. 2015 (AG, DBpedia, Yelp): a label from 1, and one or several fields."""
    for split in ("train", "test"):
        for number, row in enumerate(csv.reader(_open(folder / f"{split}.csv")), 1):
            if len(row) < 2 or not row[0].isdigit():
                _refuse(f"{folder / split}.csv, row {number}: not a label and a text")
            yield split, (row[0], tuple(row[1:]))


READERS = {"trec6": trec6, "imdb": imdb, "ag": columns, "dbpedia": columns, "yelp2": columns, "yelp5": columns}


def _open(path: pathlib.Path, encoding: str = "utf-8") -> Iterator[str]:
    if not path.is_file():
        _refuse(f"there is no file {path}")
    with (
        lzma.open(path, "rt", encoding=encoding)
        if path.suffix == ".xz"
        else open(path, encoding=encoding, newline="") as file
    ):
        yield from file


def _known(label: str, labels: str, path: pathlib.Path | None, number: int) -> str:
    if label not in labels or len(label) != 1:
        _refuse(f"{path}, line {number}: the label {label!r} is not one of {', '.join(labels)}")
    return label


def _refuse(why: str) -> None:
    from ctxjax.config import ConfigError

    raise ConfigError(why)


def write(task: str, folder: pathlib.Path, output: pathlib.Path, rules: str = "script") -> dict[str, int]:
    """Write all files of a task; returns the number of texts in each."""
    import xxhash

    from ctxjax.text import marks

    output.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    for split, (label, fields) in READERS[task](folder):
        text = marks.opened(fields, rules)
        if split == "train" and xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) < HELDOUT * 2**64:
            split = "heldout"
        lines.setdefault(split, []).append(
            json.dumps({"label": label, "text": text} if label else {"text": text}) + "\n"
        )
    for split, texts in lines.items():
        part = output / f".{split}.part"
        part.write_text("".join(texts))
        part.replace(output / f"{split}.jsonl")
    return {split: len(texts) for split, texts in lines.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(READERS), required=True)
    parser.add_argument("--input", type=pathlib.Path, required=True, help="folder of the task's official files")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--marked", choices=("script", "fastai"), default="script", help="which marks (default script)")
    options = parser.parse_args(argv)
    for split, number in write(options.task, options.input, options.output, options.marked).items():
        print(f"{options.output / split}.jsonl: {number:,} texts")
    return 0


if __name__ == "__main__":
    from ctxjax import cli

    cli.main_guard(main)
