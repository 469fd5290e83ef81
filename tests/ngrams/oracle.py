"""n-gram counts and modified Kneser-Ney as the textbook writes them, with dictionaries; nothing of `ctxjax.ngrams`."""

import collections

BOS, EOS = 0, 1


def text(seed=0, sentences=300, vocab=9):
    import numpy as np

    rng = np.random.default_rng(seed)
    return [rng.integers(2, vocab, rng.integers(0, 9)) for _ in range(sentences)]


def raw_counts(sentences, order):
    """{n-gram: count} of each order, no n-gram ending in the sentence mark."""
    counts = [collections.Counter() for _ in range(order)]
    for sentence in sentences:
        words = [BOS, *map(int, sentence), EOS]
        for end in range(1, len(words)):
            for k in range(1, min(order, end + 1) + 1):
                counts[k - 1][tuple(words[end - k + 1 : end + 1])] += 1
    return counts


def adjusted_counts(raw):
    """Distinct words before an n-gram, but in the highest order and behind the sentence mark the count itself."""
    found = [collections.Counter() for _ in raw]
    for k, counts in enumerate(raw):
        for gram, count in counts.items():
            if k + 1 == len(raw) or gram[0] == BOS:
                found[k][gram] = count
            else:
                found[k][gram] = sum(longer[1:] == gram for longer in raw[k + 1])
    return found


class KneserNey:
    """`p(w | h)` by the recursion of Chen and Goodman 1999, section 3."""

    def __init__(self, sentences, order, vocab, discounts):
        self.counts, self.vocab, self.discounts = adjusted_counts(raw_counts(sentences, order)), vocab, discounts

    def prob(self, context, word):
        return self._prob(tuple(context)[len(context) - min(len(context), len(self.counts) - 1) :], word)

    def _prob(self, context, word):
        k = len(context)
        rest = 1 / (self.vocab - 1) if k == 0 else self._prob(context[1:], word)
        following = {gram[-1]: count for gram, count in self.counts[k].items() if gram[:-1] == context}
        total = sum(following.values())
        if not total:
            return rest
        d = self.discounts[k]
        taken = {w: d[min(c, 3) - 1] for w, c in following.items()}
        count = following.get(word, 0)
        return (count - taken.get(word, 0.0)) / total + sum(taken.values()) / total * rest
