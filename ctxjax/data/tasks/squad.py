"""Questions on paragraphs, as SQuAD's JSON has them: versions 1.1 and 2.0, and others in the same layout (XQuAD).

Reference: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text"; Rajpurkar et al. 2018,
"Know What You Don't Know: Unanswerable Questions for SQuAD".
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ctxjax.config import ConfigError
from ctxjax.data import draws

VERSIONS = ("1.1", "2.0")


class Answer(NamedTuple):
    """A text and the character of the context where it begins."""

    text: str
    start: int


class Question(NamedTuple):
    """A question on a context.

    Attributes:
      answers: as annotated, several of a development set; none of a test set, or where there is none.
      impossible: whether the context does not answer it (2.0).
      where: file and place in it.
    """

    id: str
    title: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    impossible: bool
    where: str


def read(path: str | os.PathLike[str]) -> Iterator[Question]:
    """The questions of a file, in its order.

    Raises:
      ConfigError: naming the file and the place in it, where it is not in SQuAD's layout.
    """
    path = pathlib.Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            articles = _field(json.load(file), "data", list, str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON in UTF-8 ({error})") from None
    seen: set[str] = set()
    for number, article in enumerate(articles):
        where = f"{path}, data[{number}]"
        paragraphs = _field(article, "paragraphs", list, where)
        title = str(article.get("title", ""))
        for place, paragraph in enumerate(paragraphs):
            here = f"{where}.paragraphs[{place}]"
            context = _field(paragraph, "context", str, here)
            for index, asked in enumerate(_field(paragraph, "qas", list, here)):
                question = _question(asked, title, context, f"{here}.qas[{index}]")
                if question.id in seen:
                    raise ConfigError(f"{question.where}: the id {question.id!r} was there before")
                seen.add(question.id)
                yield question
    if not seen:
        raise ConfigError(f"{path} has no question")


def _question(asked: Any, title: str, context: str, where: str) -> Question:
    answers = []
    found = asked.get("answers") or [] if isinstance(asked, dict) else []
    for number, answer in enumerate(found if isinstance(found, list) else [found]):
        place = f"{where}.answers[{number}]"
        answers.append(Answer(_field(answer, "text", str, place), _field(answer, "answer_start", int, place)))
    name, text = _field(asked, "id", (str, int), where), _field(asked, "question", str, where)
    impossible = asked.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise ConfigError(f"{where}: is_impossible is {impossible!r}, neither true nor false")
    return Question(str(name), title, text, context, () if impossible else tuple(answers), impossible, where)


def _field(record: Any, name: str, kind: Any, where: str) -> Any:
    """A field of a record of the right kind; `true` is no number."""
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        what = {list: "list", str: "text", int: "number"}.get(kind, "text or number")
        raise ConfigError(f"{where} has no {what} {name!r}, as SQuAD's layout has it")
    return value


def distinct(questions: Iterable[Question]) -> list[Question]:
    """Each question on a context once: the first of those that are equal but for white space and case."""
    kept: dict[tuple[str, str], Question] = {}
    for one in questions:
        kept.setdefault((" ".join(one.context.split()), " ".join(one.question.lower().split())), one)
    return list(kept.values())


def held_out(title: str, share: float) -> bool:
    """Whether an article is held out: a share of all titles, the same ones in every run."""
    return draws.key("squad", title) < share * 2.0**64
