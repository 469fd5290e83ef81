"""The share of all words of a split whose tag is right, as parts of speech are scored."""

from __future__ import annotations

from typing import Any

from ctxjax.evaluators.telling import Telling


class Evaluator(Telling):
    """Compares the tags of all words."""

    def run(self, params: Any) -> dict[str, float]:
        """`accuracy`, 0 to 100, `majority_accuracy`, of the most frequent tag for all; `known` and `unknown`, that
        of words that training has and has not; `words`."""
        seen = {word for one in self.source.training for word in one.words}
        counts = {True: [0, 0], False: [0, 0]}  # right, and all, of words that training has and has not
        for told, one in zip(self.told(params), self.source.sentences, strict=True):
            for word, ours, theirs in zip(one.words, told, one.tags, strict=True):
                counts[word in seen][0] += ours == theirs
                counts[word in seen][1] += 1
        right, words = (sum(column) for column in zip(*counts.values()))
        right_always = sum(
            ours == theirs
            for told, one in zip(self.always(), self.source.sentences)
            for ours, theirs in zip(told, one.tags)
        )
        found = {"accuracy": 100.0 * right / words, "majority_accuracy": 100.0 * right_always / words}
        found["words"] = float(words)
        for name, (good, there) in (("known", counts[True]), ("unknown", counts[False])):
            found |= {name: 100.0 * good / there} if there else {}
        return found
