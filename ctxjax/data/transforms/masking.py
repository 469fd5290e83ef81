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
from jaxtyping import Bool, Float, Int, UInt64

from ctxjax.data import draws


class Masked(NamedTuple):
    """Masked rows.

    Attributes:
      tokens: the rows with their replacements.
      positions: where predictions are asked for, ascending, then zeros.
      targets: what stood there.
      weights: 1 for a prediction, 0 for what fills up to P.
    """

    tokens: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B P"]
    targets: Int[np.ndarray, "B P"]
    weights: Float[np.ndarray, "B P"]


def mask_rows(
    tokens: Int[np.ndarray, "B T"],
    lengths: Int[np.ndarray, " B"],
    candidates: Bool[np.ndarray, "B T"],
    keys: UInt64[np.ndarray, " B"],
    *,
    vocab_size: int,
    mask_id: int,
    max_predictions: int,
    mask_prob: float = 0.15,
    continues: Bool[np.ndarray, " V"] | None = None,
) -> Masked:
    """Mask rows, each by its own key and by nothing else.

    Args:
      tokens: the rows, special pieces included, padded.
      lengths: real pieces of each row, special ones included.
      candidates: which positions may be chosen.
      keys: everything random in a row is a function of its key.
      vocab_size: the pieces that a random replacement is drawn from.
      mask_id: the mask piece.
      max_predictions: the most positions to choose (P).
      mask_prob: the share of a row's positions that is chosen, special pieces counted in.
      continues: for whole words, which pieces of the vocabulary start with `##`.
    """
    width = tokens.shape[1]
    number = np.minimum(max_predictions, np.maximum(1, np.rint(lengths * mask_prob).astype(np.int64)))
    order_key, action_key, random_key = (draws.bits(keys, np.full(len(keys), use))[:, None] for use in range(3))
    order = draws.bits(order_key, np.arange(width)[None])
    if continues is None:
        order[~candidates] = np.uint64(2**64 - 1)
        chosen = np.argsort(order, axis=1)[:, :max_predictions]
        number = np.minimum(number, candidates.sum(axis=1))
        chosen = np.where(np.arange(chosen.shape[1])[None] < number[:, None], chosen, width)
    else:
        chosen = np.full((len(tokens), max_predictions), width)
        for row in range(len(tokens)):
            places = np.flatnonzero(candidates[row])
            words = _whole_words(places, continues[tokens[row, places]], order[row, places], int(number[row]))
            chosen[row, : len(words)] = words
    positions = np.full((len(tokens), max_predictions), width)
    positions[:, : chosen.shape[1]] = np.sort(chosen, axis=1)
    wanted = positions < width
    positions[~wanted] = 0
    targets = np.where(wanted, np.take_along_axis(tokens, positions, axis=1), 0)
    action = draws.unit(action_key, positions)
    random = draws.below(random_key, positions, vocab_size)
    replaced = np.where(action < 0.8, mask_id, np.where(action < 0.9, targets, random))
    masked = tokens.copy()
    rows, columns = np.nonzero(wanted)
    masked[rows, positions[rows, columns]] = replaced[rows, columns]
    return Masked(masked, positions.astype(np.int32), targets.astype(np.int32), wanted.astype(np.float32))


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
