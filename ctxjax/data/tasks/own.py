"""Tasks of one's own, in JSON lines: `train.jsonl`, and `heldout.jsonl` and `test.jsonl` where there are any.

    {"texts": ["a sentence", "perhaps another"], "label": "a name"}      own.labels, own.pairs
    {"texts": ["a sentence", "another"], "label": 3.5}                   own.scores
    {"texts": ["what is shared", "choice", "choice"], "label": 0}        own.choices (two of them; own.choices4: four)

`text` with one text does in place of `texts`. Test sets need no `label`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.data.tasks import Example, Task
from ctxjax.data.tasks.files import json_lines, number

FILES = {split: (f"{split}.jsonl",) for split in ("train", "heldout", "test")}


def _reader(parts: int, target: Callable[[Any, str], Any]) -> Callable[[pathlib.Path], Iterator[Example]]:
    def read(path: pathlib.Path) -> Iterator[Example]:
        for index, (where, value) in enumerate(json_lines(path)):
            texts = value.get("texts", [value["text"]] if "text" in value else [])
            if not isinstance(texts, list) or len(texts) != parts:
                raise ConfigError(f"{where}: 'texts' is not a list of {parts} texts")
            told = value.get("label")
            yield Example(
                tuple(str(text).strip() for text in texts),
                None if told is None else target(told, where),
                str(value.get("id", index)),
                where,
            )

    return read


def _choices(choices: int) -> Task:
    def target(told: Any, where: str) -> int:
        if not isinstance(told, int) or not 0 <= told < choices:
            raise ConfigError(f"{where}: {told!r} is not the number of one of {choices} choices, from 0")
        return told

    return Task(kind="choose", read=_reader(choices + 1, target), files=FILES, parts=2, choices=choices)


labels = Task(
    kind="classify", read=_reader(1, lambda told, _: str(told)), files=FILES, metrics=("accuracy", "macro_f1")
)
pairs = Task(
    kind="classify", read=_reader(2, lambda told, _: str(told)), files=FILES, metrics=("accuracy", "macro_f1"), parts=2
)
scores = Task(
    kind="regress",
    read=_reader(2, lambda told, where: number(str(told), where)),
    files=FILES,
    metrics=("pearson", "spearman"),
    parts=2,
    symmetric=True,
)
choices, choices3, choices4 = (_choices(count) for count in (2, 3, 4))
