"""Losses of tasks on whole texts against NumPy: labels, numbers, choices, next words a row, the mix."""

import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.objectives.classification import Objective
from ctxjax.types import Outputs

VECTORS = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
STATES = np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
TABLE = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
KERNEL = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
LENGTHS = np.array([[5, 3], [4, 4], [2, 5]])
WEIGHTS = np.array([1.0, 0.0, 1.0], np.float32)
TOKENS = np.random.default_rng(4).integers(0, 9, (3, 2, 5)).astype(np.int32)


class Fake:
    """A forward whose vectors and states are given."""

    train = True
    vocab_size = 0

    def __call__(self, inputs, carry=()):
        return Outputs((jnp.asarray(STATES),), jnp.asarray(VECTORS), ())

    def readout(self, rows):
        raise AssertionError

    def key(self, name):
        raise AssertionError

    def head(self, name, *features):
        if name == "mix":
            return jnp.array([0.5, -1.0])
        if name == "language_model":
            return features[0], jnp.asarray(TABLE), jnp.zeros(9)
        kernel = KERNEL if name == "classify" else KERNEL[:, :1]
        return features[0] @ jnp.asarray(kernel)


def batch(targets):
    mask = np.arange(5)[None, None] < LENGTHS[:, :, None]
    inputs = {"tokens": jnp.asarray(TOKENS), "mask": jnp.asarray(mask)}
    return {"inputs": inputs, "targets": jnp.asarray(targets), "weights": jnp.asarray(WEIGHTS)}


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def test_labels_of_both_orders_summed():
    targets = np.array([2, 0, 1])
    terms, _ = Objective()(Fake(), batch(targets))
    scores = VECTORS.sum(1) @ KERNEL
    nll = -log_softmax(scores)[np.arange(3), targets]
    assert float(terms["labels"].total) == pytest.approx((WEIGHTS * nll).sum(), rel=1e-5)
    assert float(terms["labels"].weight) == 2.0
    hits = WEIGHTS * (scores.argmax(-1) == targets)
    assert float(terms["labels_accuracy"].total) == hits.sum()


def test_numbers_and_choices():
    targets = np.array([1.5, 0.0, -2.0], np.float32)
    terms, _ = Objective(task="regress")(Fake(), batch(targets))
    error = np.square((VECTORS.sum(1) @ KERNEL[:, 0]) - targets)
    assert float(terms["numbers"].total) == pytest.approx((WEIGHTS * error).sum(), rel=1e-5)
    chosen = np.array([1, 0, 0])
    terms, _ = Objective(task="choose")(Fake(), batch(chosen))
    nll = -log_softmax(VECTORS @ KERNEL[:, 0])[np.arange(3), chosen]
    assert float(terms["choices"].total) == pytest.approx((WEIGHTS * nll).sum(), rel=1e-5)


def test_next_words_are_a_mean_a_row_and_the_mix_is_held_small():
    objective = Objective(task="choose", language_model=0.5, mix_l2=0.1)
    one = batch(np.array([0, 0, 1]))
    terms, _ = objective(Fake(), one)
    logs = log_softmax(STATES @ TABLE.T)
    expected = 0.0
    for example in (0, 2):
        for row in range(2):
            length = LENGTHS[example, row]
            told = logs[2 * example + row, np.arange(length - 1), TOKENS[example, row, 1:length]]
            expected -= told.mean()
    assert float(terms["next_words"].total) == pytest.approx(expected, rel=1e-5)
    assert float(terms["next_words"].weight) == 4.0 == float(objective.weights(one)["next_words"])
    assert float(terms["mix"].compute()) == pytest.approx(0.25 + 1.0)
    assert objective.loss == {"choices": 1.0, "next_words": 0.5, "mix": 0.1}
    with pytest.raises(ValueError, match=r"objective.task='tag'"):
        Objective(task="tag")
