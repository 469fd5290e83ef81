"""From counts to probabilities: maximum likelihood, add-k, and interpolated modified Kneser-Ney.

All are tables of one shape. Kneser-Ney is a back-off model: `p(w | h)` where the n-gram is in the table, else
`b(h) p(w | h without its first word)`. The other two are ratios of counts, and have nothing to fall back on.

Reference: Chen and Goodman 1999, "An Empirical Study of Smoothing Techniques for Language Modeling"; Kneser and
Ney 1995, "Improved Backing-off for M-gram Language Modeling".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ctxjax.config import ConfigError, did_you_mean
from ctxjax.ngrams import trie as tries
from ctxjax.ngrams.counting import Grams

SMOOTHINGS = ("kneser_ney", "add_k", "ml")
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts give none, as KenLM's --discount_fallback
NEVER = -99.0  # log10 of the probability of what is never predicted, the sentence mark, as ARPA files write it
LN10 = float(np.log(10.0))

Tables = dict[str, np.ndarray]  # path name -> array, as in a checkpoint


def estimate(
    grams: Sequence[Grams], vocab_size: int, bos: int, smoothing: str = "kneser_ney", k: float = 1.0
) -> tuple[Tables, list[str]]:
    """The tables of a model.

    Args:
      grams: of the orders 1 to n.
      vocab_size: ids are below it.
      bos: the id of the sentence mark, which is never predicted.
      smoothing: "kneser_ney" (interpolated, modified: three discounts an order), "add_k" or "ml".
      k: what add-k adds to every count.

    Returns:
      tables by path name, `order_N/parent`, `order_N/word` (int32; not of order 1, which is the vocabulary) with
      `order_N/log_prob` and `order_N/backoff` (float32, natural logarithms), or with `order_N/count` (int32);
      and one sentence for everything that had to be decided.
    """
    check(smoothing, k)
    trie, places = tries.build(vocab_size, [gram.words for gram in grams[1:]])
    tables = keys_to_tables(trie)
    first = np.zeros((2, vocab_size), np.int64)
    first[:, grams[0].words[:, 0]] = grams[0].count, grams[0].extensions
    if smoothing != "kneser_ney":
        counts = [first[0], *(gram.count[place] for gram, place in zip(grams[1:], places))]
        for order, count in enumerate(counts, start=1):
            if len(count) and count.max() >= 2**31:
                raise ConfigError(f"an n-gram occurs {count.max():,} times, more than 2**31 - 1")
            tables[f"order_{order}/count"] = count.astype(np.int32)
        return tables, []
    counts = [first[1], *(gram.extensions[place] for gram, place in zip(grams[1:], places))]
    log_probs, backoffs, notes = _kneser_ney(trie, counts, bos)
    for order in range(1, trie.order + 1):
        tables[f"order_{order}/log_prob"] = log_probs[order - 1]
        if order < trie.order:
            tables[f"order_{order}/backoff"] = backoffs[order - 1]
    return tables, notes


def check(smoothing: str, k: float) -> None:
    """Raises ConfigError for a smoothing that there is not, or an add-k that adds nothing."""
    if smoothing not in SMOOTHINGS:
        raise ConfigError(f"config.model.smoothing={smoothing!r} is unknown{did_you_mean(smoothing, SMOOTHINGS)}")
    if smoothing == "add_k" and k <= 0:
        raise ConfigError(f"config.model.k={k} must be more than 0; smoothing='ml' adds nothing")


def keys_to_tables(trie: tries.Trie) -> Tables:
    """The nodes of a trie as int32 arrays."""
    tables: Tables = {}
    for order in range(2, trie.order + 1):
        tables[f"order_{order}/parent"] = trie.parent(order).astype(np.int32)
        tables[f"order_{order}/word"] = trie.word(order).astype(np.int32)
    return tables


def tables_to_trie(tables: Mapping[str, np.ndarray], vocab_size: int, order: int) -> tries.Trie:
    """The trie of a model's tables."""
    keys = [
        np.asarray(tables[f"order_{n}/parent"]).astype(np.int64) * vocab_size + np.asarray(tables[f"order_{n}/word"])
        for n in range(2, order + 1)
    ]
    return tries.Trie(vocab_size, keys)


def discounts(counts: Int[np.ndarray, " M"]) -> tuple[Float[np.ndarray, " 3"], bool]:
    """What is taken from counts of 1, of 2, and of more (Chen and Goodman 1999, equation 26), and whether the counts
    of counts told it; small or odd texts do not."""
    n1, n2, n3, n4 = (int((counts == value).sum()) for value in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return np.array(FALLBACK), False
    y = n1 / (n1 + 2 * n2)
    found = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    if (found <= 0).any() or (found > (1, 2, 3)).any():
        return np.array(FALLBACK), False
    return found, True


def _kneser_ney(
    trie: tries.Trie, counts: list[np.ndarray], bos: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Natural log-probabilities of every node, and log back-off weights of those that are somebody's context."""
    suffixes = trie.suffixes()
    log_probs, backoffs, notes = [], [], []
    lower = np.full(1, 1.0 / (trie.vocab_size - 1))  # below the single words: uniform over all but the sentence mark
    for order in range(1, trie.order + 1):
        count = counts[order - 1]
        if order == 1:
            count = np.where(np.arange(trie.vocab_size) == bos, 0, count)
            parents, contexts = np.zeros(trie.vocab_size, np.int64), 1
            below = lower[parents]
        else:
            parents, contexts = trie.parent(order), trie.sizes[order - 2]
            below = lower[suffixes[order - 2]]
        discount, told = discounts(count)
        if not told:
            notes.append(
                f"order {order}: the counts of counts give no discounts, so {', '.join(map(str, FALLBACK))} are taken"
            )
        taken = np.concatenate([[0.0], discount])[np.minimum(count, 3)]
        total = np.bincount(parents, count, contexts)
        left = np.bincount(parents, taken, contexts)
        with np.errstate(divide="ignore", invalid="ignore"):
            gamma = np.where(total > 0, left / total, 1.0)
        prob = (count - taken) / np.where(total > 0, total, 1.0)[parents] + gamma[parents] * below
        if order == 1:
            prob[bos] = 10.0**NEVER
        else:
            backoffs.append(np.log(gamma).astype(np.float32))
        log_probs.append(np.log(prob).astype(np.float32))
        lower = prob
    return log_probs, backoffs, notes
