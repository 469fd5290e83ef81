"""The index of questions: pieces of contexts and questions, windows, and where the answer is in each.

Reference: google-research/bert run_squad.py.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.data.tasks import squad
from ctxjax.data.transforms import spans

COLUMNS = ("question", "first", "size", "start", "end", "counts")
THEN = (", without a share in the loss", ", their questions passed over")  # of held-out questions, of training


def write_index(folder: pathlib.Path, *, source: Any, report: Callable[[int, str], None]) -> None:
    """Write pieces of contexts and questions, one behind the other, and `windows`, a row each as `COLUMNS` says.

    Args:
      folder: where the arrays go.
      source: has `questions`, `split`, `tokenizer`, `framing`, and the sizes `length`, `stride` and `max_query`.
      report: called with a number and what was left out or cut so often.

    Raises:
      ConfigError: no window is left.
    """
    from tqdm import tqdm

    tokenizer, questions = source.tokenizer, source.questions
    numbers: dict[str, int] = {}
    ids: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    of_question: list[int] = []
    windows: list[np.ndarray] = []
    words = spans.Words([], np.zeros(0, np.int64))
    lost = cut = bare = 0
    bar = tqdm(questions, f"questions, {source.split}", unit=" questions", delay=3, disable=None, file=sys.stderr)
    for number, one in enumerate(bar):
        if one.context not in numbers:
            numbers[one.context] = len(ids)
            encoding = tokenizer.encode(one.context)
            ids.append(encoding.ids)
            offsets.append(encoding.offsets)
        of_question.append(numbers[one.context])
        pieces, places = ids[of_question[-1]], offsets[of_question[-1]]
        asked = tokenizer.encode(one.question).ids
        cut += len(asked) > source.max_query
        queries.append(asked[: source.max_query])
        if number == 0 or questions[number - 1].context is not one.context:
            words = spans.split_words(one.context)
        answer = None
        if one.answers:
            answer = _locate(words, pieces, places, one.answers[0], tokenizer)
            lost += answer is None
        counts = one.impossible or answer is not None or source.split == "test"
        if source.split == "train" and not counts:
            continue
        marks = source.framing.marks(2)
        there = spans.windows(len(pieces), source.length - len(queries[-1]) - marks, source.stride)
        bare += not len(there)
        rows = np.zeros((len(there), len(COLUMNS)), np.int64)
        rows[:, 0], rows[:, 1:3], rows[:, 5] = number, there, counts
        for row in rows:
            row[3:5] = source.framing.place(len(queries[-1]) + marks + int(row[2]))
        if answer is not None:
            inside = (answer[0] >= there[:, 0]) & (answer[1] < there[:, 0] + there[:, 1])
            shift = len(queries[-1]) + marks - len(source.framing.last) - there[inside, 0]
            rows[inside, 3], rows[inside, 4] = answer[0] + shift, answer[1] + shift
        windows.append(rows)
    report(lost, "answers not found where they are said to begin" + THEN[source.split == "train"])
    report(cut, "questions cut to source.max_query pieces")
    report(bare, "questions on a context without a word")
    if not sum(map(len, windows)):
        raise ConfigError(f"config.source: no question of the split {source.split!r} has a window with its answer")
    np.save(folder / "windows.npy", np.concatenate(windows).astype(np.int32))
    np.save(folder / "contexts.npy", np.array(of_question, np.int32))
    np.save(folder / "context_offsets.npy", np.concatenate(offsets).astype(np.int32))
    for name, some in (("context", ids), ("query", queries)):
        np.save(folder / f"{name}_ids.npy", np.concatenate(some).astype(np.int32))
        np.save(folder / f"{name}_starts.npy", np.cumsum([0, *map(len, some)]).astype(np.int64))


def _locate(words: spans.Words, pieces: Any, places: Any, answer: squad.Answer, tokenizer: Any) -> Any:
    """First and last piece of an answer, or None."""
    found = spans.words_of_answer(words, answer.text, answer.start)
    if found is None:
        return None
    of_piece = words.of_char[places[:, 1] - 1]  # where pieces begin with a blank, it is of the word before
    first, last = (int(np.searchsorted(of_piece, word, side)) for word, side in zip(found, ("left", "right")))
    if last <= first:
        return None
    return spans.improved(pieces, first, last - 1, tokenizer.encode(answer.text).ids)
