"""Word analogies, a is to b as c is to what: 3CosAdd (Mikolov et al. 2013) and 3CosMul (Levy and Goldberg 2014).

3CosAdd takes the word nearest to b - a + c, of unit vectors; 3CosMul the largest cos(b) cos(c) / (cos(a) + 0.001),
cosines moved to 0..1. The three words of a question are no answers. One with an unknown word is left out and counted;
`total` counts it as wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.evaluators import reading, words

_EPSILON = 0.001  # of 3CosMul
_AT_ONCE = 256


class Evaluator:
    """Accuracy on one file of questions.

    Args:
      questions: a file in word2vec's layout: `: section`, then four words a line; relative to `CTXJAX_DATA`.
      candidates: possible answers are the first so many words of the model's vocabulary, and all words of the file.
      lowercase: compare in lower case, as word2vec's own script does.
      layer: of a contextual model, which reads each word alone; 0 is the token layer.
    """

    needs = "embed"

    def __init__(self, questions: str, candidates: int = 30_000, lowercase: bool = True, layer: int = 0):
        path = reading.existing("evals.questions", questions)
        self.candidates, self.lowercase, self.layer = candidates, lowercase, layer
        self.sections: dict[str, list[list[str]]] = {}
        section = ""
        for number, line in reading.lines(path):
            if line.startswith(":"):
                section = line[1:].strip()
                continue
            row = (line.lower() if lowercase else line).split()
            if len(row) != 4:
                raise ConfigError(f"{path}, line {number}: {len(row)} words, and a question has four")
            self.sections.setdefault(section, []).append(row)

    def run(self, model: Any) -> dict[str, int | float]:
        """add and mul: shares of the answered questions that are right, and of the semantic and syntactic ones apart;
        add_total and mul_total: of all; questions, unknown (left out)."""
        asked = [word for rows in self.sections.values() for row in rows for word in row]
        more = words.vocabulary(model.tokenizer, self.candidates)
        more = [word.lower() for word in more] if self.lowercase else more
        found = words.vectors(model, [*more, *asked], self.layer)
        names = list(found)
        number = {word: i for i, word in enumerate(names)}
        table = words.unit(np.stack([found[word] for word in names]).astype(np.float32)) if names else np.zeros((0, 1))
        right: dict[str, np.ndarray] = {}
        questions = unknown = 0
        for section, rows in self.sections.items():
            known = [[number[word] for word in row] for row in rows if all(word in number for word in row)]
            questions, unknown = questions + len(rows), unknown + len(rows) - len(known)
            right[section] = _answer(table, np.array(known, np.int64).reshape(-1, 4))
        values: dict[str, int | float] = {"questions": questions, "unknown": unknown}
        groups = {"": list(right), "syntactic_": [name for name in right if name.startswith("gram")]}
        groups["semantic_"] = [name for name in right if not name.startswith("gram")]
        for group, members in groups.items():
            hits = np.concatenate([right[name] for name in members] or [np.zeros((0, 2))])
            for place, method in enumerate(("add", "mul")):
                values[f"{group}{method}"] = float(hits[:, place].mean()) if len(hits) else float("nan")
                if not group:
                    values[f"{method}_total"] = float(hits[:, place].sum()) / max(1, questions)
        return values


def _answer(table: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """Whether each question was answered rightly, by 3CosAdd and by 3CosMul: [N, 2]."""
    found = np.zeros((len(questions), 2))
    for start in range(0, len(questions), _AT_ONCE):
        part = questions[start : start + _AT_ONCE]
        cosines = [table[part[:, place]] @ table.T for place in range(3)]
        moved = [(cosine + 1) / 2 for cosine in cosines]
        for place, scores in enumerate(
            (cosines[1] - cosines[0] + cosines[2], moved[1] * moved[2] / (moved[0] + _EPSILON))
        ):
            scores[np.arange(len(part))[:, None], part[:, :3]] = -np.inf
            found[start : start + len(part), place] = scores.argmax(axis=1) == part[:, 3]
    return found
