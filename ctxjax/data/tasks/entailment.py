"""Entailment of sentence pairs: SNLI in JSON lines, SICK with its judgements of entailment and of relatedness.

Reference: Bowman et al. 2015, "A large annotated corpus for learning natural language inference"; Marelli et al. 2014,
"A SICK cure for the evaluation of compositional distributional semantic models".
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from ctxjax.data.tasks import Example, Task, Tfds
from ctxjax.data.tasks.files import field, json_lines, number, rows_of


def _snli(path: pathlib.Path) -> Iterator[Example]:
    for index, (where, value) in enumerate(json_lines(path)):
        parts = tuple(str(field(value, name, where)).strip() for name in ("sentence1", "sentence2"))
        yield Example(parts, str(field(value, "gold_label", where)), str(value.get("pairID", index)), where)


snli = Task(
    kind="classify",
    read=_snli,
    files={
        split: (f"snli_1.0_{name}.jsonl",) for split, name in (("train", "train"), ("heldout", "dev"), ("test", "test"))
    },
    labels=("entailment", "neutral", "contradiction"),
    parts=2,
    skipped=("-",),  # on which the annotators had no majority
    tfds=Tfds("snli", ("premise", "hypothesis")),
)

_SICK = {"train": ("SICK_train.txt",), "heldout": ("SICK_trial.txt",), "test": ("SICK_test_annotated.txt",)}
_PAIR = ("sentence_A", "sentence_B")
sick = Task(
    kind="classify",
    read=rows_of(_PAIR, "entailment_judgment", identity="pair_ID"),
    files=_SICK,
    labels=("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
    parts=2,
)
sick_relatedness = Task(
    kind="regress",
    read=rows_of(_PAIR, "relatedness_score", identity="pair_ID", target=number),
    files=_SICK,
    metrics=("pearson", "spearman", "squared_error"),
    parts=2,
    bounds=(1.0, 5.0),
    symmetric=True,
)
