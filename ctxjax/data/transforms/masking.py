"""BERT's masking: which positions of a row are predicted, and what stands there instead.

As published (google-research/bert, create_pretraining_data.py): `max(1, round(0.15 * length))` positions, at most
`max_predictions`, never the special pieces of the row; 80 % become the mask piece, 10 % stay, 10 % become a piece drawn
from the *entire* vocabulary, special and unused pieces included. Positions are sorted.

Whole-word masking chooses words instead of pieces: a piece that starts with `##` belongs to the candidate before it
(even where truncation took the front of its word, and so across a special piece), a word that does not fit the number
that is left is passed over, and what happens is still decided for each piece on its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ctxjax.data import draws


class Masked(NamedTuple):
    """A masked row.

    Attributes:
      tokens: the row with its replacements.
      positions: where a prediction is asked for, ascending.
      targets: what stood there.
    """

    tokens: Int[np.ndarray, " T"]
    positions: Int[np.ndarray, " P"]
    targets: Int[np.ndarray, " P"]


def mask_tokens(
    tokens: Int[np.ndarray, " T"],
    candidates: Int[np.ndarray, " N"],
    key: int,
    *,
    vocab_size: int,
    mask_id: int,
    max_predictions: int,
    mask_prob: float = 0.15,
    continues: Bool[np.ndarray, " V"] | None = None,
) -> Masked:
    """Mask one row.

    Args:
      tokens: the row without padding, special pieces included.
      candidates: ascending positions that may be chosen.
      key: everything random here is a function of it.
      vocab_size: the pieces that a random replacement is drawn from.
      mask_id: the mask piece.
      max_predictions: the most positions to choose.
      mask_prob: the share of positions, special pieces counted in.
      continues: for whole words, which pieces of the vocabulary start with `##`.
    """
    number = min(max_predictions, max(1, round(len(tokens) * mask_prob)))
    order = draws.bits(draws.fold(key, 0), candidates)
    if continues is None:
        chosen = candidates[np.argsort(order)[:number]]
    else:
        chosen = _whole_words(candidates, continues[tokens[candidates]], order, number)
    positions = np.sort(chosen)
    original = tokens[positions]
    action = draws.unit(draws.fold(key, 1), positions)
    random = draws.below(draws.fold(key, 2), positions, vocab_size)
    masked = tokens.copy()
    masked[positions] = np.where(action < 0.8, mask_id, np.where(action < 0.9, original, random))
    return Masked(masked, positions, original)


def _whole_words(
    candidates: Int[np.ndarray, " N"], inside: Bool[np.ndarray, " N"], order: np.ndarray, number: int
) -> Int[np.ndarray, " P"]:
    """Positions of words taken in the order of their first piece's draw, as long as they fit."""
    if not len(candidates):
        return candidates
    heads = np.flatnonzero(~inside)
    if not len(heads) or heads[0] != 0:
        heads = np.concatenate([[0], heads])  # the row starts inside a word
    ends = np.append(heads[1:], len(candidates))
    taken, count = [], 0
    for word in np.argsort(order[heads]).tolist():
        size = int(ends[word] - heads[word])
        if count + size <= number:
            taken.append(candidates[heads[word] : ends[word]])
            count += size
        if count == number:
            break
    return np.concatenate([candidates[:0], *taken])
