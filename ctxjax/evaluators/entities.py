"""Precision, recall and F1 of the spans that a tagger tells, over a whole split, as conlleval counts them.

    python -m ctxjax.evaluate --workdir runs/names --config experiments/taglm/tag.py --config.source.corpus=DIR \
        --only spans --config.evals.spans.split=test

Reference: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task".
"""

from __future__ import annotations

from typing import Any

from ctxjax.evaluators.telling import Telling
from ctxjax.text import tags


class Evaluator(Telling):
    """Compares the spans of all sentences.

    Args:
      split, batch_size: see `Telling`.
      by_kind: F1 of every kind of span, too.
      **given: by the run.
    """

    of_spans = True

    def __init__(self, split: str = "heldout", batch_size: int = 0, by_kind: bool = False, **given: Any):
        super().__init__(split, batch_size, **given)
        self.by_kind = by_kind

    def run(self, params: Any) -> dict[str, float]:
        """`precision`, `recall` and `f1`, 0 to 100, and `majority_f1`, of the most frequent tag for all words."""
        right = [one.tags for one in self.source.sentences]
        counts = tags.compare(self.told(params), right)
        whole = counts.pop("")
        always = tags.compare(self.always(), right)[""].f1
        scores = {name: 100.0 * getattr(whole, name) for name in ("precision", "recall", "f1")}
        scores["majority_f1"] = 100.0 * always
        if self.by_kind:
            scores |= {f"f1_{kind}": 100.0 * found.f1 for kind, found in sorted(counts.items())}
        return scores

    def examples(self, params: Any) -> list[dict[str, Any]]:
        """Of every sentence the spans that were told, that there are, and that are both, for `ctxjax.compare`."""
        found = []
        for number, (told, one) in enumerate(zip(self.told(params), self.source.sentences)):
            counts = tags.compare([told], [one.tags])[""]
            found.append({"id": number, "correct": counts.both, "told": counts.told, "gold": counts.there})
        return found
