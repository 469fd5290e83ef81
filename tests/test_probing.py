"""Probes: a layer that holds the label is read, one that does not is not; control tasks are learned by heart."""

import numpy as np
import pytest

from ctxjax import probing

CLASSES, WIDTH = 4, 12


def made(count, seed, types=40):
    """Words with a class that depends on type and place. Layer 0 is noise, layer 1 the type, layer 2 the class, too."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, types, count)
    targets = ((numbers + rng.integers(0, 2, count)) % CLASSES).astype(np.int32)
    table = np.random.default_rng(7).normal(size=(types, WIDTH))
    vectors = np.stack([rng.normal(size=(count, WIDTH)), table[numbers], table[numbers]], axis=1)
    vectors[np.arange(count), 2, targets] += 4.0
    vectors = 100.0 + 5.0 * vectors  # probes standardise
    words = [f"word{number}" for number in numbers.tolist()]
    return probing.Labelled(vectors.astype(np.float32), np.arange(count), words, targets)


@pytest.fixture(scope="module")
def told():
    train, heldout = made(2000, 0), made(600, 1)
    return train, heldout, probing.fit(train, heldout, CLASSES, epochs=15, batch_size=100, lr=1e-2)


def test_layers_are_read_and_selectivity_tells_memory_from_knowledge(told):
    train, heldout, answers = told
    found = probing.figures(train, heldout, answers, CLASSES)
    noise, types, both = found["accuracy"]
    assert noise < 0.45 and types < 0.8 < 0.95 < both
    assert found["best_layer"] == 2 == found["best_selectivity_layer"]
    np.testing.assert_allclose(found["selectivity"], np.subtract(found["accuracy"], found["control"]))
    assert found["control"][0] < 0.5 < found["control"][1]  # types can be learned by heart where they can be seen
    assert found["majority"] < found["by_type"] == pytest.approx(0.5, abs=0.1)


def test_all_layers_at_once_is_each_alone(told):
    """The `vmap` changes nothing: the probe of a layer is the one that is trained when there is no other."""
    train, heldout, answers = told
    alone = train._replace(vectors=train.vectors[:, 2:]), heldout._replace(vectors=heldout.vectors[:, 2:])
    one = probing.fit(*alone, CLASSES, epochs=15, batch_size=100, lr=1e-2)
    assert (one.task[0] == answers.task[2]).mean() > 0.995 and (one.control[0] == answers.control[2]).mean() > 0.99


def test_control_labels_go_with_the_type_and_have_the_shares_of_the_task():
    words = [f"w{number}" for number in range(20_000)]
    share = np.array([0.5, 0.3, 0.15, 0.05])
    found = probing.control_labels(words, share)
    np.testing.assert_allclose(np.bincount(found) / len(found), share, atol=0.01)
    assert np.array_equal(found, probing.control_labels(words, share))
    assert (found != probing.control_labels(words, share, seed=1)).mean() > 0.5
    twice = probing.control_labels(["a", "b", "a", "a"], share)
    assert twice[0] == twice[2] == twice[3]


def test_moments_are_those_of_the_labelled_words():
    found = made(500, 3)
    some = found._replace(places=np.arange(0, 500, 3))
    mean, scale = probing.moments(some, chunk=50)
    np.testing.assert_allclose(mean, found.vectors[::3].mean(0), rtol=1e-4)
    np.testing.assert_allclose(1 / scale, found.vectors[::3].std(0), rtol=1e-3)
    still = some._replace(vectors=np.ones((500, 1, 2), np.float32))
    assert not probing.moments(still)[1].any()


def test_a_label_that_training_lacks_is_never_right(told):
    train, heldout, answers = told
    unknown = heldout._replace(targets=np.full_like(heldout.targets, -1))
    assert probing.figures(train, unknown, answers, CLASSES)["accuracy"] == [0.0, 0.0, 0.0]


def test_spans_are_counted_as_taggers_are():
    labels = ("B-A", "I-A", "O")
    answers = probing.Told(np.array([[0, 1, 2, 0], [0, 2, 2, 2]]), np.zeros((2, 4)))
    there = [("B-A", "I-A"), ("O", "B-A")]
    assert probing.span_scores(answers, labels, [2, 2], there) == [1.0, 0.0]
