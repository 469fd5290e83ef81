"""One vector a word, from any model: a row of a static table, or a layer of a contextual model that reads it alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ctxjax.evaluators import reading


def vectors(model: Any, words: Sequence[str], layer: int = 0) -> dict[str, Float[np.ndarray, " D"]]:
    """Vectors of the words that the model knows.

    A word is unknown where the tokenizer has the unknown piece for it, unless the model reads n-grams or characters.

    Args:
      model: what `ctxjax.load` gives.
      words: of the evaluation.
      layer: 0 is the token layer; -1 the last.
    """
    distinct = list(dict.fromkeys(words))
    known = [word for word in distinct if knows(model, word)]
    found = {}
    for part in reading.with_bar(known, "word vectors", 1024):
        for word, text in zip(part, model.embed([[word] for word in part])):
            found[word] = text.layers[layer].mean(axis=0)
    return found


def knows(model: Any, word: str) -> bool:
    """Whether a model has anything for a word but the vector of all unknown ones."""
    if model.config.get("buckets") or (model.kind == "bilm" and model.config.get("token", "chars") == "chars"):
        return True  # it is read by its n-grams or characters
    ids = np.asarray(model.tokenizer.encode_words([word]).ids)
    return bool(len(ids)) and bool((ids != model.tokenizer.unk_id).all())


def unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows of length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def vocabulary(tokenizer: Any, most: int) -> list[str]:
    """The first whole words of a tokenizer's vocabulary, which is sorted by falling frequency where it was learned."""
    pieces = tokenizer.pieces
    if tokenizer.kind == "wordpiece":
        found = (piece for piece in pieces if piece.isalpha() and not piece.startswith("##"))
    elif tokenizer.kind == "bpe":
        found = (piece.removesuffix("</w>") for piece in pieces if piece.endswith("</w>"))
        found = (word for word in found if word.isalpha())
    elif tokenizer.kind == "byte_bpe":
        found = (tokenizer.decode([i])[1:] for i, piece in enumerate(pieces) if piece.startswith("Ġ"))
        found = (word for word in found if word.isalpha())
    else:
        found = (piece for piece in pieces if piece.isalpha())
    return list(dict.fromkeys(found))[:most]
