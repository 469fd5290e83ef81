"""Answers to the questions of a split: exact match and F1 by the official scripts, and their files.

    python -m ctxjax.predict --workdir runs/squad --split heldout --output FOLDER

writes predictions.json, nbest_predictions.json and, of version 2.0, null_odds.json into FOLDER.

Reference: Rajpurkar et al. 2016 and 2018; google-research/bert run_squad.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ctxjax import paths
from ctxjax.config import ConfigError
from ctxjax.data.transforms import spans
from ctxjax.evaluators import answers, exact_match
from ctxjax.evaluators.rows import Rows
from ctxjax.step import Forward
from ctxjax.text.tokenizer import write_files

PROJECTIONS = ("alignment", "offsets")
UNREAD = -1e30  # the score of positions behind what a batch of narrow rows has


class Evaluator:
    """Answers every question of a split.

    Args:
      split: the split of the source.
      batch_size: windows at once; 0 is that of training.
      n_best: starts and ends that are tried of a window, and texts that are kept of a question.
      max_answer: pieces of an answer at most.
      threshold: of version 2.0: there is no answer where the score of that is more than this over the best text's.
      projection: from pieces to text: "alignment", the published one, which is for WordPiece, or "offsets", the letters
        that they were cut from; empty is the first where it can be.
      language: "en", or "zh", where exact match and F1 are of characters.
      folder: where the files go; none are written where it is empty.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        batch_size: int = 0,
        n_best: int = 20,
        max_answer: int = 30,
        threshold: float = 0.0,
        projection: str = "",
        language: str = "en",
        folder: str = "",
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective
        self.source = open_source(split)
        self.n_best, self.max_answer, self.threshold = n_best, max_answer, threshold
        plain = self.source.tokenizer.kind != "wordpiece"
        self.projection, self.language, self.folder = projection or PROJECTIONS[plain], language, folder
        for field, known in (("projection", PROJECTIONS), ("language", exact_match.LANGUAGES)):
            if getattr(self, field) not in known:
                raise ConfigError(f"config.evals: squad.{field}={getattr(self, field)!r} is none of {', '.join(known)}")
        if plain and self.projection == "alignment":
            raise ConfigError("config.evals: squad.projection='alignment' is of WordPiece: set it to 'offsets'")
        if min(n_best, max_answer) < 1:
            raise ConfigError("config.evals: squad needs n_best and max_answer >= 1")

        def score(forward: Forward, batch: Any) -> Any:
            return forward.head("span", forward(batch["inputs"]).hidden[-1])

        self._rows = Rows(score, "windows", batch_size, model=model, mesh=mesh, train_batch_size=train_batch_size)

    def scores(self, params: Any) -> Float[np.ndarray, "W L 2"]:
        """Start and end score of every position of every window, in the order of the source; see `UNREAD`."""
        found = np.full((self.source.count, self.source.length, 2), UNREAD, np.float32)
        for numbers, scores in self._rows(params, self.source):
            found[numbers, : scores.shape[1]] = scores
        return found

    def told(self, params: Any) -> dict[str, answers.Told]:
        """What is told of every question, by its id."""
        return dict(self._tell(self.scores(params)))

    def _tell(self, scores: Float[np.ndarray, "W L 2"]) -> Iterator[tuple[str, answers.Told]]:
        source = self.source
        lowercase, names = bool(getattr(source.tokenizer, "lowercase", False)), source.tokenizer.pieces
        bounds = np.searchsorted(source.windows[:, 0], np.arange(len(source.questions) + 1))
        context, text = answers.Context("", [], np.zeros(0, np.int64), [], np.zeros((0, 2), np.int32)), None
        for number, one in enumerate(source.questions):
            if one.context is not text:
                text, words = one.context, spans.split_words(one.context)
                ids, offsets = source.context(number)
                of_piece = words.of_char[offsets[:, 1] - 1]
                context = answers.Context(text, words.words, of_piece, [names[piece] for piece in ids], offsets)
            rows = range(bounds[number], bounds[number + 1])
            places = source.windows[rows.start : rows.stop, 1:3]
            seen = spans.most_context(places, len(context.pieces))
            place, behind = source.place_of_window(number), len(source.framing.last)
            windows = [
                answers.Window(
                    scores[row],
                    first,
                    place,
                    seen[first : first + size] == row - rows.start,
                    source.framing.place(place + size + behind),
                )
                for row, (first, size) in zip(rows, places.tolist())
            ]
            options = (source.version, self.n_best, self.max_answer, lowercase, self.projection)
            yield one.id, answers.tell(windows, context, *options)

    def predictions(self, told: dict[str, answers.Told]) -> dict[str, str]:
        """The text of every question by its id, "" where there is no answer."""
        return {name: "" if one.odds > self.threshold else one.text for name, one in told.items()}

    def predict(self, params: Any, folder: str | os.PathLike[str]) -> os.PathLike[str]:
        """Write predictions.json, what the official scripts read, and the files beside it; see `write`."""
        return self.write(folder, self.told(params))

    def write(self, folder: str | os.PathLike[str], told: dict[str, answers.Told]) -> os.PathLike[str]:
        """The files of the published program, the first of which the official scripts read: predictions.json,
        nbest_predictions.json and, of version 2.0, null_odds.json, the odds of no answer."""
        best = {
            name: [
                {"text": text, "probability": share, "start_logit": start, "end_logit": end}
                for (text, start, end), share in zip(one.best, one.probabilities())
            ]
            for name, one in told.items()
        }
        files: dict[str, Any] = {"predictions.json": self.predictions(told), "nbest_predictions.json": best}
        if self.source.version == "2.0":
            files["null_odds.json"] = {name: one.odds for name, one in told.items()}
        write_files(folder, {name: json.dumps(content, indent=4) + "\n" for name, content in files.items()})
        return paths.at(folder) / "predictions.json"

    def examples(self, params: Any) -> list[dict[str, Any]]:
        """F1 of every question, for `ctxjax.compare`."""
        told = self.predictions(self.told(params))
        found = exact_match.scores(self.source.questions, told, self.source.version, self.language)
        return [{"id": name, "score": 100.0 * one.f1} for name, one in found.items()]

    def run(self, params: Any) -> dict[str, float]:
        """`exact_match` and `f1`, 0 to 100; of version 2.0 also of those with and without an answer (`has_answer_f1`),
        and the best that a threshold would give and that threshold (`best_f1`, `best_f1_threshold`)."""
        told = self.told(params)
        if self.folder and jax.process_index() == 0:
            self.write(self.folder, told)
        questions, version = self.source.questions, self.source.version
        if not any(one.answers or one.impossible for one in questions):  # a test set, whose answers nobody has
            return {"questions": float(len(questions))}
        found = exact_match.scores(questions, self.predictions(told), version, self.language)
        figures = exact_match.means(questions, found, version)
        if version == "2.0":
            texts, odds = ({name: one[column] for name, one in told.items()} for column in (0, 2))
            found = exact_match.scores(questions, texts, version, self.language)
            for column, name in enumerate(exact_match.Score._fields):
                values = {key: one[column] for key, one in found.items()}
                best, threshold = exact_match.best_threshold(questions, values, texts, odds)
                figures |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
        return figures
