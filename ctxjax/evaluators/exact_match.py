"""Exact match and F1 of answers to questions, as the official scripts of SQuAD 1.1 and 2.0 count them.

The two differ where nothing is left of an answer without its articles and punctuation: by 1.1 such an answer has no
words in common with anything; 2.0 leaves it out, and where none is left the right answer is to tell none.

Reference: Rajpurkar et al. 2016, section 6.1; Rajpurkar et al. 2018; Lewis et al. 2020, "MLQA: Evaluating Cross-lingual
Extractive Question Answering", appendix, for Chinese, whose ideographs are words.
"""

from __future__ import annotations

import collections
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ctxjax.config import ConfigError
from ctxjax.data.tasks.squad import Question
from ctxjax.text.basic import is_cjk

LANGUAGES = ("en", "zh")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = frozenset(string.punctuation)


class Score(NamedTuple):
    """Of one question, 0 to 1."""

    exact_match: float
    f1: float


def words_of(text: str, language: str = "en") -> list[str]:
    """The words that are compared: lower case, without ASCII punctuation, then without articles.

    Of Chinese: without any punctuation, every ideograph by itself.
    """
    text = text.lower()
    if language == "zh":
        kept = [char for char in text if char not in _MARKS and not unicodedata.category(char).startswith("P")]
        return "".join(f" {char} " if is_cjk(char) else char for char in kept).split()
    return _ARTICLES.sub(" ", "".join(char for char in text if char not in _MARKS)).split()


def score(told: str, answers: Sequence[str], version: str = "1.1", language: str = "en") -> Score:
    """The best of an answer's comparisons with each of those that were annotated; none of these is "" by 2.0."""
    ours = words_of(told, language)
    theirs = [words_of(answer, language) for answer in answers]
    if version == "2.0":
        theirs = [words for words in theirs if words] or [[]]
    found = [(float(ours == words), _f1(ours, words, version)) for words in theirs]
    return Score(max(exact for exact, _ in found), max(f1 for _, f1 in found))


def _f1(ours: Sequence[str], theirs: Sequence[str], version: str) -> float:
    if version == "2.0" and not (ours and theirs):
        return float(ours == theirs)
    common = (collections.Counter(ours) & collections.Counter(theirs)).total()
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def scores(
    questions: Sequence[Question], told: Mapping[str, str], version: str = "1.1", language: str = "en"
) -> dict[str, Score]:
    """The score of every question by its id.

    Raises:
      ConfigError: a question without an answer told, an answer without a question, or (1.1) without one annotated.
    """
    if strange := told.keys() ^ {one.id for one in questions}:
        name = min(strange)
        what = "answers a question that is not there" if name in told else "has no answer"
        raise ConfigError(f"{len(told)} predictions for {len(questions)} questions: {name!r} {what}")
    if version == "1.1":
        for one in questions:
            if not one.answers:
                raise ConfigError(f"{one.where}: no answer to compare with, which is for version=2.0")
    return {
        one.id: score(told[one.id], [answer.text for answer in one.answers], version, language) for one in questions
    }


def means(questions: Sequence[Question], found: Mapping[str, Score], version: str = "1.1") -> dict[str, float]:
    """`exact_match` and `f1`, 0 to 100; by 2.0 also of the questions with and without an answer apart."""
    parts = {"": list(questions)}
    if version == "2.0":
        parts["has_answer_"] = [one for one in questions if one.answers]
        parts["no_answer_"] = [one for one in questions if not one.answers]
    figures: dict[str, float] = {}
    for prefix, some in parts.items():
        for column, name in enumerate(Score._fields):
            if some:
                figures[prefix + name] = 100.0 * sum(found[one.id][column] for one in some) / len(some)
    return figures


def best_threshold(
    questions: Sequence[Question], found: Mapping[str, float], told: Mapping[str, str], odds: Mapping[str, float]
) -> tuple[float, float]:
    """The best mean (0 to 100) that a threshold on the odds of "no answer" could give, and that threshold.

    Args:
      questions: by their order ties of the odds are broken.
      found: exact match or F1 of each question by `told`, answers before any threshold.
      odds: over the threshold a question has no answer.
    """
    answered = {one.id: bool(one.answers) for one in questions}
    sum_now = best = float(len(questions) - sum(answered.values()))
    threshold = 0.0
    for name in sorted(answered, key=lambda name: odds[name]):
        if answered[name]:
            sum_now += found[name]
        elif told[name]:
            sum_now -= 1.0
        if sum_now > best:
            best, threshold = sum_now, odds[name]
    return 100.0 * best / len(questions), threshold
