"""Sentence pairs against the published algorithm, written here in plain Python from its description.

Driven by the same draws the two agree exactly, pair by pair; driven by Python's own random numbers they agree in
distribution.
"""

import random

import numpy as np
import pytest
from scipy import stats

from ctxjax.data import draws
from ctxjax.data.transforms import pairs


class KeyedDraws:
    """The draws of the index, one at a time: functions of the first sentence of a chunk, or of the document."""

    def __init__(self, seed, pass_number):
        self.keys = pairs.Keys.make(seed, pass_number)

    def unit(self, key, counter):
        return (draws.fold(key, counter) >> 11) * 2.0**-53

    def short(self, document):
        return self.unit(self.keys.short, document)

    def target(self, document, low, high):
        return low + int(self.unit(self.keys.length, document) * (high - low + 1))

    def cut(self, first, low, high):
        return low + int(self.unit(self.keys.cut, first) * (high - low + 1))

    def label(self, first):
        return self.unit(self.keys.label, first)

    def other(self, first, attempt, count):
        return int(self.unit(draws.fold(self.keys.document, attempt), first) * count)

    def start(self, first, count):
        return int(self.unit(self.keys.sentence, first) * count)

    def front(self, first, side, number):
        key = self.keys.front_a if side == "a" else self.keys.front_b
        word = draws.fold(draws.fold(key, number // 64), first)
        return bool(word >> (63 - number % 64) & 1)


class PlainDraws:
    """Python's random numbers."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def short(self, document):
        return self.random.random()

    def target(self, document, low, high):
        return self.random.randint(low, high)

    def cut(self, first, low, high):
        return self.random.randint(low, high)

    def label(self, first):
        return self.random.random()

    def other(self, first, attempt, count):
        return self.random.randint(0, count - 1)

    def start(self, first, count):
        return self.random.randint(0, count - 1)

    def front(self, first, side, number):
        return self.random.random() < 0.5


def published(documents, draw, budget, short_seq_prob=0.1):
    """Instances (tokens of A, tokens of B, is_random, target), documents being lists of lists of token names."""
    instances, offset = [], 0
    for number, document in enumerate(documents):
        target = budget
        if draw.short(number) < short_seq_prob:
            target = draw.target(number, 2, budget)
        chunk, length, i = [], 0, 0
        while i < len(document):
            chunk.append(document[i])
            length += len(document[i])
            if i == len(document) - 1 or length >= target:
                first = offset + i - len(chunk) + 1
                a_end = draw.cut(first, 1, len(chunk) - 1) if len(chunk) >= 2 else 1
                a = [token for sentence in chunk[:a_end] for token in sentence]
                is_random = len(chunk) == 1 or draw.label(first) < 0.5
                b = []
                if is_random:
                    for attempt in range(10):
                        other = draw.other(first, attempt, len(documents))
                        if other != number:
                            break
                    start = draw.start(first, len(documents[other]))
                    for sentence in documents[other][start:]:
                        b.extend(sentence)
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                else:
                    b = [token for sentence in chunk[a_end:] for token in sentence]
                cuts = {"a": 0, "b": 0}
                while len(a) + len(b) > budget:
                    side, longer = ("a", a) if len(a) > len(b) else ("b", b)
                    if draw.front(first, side, cuts[side]):
                        del longer[0]
                    else:
                        longer.pop()
                    cuts[side] += 1
                instances.append((a, b, int(is_random), target))
                chunk, length = [], 0
            i += 1
        offset += len(document)
    return instances


def make_documents(count, seed, sentences=(1, 40), words=(1, 60)):
    """Every token is a number of its own, so spans can be compared as they are."""
    rng, token, documents = random.Random(seed), 0, []
    for _ in range(count):
        document = []
        for _ in range(rng.randint(*sentences)):
            size = rng.randint(*words) if rng.random() < 0.97 else rng.randint(100, 400)
            document.append(list(range(token, token + size)))
            token += size
        documents.append(document)
    return documents


def layout_of(documents):
    tokens = np.cumsum([0] + [len(sentence) for document in documents for sentence in document])
    return pairs.Layout(tokens.astype(np.int64), np.cumsum([0] + [len(d) for d in documents]).astype(np.int64))


def built(documents, budget, seed=1, pass_number=0, block=pairs.BLOCK, next_sentence=True, short_seq_prob=0.1):
    keys = pairs.Keys.make(seed, pass_number)
    made = list(pairs.make_pairs(layout_of(documents), keys, budget, short_seq_prob, next_sentence, block))
    return {name: np.concatenate([fields[name] for _, fields in made]) for name in pairs.FIELDS}


@pytest.mark.parametrize("budget", [2, 3, 29, 125, 509])
@pytest.mark.parametrize("short_seq_prob", [0.1, 0.7])
def test_equal_to_the_published_algorithm_pair_by_pair(budget, short_seq_prob):
    documents = make_documents(60, seed=budget)
    expected = published(documents, KeyedDraws(1, 2), budget, short_seq_prob)
    got = built(documents, budget, 1, 2, short_seq_prob=short_seq_prob)
    assert len(got["a_len"]) == len(expected)
    for number, (a, b, is_random, _) in enumerate(expected):
        start, size = got["a_start"][number], got["a_len"][number]
        assert a == list(range(start, start + size)), number
        start, size = got["b_start"][number], got["b_len"][number]
        assert b == list(range(start, start + size)), number
        assert got["is_random"][number] == is_random, number


def test_one_document_is_drawn_ten_times_and_labelled_random_all_the_same():
    documents = make_documents(1, seed=3, sentences=(200, 200))
    expected = published(documents, KeyedDraws(1, 0), 61)
    got = built(documents, 61)
    assert got["is_random"].tolist() == [label for _, _, label, _ in expected]
    assert 0.3 < got["is_random"].mean() < 0.7


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_change_nothing(block):
    documents = make_documents(30, seed=4)
    whole, cut = built(documents, 61), built(documents, 61, block=block)
    assert all(np.array_equal(whole[name], cut[name]) for name in pairs.FIELDS)


def test_seed_and_pass_change_the_pairs():
    documents = make_documents(30, seed=4)
    starts = [built(documents, 61, seed, p)["b_start"].tolist() for seed, p in [(1, 0), (1, 1), (2, 0), (1, 0)]]
    assert starts[0] == starts[3] and starts[0] != starts[1] and starts[0] != starts[2]


def test_distributions_are_those_of_the_published_algorithm():
    documents = make_documents(1500, seed=5, sentences=(1, 12), words=(5, 40))
    plain = [one for seed in range(3) for one in published(documents, PlainDraws(seed), 125)]
    ours = [built(documents, 125, seed) for seed in range(3)]
    label = np.concatenate([one["is_random"] for one in ours])
    theirs = np.array([one[2] for one in plain])
    spread = np.sqrt(theirs.var() * (1 / len(theirs) + 1 / len(label)))
    assert abs(label.mean() - theirs.mean()) < 5 * spread
    assert label.mean() > 0.5 + 5 * spread  # one-sentence chunks are always random
    assert abs(len(label) / len(theirs) - 1) < 0.02
    for name, place in (("a_len", 0), ("b_len", 1)):
        size = np.concatenate([one[name] for one in ours])
        assert stats.ks_2samp(size, [len(one[place]) for one in plain]).pvalue > 1e-4


def test_one_sentence_chunks_are_always_random():
    documents = make_documents(400, seed=6, sentences=(1, 1))
    assert built(documents, 125)["is_random"].all()


def test_short_targets_are_drawn_once_a_document():
    documents = make_documents(4000, seed=7, sentences=(1, 2), words=(1, 3))
    layout, keys = layout_of(documents), pairs.Keys.make(1, 0)
    target = pairs.targets(layout, keys, 125, 0.1)
    short = target[target < 125]
    low, high = stats.binom(4000, 0.1 * 123 / 124).interval(1 - 1e-6)  # a short target may be the whole budget
    assert low <= len(short) <= high and short.min() >= 2
    assert stats.kstest((short - 2 + 0.5) / 123, "uniform").pvalue > 1e-4
    # and every chunk of such a document stops at the target: lengths beyond it come from the last sentence alone
    found = pairs.chunks(layout, keys, target, np.arange(len(layout.tokens) - 1), True)
    before = layout.tokens[found.end - 1] - layout.tokens[found.first]
    assert (before < target[found.document]).all()


@pytest.mark.parametrize("a,b", [(10, 3), (3, 10), (8, 8), (300, 1), (1, 300), (40, 39)])
def test_truncation_takes_turns(a, b):
    left = [a, b]
    while sum(left) > 12:
        left[0 if left[0] > left[1] else 1] -= 1
    cut_a, cut_b = pairs.truncate(np.array([a]), np.array([b]), 12)
    assert (a - cut_a[0], b - cut_b[0]) == tuple(left)


def test_without_next_sentence_spans_are_consecutive_text():
    documents = make_documents(60, seed=8)
    layout = layout_of(documents)
    got = built(documents, 62, next_sentence=False, short_seq_prob=0.0)
    assert not got["b_len"].any() and not got["is_random"].any() and got["a_len"].max() == 62
    ends = got["a_start"] + got["a_len"]
    assert (got["a_start"][1:] >= ends[:-1]).all()
    document = np.searchsorted(layout.tokens[layout.sentences], got["a_start"], "right")
    assert (document == np.searchsorted(layout.tokens[layout.sentences], ends - 1, "right")).all()
    assert set(np.unique(document)) == set(range(1, 61))
