"""How well a model predicts texts: perplexity of its own pieces, and bits per character, which compare all.

A left-to-right model or a biLM gives the probability of a text. A masked model gives its pseudo-likelihood (Salazar et
al. 2020, "Masked Language Model Scoring"), each piece from all others: a figure of another kind, under another name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxjax.evaluators import reading


class Evaluator:
    """Reads texts one by one, each on its own.

    Args:
      texts: a file with one text a line, or a `.jsonl`; relative to `CTXJAX_DATA`.
      limit: read only the first so many texts; 0 for all.
    """

    needs = "score"

    def __init__(self, texts: str, limit: int = 0):
        path = reading.existing("evals.texts", texts)
        self.texts = reading.texts(path)[: limit or None]

    def run(self, model: Any) -> dict[str, int | float]:
        """Perplexity (or pseudo_perplexity), bits per character, and how much was read.

        Characters are counted as they are in the file, and the end of a text as one where the model predicts it. An
        unknown word is predicted as <UNK>, which is easier than its characters: with `unknown` above a hundredth, bits
        per character flatter a model of words.
        """
        total = pieces = characters = unknown = 0
        for part in reading.with_bar(self.texts, "perplexity"):
            for text, values in zip(part, model.log_probs(part, long="windows")):
                total, pieces = total + float(values.sum()), pieces + len(values)
                ids = np.asarray(model.tokenizer.encode(text).ids)
                characters += len(text) + (len(values) > len(ids))
                unknown += int((ids == model.tokenizer.unk_id).sum())
        name = "pseudo_" if getattr(model.model, "predicts", "") == "masked" else ""
        return {
            f"{name}perplexity": float(np.exp(-total / max(1, pieces))),
            f"{name}bits_per_character": -total / max(1, characters) / float(np.log(2)),
            "pieces": pieces,
            "characters": characters,
            "unknown": unknown / max(1, pieces),
        }
