"""From the scores of pieces to the text of an answer: the n best spans of all windows, told in the original's letters.

Reference: Devlin et al. 2019, sections 4.2 and 4.3; google-research/bert run_squad.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ctxjax.text import basic

NONE = "empty"  # what is told where no span is valid


class Span(NamedTuple):
    """Pieces `first` to `last` of a context, which -1 stands for where there is no answer, and the two scores."""

    first: int
    last: int
    start: float
    end: float

    @property
    def score(self) -> float:
        return self.start + self.end


class Window(NamedTuple):
    """What a model says of one window.

    Attributes:
      scores: of every position of the row as the first and the last piece of the answer, padding too.
      first: the piece of the context where the window begins.
      place: the position of that piece in the row.
      most: of every piece of the window whether no other window sees more around it.
      none: the position that stands for no answer.
    """

    scores: Float[np.ndarray, "L 2"]
    first: int
    place: int
    most: Bool[np.ndarray, " S"]
    none: int = 0


def best_spans(windows: Sequence[Window], n_best: int = 20, max_answer: int = 30) -> list[Span]:
    """Every valid span made of the `n_best` starts and ends of each window, by falling score.

    The start has to be in the window that sees most around it, the end has not.
    """
    found: list[Span] = []
    for window in windows:
        scores = window.scores.astype(np.float64)
        starts, ends = (np.argsort(-scores[:, column], kind="stable")[:n_best] for column in (0, 1))
        one, two = np.repeat(starts, len(ends)), np.tile(ends, len(starts))
        inside = (one >= window.place) & (two >= one) & (two < window.place + len(window.most))
        one, two = one[inside], two[inside]
        valid = (two - one < max_answer) & window.most[one - window.place]
        shift = window.first - window.place
        for start, end in zip(one[valid].tolist(), two[valid].tolist()):
            found.append(Span(start + shift, end + shift, float(scores[start, 0]), float(scores[end, 1])))
    return sorted(found, key=lambda span: -span.score)


def no_answer(windows: Sequence[Window]) -> Span:
    """The span that says there is no answer, from the window where that scores least."""
    scores = [window.scores[window.none].astype(np.float64) for window in windows]
    least = min(scores, key=lambda pair: float(pair.sum()), default=np.zeros(2))
    return Span(-1, -1, float(least[0]), float(least[1]))


class Context(NamedTuple):
    """A context as words between blanks and as pieces."""

    text: str
    words: list[str]
    word_of_piece: Int[np.ndarray, " n"]
    pieces: list[str]
    offsets: Int[np.ndarray, "n 2"]

    def text_of(self, first: int, last: int, lowercase: bool, projection: str) -> str:
        """The letters of pieces `first` to `last`: those that they were cut from ("offsets"), or as published the part
        of their words that aligns with them ("alignment")."""
        if projection == "offsets":
            return self.text[self.offsets[first, 0] : self.offsets[last, 1]].strip()
        told = " ".join(self.pieces[first : last + 1]).replace(" ##", "").replace("##", "")
        words = self.words[self.word_of_piece[first] : self.word_of_piece[last] + 1]
        return project(" ".join(told.split()), " ".join(words), lowercase)


def project(told: str, original: str, lowercase: bool) -> str:
    """The part of `original` that `told`, in basic tokens between blanks, was made from; all of it where that is not to
    be had by counting letters."""
    tokens = _basic(original, lowercase)
    place = tokens.find(told)
    letters = [number for number, char in enumerate(original) if char != " "]
    before = len(tokens[:place].replace(" ", ""))
    size = len(told.replace(" ", ""))
    if place < 0 or not size or len(tokens.replace(" ", "")) != len(letters):
        return original
    return original[letters[before] : letters[before + size - 1] + 1]


@functools.lru_cache(1 << 12)
def _basic(text: str, lowercase: bool) -> str:
    return " ".join(word.text for word in basic.normalize(text, lowercase))


class Told(NamedTuple):
    """What is told of one question.

    Attributes:
      text: the best text that is not empty.
      best: the n best texts with the scores of start and end; with version 2.0 "" is among them.
      odds: by how much the score of no answer is over that of `text`; 0 for version 1.1.
    """

    text: str
    best: list[tuple[str, float, float]]
    odds: float

    def probabilities(self) -> list[float]:
        """Softmax of the scores of the n best."""
        sums = [start + end for _, start, end in self.best]
        powers = [math.exp(one - max(sums)) for one in sums]
        return [power / sum(powers) for power in powers]


def tell(
    windows: Sequence[Window],
    context: Context,
    version: str = "1.1",
    n_best: int = 20,
    max_answer: int = 30,
    lowercase: bool = True,
    projection: str = "alignment",
) -> Told:
    """The n best texts of a question, each once."""
    found = best_spans(windows, n_best, max_answer)
    none = no_answer(windows)
    if version == "2.0":
        found = sorted([*found, none], key=lambda span: -span.score)
    best: dict[str, Span] = {}
    for span in found:
        if len(best) == n_best:
            break
        text = context.text_of(span.first, span.last, lowercase, projection) if span.first >= 0 else ""
        best.setdefault(text, span)
    if version == "2.0":
        best.setdefault("", none)
    text = next((text for text in best if text), NONE)
    if not best:
        best[NONE] = Span(-1, -1, 0.0, 0.0)
    odds = none.score - (best[text].score if text in best else 0.0) if version == "2.0" else 0.0
    return Told(text, [(text, span.start, span.end) for text, span in best.items()], odds)
