"""Edge probes: gains stand at the layer that holds the kind; a span is read by its words alone."""

import numpy as np
import pytest

from ctxjax import edge_probing
from ctxjax.data.tagging import Sentence

WIDTH = 10


def made(count, seed, place=1):
    """Spans of one to three words, whose kind is the same for all and stands in the vectors of layer `place` alone."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, count)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])  # a word between every two
    targets = rng.integers(0, 3, count).astype(np.int32)
    vectors = rng.normal(size=(int((lengths + 1).sum()), 3, WIDTH)).astype(np.float32)
    for start, length, target in zip(starts, lengths, targets):
        vectors[start : start + length, place, target] += 4.0
    return edge_probing.Spans(vectors, starts, lengths, targets)


def test_gains_are_where_the_kind_is():
    train, heldout = made(600, 0), made(300, 1)
    found = edge_probing.fit(train, heldout, 3, epochs=8, batch_size=50, lr=1e-2, size=16, longest=3)
    low, middle, high = found["accuracy"]
    assert low < 0.5 < 0.9 < middle and abs(high - middle) < 0.1
    assert found["gains"][0] > 0.4 > 0.1 > abs(found["gains"][1])
    assert found["expected_layer"] == pytest.approx(1.0, abs=0.3)
    assert np.argmax(found["mix"]) == 1 and sum(found["mix"]) == pytest.approx(1.0, abs=1e-5)
    assert found["centre_of_gravity"] == pytest.approx(np.dot(found["mix"], range(3)))
    assert (found["spans"], found["longer"]) == (300, 0) and found["majority"] < 0.5
    # Words beside the spans are never read.
    noisy = heldout._replace(vectors=heldout.vectors.copy())
    inside = np.zeros(len(noisy.vectors), bool)
    for start, length in zip(heldout.starts, heldout.lengths):
        inside[start : start + length] = True
    noisy.vectors[~inside] += 100.0
    x, there = edge_probing.gather(noisy, np.arange(300), 3)
    y, same = edge_probing.gather(heldout, np.arange(300), 3)
    assert np.array_equal(there, same) and np.array_equal(x[there], y[there])
    assert np.array_equal(there.sum(1), heldout.lengths)


def test_spans_of_sentences():
    sentences = [Sentence(("a", "b", "c"), ("B-X", "I-X", "O"), 1), Sentence(("d", "e"), ("O", "B-Z"), 5)]
    found = edge_probing.spans_of(sentences, "BIO", np.zeros((5, 1, 2)), ("X", "Y"))
    assert found.starts.tolist() == [0, 4] and found.lengths.tolist() == [2, 1] and found.targets.tolist() == [0, -1]
