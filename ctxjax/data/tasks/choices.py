"""One of several endings, causes, effects or answers: SWAG, CODAH in its format, COPA, DREAM.

What the choices share is the first text of an example; every choice is another, read as a pair with the first.

Reference: Zellers et al. 2018, "SWAG: A Large-Scale Adversarial Dataset for Grounded Commonsense Inference"; Chen et
al. 2019, "CODAH: An Adversarially-Authored Question Answering Dataset for Common Sense"; Roemmele et al. 2011, "Choice
of Plausible Alternatives"; Sun et al. 2019, "DREAM: A Challenge Data Set and Models for Dialogue-Based Reading
Comprehension".
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from xml.etree import ElementTree

from ctxjax.config import ConfigError
from ctxjax.data.tasks import Example, Task, Tfds
from ctxjax.data.tasks.files import column, field, opened, table

LARGEST = 64 << 20  # bytes of a file that is read as a whole


def _place(text: str, choices: int, where: str) -> int:
    if not (text.isdigit() and int(text) < choices):
        raise ConfigError(f"{where}: {text!r} is not the number of one of {choices} choices, from 0")
    return int(text)


def _swag(path: pathlib.Path) -> Iterator[Example]:
    for index, (where, row) in enumerate(table(path, quoted=",")):
        begun = column(row, "sent2", where).strip()
        endings = (f"{begun} {column(row, f'ending{place}', where).strip()}".strip() for place in range(4))
        target = _place(row["label"].strip(), 4, where) if "label" in row else None
        yield Example((column(row, "sent1", where).strip(), *endings), target, str(index), where)


swag = Task(
    kind="choose",
    read=_swag,
    files={"train": ("train.csv",), "heldout": ("val.csv",), "test": ("test.csv",)},
    parts=2,
    choices=4,
)

_CODAH = ("category", "prompt", "0", "1", "2", "3", "label")


def _codah(path: pathlib.Path) -> Iterator[Example]:
    for index, (where, row) in enumerate(table(path, names=_CODAH)):
        endings = (row[str(place)].strip() for place in range(4))
        yield Example((row["prompt"].strip(), *endings), _place(row["label"].strip(), 4, where), str(index), where)


codah = Task(  # a folder of `cv_split`, the five folds of the published figures, or that of `full_data.tsv`
    kind="choose",
    read=_codah,
    files={"train": ("train.tsv", "full_data.tsv"), "heldout": ("dev.tsv",), "test": ("test.tsv",)},
    parts=2,
    choices=4,
)

_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def _copa(path: pathlib.Path) -> Iterator[Example]:
    try:
        root = ElementTree.fromstring(_small(path))
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: not XML ({error})") from None
    for item in root.iter("item"):
        where = f"{path}, item {item.get('id')}"
        asked, right = item.get("asks-for", ""), item.get("most-plausible-alternative")
        texts = [(item.findtext(name) or "").strip() for name in ("p", "a1", "a2")]
        if asked not in _QUESTIONS:
            raise ConfigError(f"{where}: asks-for={asked!r} is neither 'cause' nor 'effect'")
        target = None if right is None else _place(str(int(right) - 1) if right.isdigit() else right, 2, where)
        yield Example((f"{texts[0]} {_QUESTIONS[asked]}", *texts[1:]), target, item.get("id", ""), where)


copa = Task(
    kind="choose",
    read=_copa,
    files={"train": ("copa-dev.xml",), "test": ("copa-test.xml",)},
    parts=2,
    choices=2,
    tfds=Tfds(  # SuperGLUE divides the development set into two, and tells nothing of the test set
        "super_glue/copa",
        ("premise", "choice1", "choice2", "question"),
        classes=("choice1", "choice2"),
        id="idx",
        parts=lambda premise, first, second, asked: (f"{premise} {_QUESTIONS[asked]}", first, second),
    ),
)


def _dream(path: pathlib.Path) -> Iterator[Example]:
    try:
        dialogues = json.loads(_small(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({str(error)[:100]})") from None
    for turns, questions, identity in dialogues:
        for place, question in enumerate(questions):
            where = f"{path}, dialogue {identity}"
            asked, told = (
                str(field(question, "question", where)),
                [str(each) for each in field(question, "choice", where)],
            )
            right = question.get("answer")
            if len(told) != 3 or (right is not None and right not in told):
                raise ConfigError(f"{where}: {len(told)} choices, where there should be 3 with the answer among them")
            texts = (" ".join(turns).strip(), *(f"{asked} {choice}".strip() for choice in told))
            yield Example(texts, None if right is None else told.index(right), f"{identity}-{place}", where)


def _small(path: pathlib.Path) -> str:
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")
    with opened(path) as file:
        return file.read()


dream = Task(
    kind="choose",
    read=_dream,
    files={"train": ("train.json",), "heldout": ("dev.json",), "test": ("test.json",)},
    parts=2,
    choices=3,
)
