"""Precision, recall and F1 of the arguments of predicates, as the scripts of the CoNLL shared tasks count them.

Reference: Carreras and Marquez 2005, "Introduction to the CoNLL-2005 Shared Task: Semantic Role Labeling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctxjax.data.tasks.conll2012 import PREDICATE
from ctxjax.evaluators.telling import Telling
from ctxjax.text import tags


class Evaluator(Telling):
    """Compares the arguments of all predicates; the predicate, which is given, is none.

    Args:
      split, batch_size: see `Telling`.
      by_kind: F1 of every role, too.
      **given: by the run.
    """

    def __init__(self, split: str = "heldout", batch_size: int = 0, by_kind: bool = False, **given: Any):
        super().__init__(split, batch_size, **given)
        self.by_kind = by_kind

    def run(self, params: Any) -> dict[str, float]:
        """`precision`, `recall` and `f1`, 0 to 100."""
        told, there = self.told(params), [one.tags for one in self.source.sentences]
        counts = tags.compare(map(arguments, told), map(arguments, there))
        whole = counts.pop("")
        scores = {name: 100.0 * getattr(whole, name) for name in ("precision", "recall", "f1")}
        if self.by_kind:
            scores |= {f"f1_{kind}": 100.0 * found.f1 for kind, found in sorted(counts.items())}
        return scores


def arguments(told: Sequence[str]) -> list[str]:
    """Tags without those of the predicate, whatever is left of a broken one of its spans."""
    return [tags.OUTSIDE if tags.cut(tag)[1] == PREDICATE else tag for tag in told]
