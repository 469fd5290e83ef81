"""Skip-gram and CBOW against a plain NumPy word2vec that goes pair by pair, with every quirk of the originals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctxjax import optim, tree
from ctxjax.data.transforms import frequency
from ctxjax.models import fasttext, word2vec
from ctxjax.objectives import cbow, logistic, skipgram
from ctxjax.step import TrainState, make_train_step

V, D, LENGTH, WINDOW, RATE = 13, 4, 12, 3, 0.025


def make_batch(rows=2, tree=False, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, V, (rows, LENGTH)).astype(np.int32)
    reach = rng.integers(1, WINDOW + 1, (rows, LENGTH))
    weights = np.ones((rows, LENGTH), np.float32)
    weights[-1, 9:] = 0.0
    batch = {
        "inputs": {"tokens": tokens},
        "targets": tokens,
        "weights": weights,
        "sentences": np.tile(np.arange(LENGTH, dtype=np.int32) // 5, (rows, 1)),
        "reach": (reach[..., None] > np.arange(WINDOW)).astype(np.int32),
    }
    if tree:
        counts = np.concatenate([[0, 0, 0], rng.integers(1, 40, V - 3)])
        nodes, turns = frequency.huffman(counts)
        return batch | {"nodes": nodes[tokens], "turns": turns[tokens]}
    return batch | {"negatives": rng.integers(3, V, (rows, 3, 5)).astype(np.int32)}


def tables(seed=1, scale=1.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal((V, D))).astype(np.float32) for _ in range(2)]


def windows(batch, whose="target"):
    """(row, target's place, input's place) of every pair."""
    reach, sentences, real = batch["reach"].sum(-1), batch["sentences"], batch["weights"] > 0
    for row in range(len(reach)):
        for place in range(LENGTH):
            for other in range(LENGTH):
                far = reach[row, place if whose == "target" else other]
                if other == place or abs(other - place) > far or not (real[row, place] and real[row, other]):
                    continue
                if sentences[row, place] == sentences[row, other]:
                    yield row, place, other


def error(score, label, outside, limit=6.0):
    """What the published code multiplies by the rate: label minus the logistic function, off its table's ends."""
    if outside == "skip" and abs(score) > limit:
        return 0.0
    if outside == "saturate" and abs(score) > limit:
        return label - float(score > 0)
    return label - 1.0 / (1.0 + np.exp(-score))


def paths(batch, row, place):
    """(row of the output table, label, weight) of what a target is predicted by."""
    if "nodes" in batch:
        for node, turn in zip(batch["nodes"][row, place], batch["turns"][row, place]):
            if turn >= 0:
                yield node, 1.0 - turn, 1.0


def drawn(batch, row, place, at, negatives=5):
    """The target and the block's negatives, each counting for `negatives` over their number."""
    target = batch["targets"][row, place]
    yield target, 1.0, 1.0
    block = batch["negatives"][row, at // (LENGTH // batch["negatives"].shape[1])]
    for word in block:
        if word != target:
            yield word, 0.0, negatives / len(block)


def one_step(batch, outside, kind, undivided=True, whose="target", clip=0.0, scale=1.0):
    """Both tables after a step along the sum, in float64."""
    inputs, outputs = (table.astype(np.float64) for table in tables(scale=scale))
    d_in, d_out = np.zeros((V, D)), np.zeros((V, D))
    if kind == "skipgram":
        for row, place, other in windows(batch, whose):
            word = batch["inputs"]["tokens"][row, other]
            for node, label, weight in (*paths(batch, row, place),) or drawn(batch, row, place, other):
                g = weight * error(inputs[word] @ outputs[node], label, outside)
                d_in[word] += g * outputs[node]
                d_out[node] += g * inputs[word]
    else:
        found = {}
        for row, place, other in windows(batch):
            found.setdefault((row, place), []).append(batch["inputs"]["tokens"][row, other])
        for (row, place), words in found.items():
            mean = inputs[words].mean(0)
            for node, label, weight in (*paths(batch, row, place),) or drawn(batch, row, place, place):
                g = weight * error(mean @ outputs[node], label, outside)
                for word in words:
                    d_in[word] += g * outputs[node] / (1 if undivided else len(words))
                d_out[node] += g * mean
    if clip:
        d_in, d_out = (d * np.minimum(1, clip / np.maximum(1e-30, np.linalg.norm(d, axis=1, keepdims=True)))
                       for d in (d_in, d_out))  # fmt: skip
    return inputs + RATE * d_in, outputs + RATE * d_out


def ours(objective, batch, row_clip=0.0, scale=1.0):
    model = word2vec.Model(V, width=D)
    names = ("embed/tokens/embedding", "head/output/embedding")
    params = tree.unflatten(dict(zip(names, map(jnp.asarray, tables(scale=scale)))))
    constant = {"name": "constant"}
    tx, _ = optim.make_optimizer(10, params, name="sgd", lr=RATE, schedule=constant, row_clip=row_clip)
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    state, metrics = jax.jit(make_train_step(model, objective, tx))(state, batch, jax.random.key(0))
    flat = tree.flatten(state.params)
    return [np.asarray(flat[name]) for name in names], metrics


@pytest.mark.parametrize("outside", logistic.OUTSIDE)
@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_a_step_is_the_published_one(kind, hierarchical, outside):
    """With scores far enough out that what happens beyond +-6 matters."""
    batch = make_batch(tree=hierarchical)
    words = float(batch["weights"].sum())
    module = {"skipgram": skipgram, "cbow": cbow}[kind]
    objective = module.Objective(hierarchical=hierarchical, outside=outside, scale=words)
    after, _ = ours(objective, batch, scale=2.5)
    for got, expected in zip(after, one_step(batch, outside, kind, scale=2.5)):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    other = next(name for name in logistic.OUTSIDE if name != outside)
    assert not np.allclose(after[1], one_step(batch, other, kind, scale=2.5)[1], atol=2e-5)


@pytest.mark.parametrize("undivided", [True, False])
def test_the_error_of_a_mean(undivided):
    batch = make_batch()
    objective = cbow.Objective(undivided=undivided, scale=float(batch["weights"].sum()))
    after, _ = ours(objective, batch)
    np.testing.assert_allclose(after[0], one_step(batch, "saturate", "cbow", undivided)[0], atol=1e-5)


@pytest.mark.parametrize("whose", ["target", "input"])
def test_whose_window(whose):
    batch = make_batch()
    after, _ = ours(skipgram.Objective(window_of=whose, scale=float(batch["weights"].sum())), batch)
    for got, expected in zip(after, one_step(batch, "saturate", "skipgram", whose=whose)):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_row_clip_shortens_long_steps_alone():
    batch = make_batch(rows=4)
    objective = skipgram.Objective(scale=float(batch["weights"].sum()))
    after, _ = ours(objective, batch, row_clip=20.0)
    clipped, whole = (one_step(batch, "saturate", "skipgram", clip=clip) for clip in (20.0, 0.0))
    for got, expected, free in zip(after, clipped, whole):
        np.testing.assert_allclose(got, expected, atol=1e-5)
        changed = np.abs(expected - free).max(1) > 1e-6
        assert 0 < changed.sum() < V - 3


def test_the_loss_is_the_mean_cost_of_a_word():
    batch = make_batch()
    inputs, outputs = (table.astype(np.float64) for table in tables())
    total = 0.0
    for row, place, other in windows(batch):
        for node, label, weight in drawn(batch, row, place, other):
            score = inputs[batch["inputs"]["tokens"][row, other]] @ outputs[node]
            total += weight * np.log1p(np.exp(-score if label else score))
    _, metrics = ours(skipgram.Objective(), batch)
    assert float(metrics["loss"]) == pytest.approx(total / batch["weights"].sum(), rel=1e-5)


def test_a_word_of_fasttext_is_the_mean_of_its_rows_and_each_takes_the_whole_error():
    model = fasttext.Model(V, width=D, buckets=6)
    table = np.random.default_rng(0).standard_normal((V + 6, D)).astype(np.float32)
    params = tree.unflatten({"embed/tokens/embedding": jnp.asarray(table), "head/output/embedding": jnp.zeros((V, D))})
    inputs = {"tokens": jnp.array([[4, 5]]), "subwords": jnp.array([[[13, 15, -1], [-1, -1, -1]]])}

    def value(params, model):
        return model.apply({"params": params}, inputs).hidden[0]

    np.testing.assert_allclose(value(params, model)[0], [table[[4, 13, 15]].mean(0), table[5]], rtol=1e-6)
    for undivided, share in ((True, 1.0), (False, 1.0 / 3.0)):
        other = model.clone(undivided=undivided)
        gradient = jax.grad(lambda p, other=other: value(p, other)[0, 0].sum())(params)
        rows = np.asarray(tree.flatten(gradient)["embed/tokens/embedding"])
        expected = np.zeros((V + 6, D))
        expected[[4, 13, 15]] = share
        np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_accumulated_steps_are_one_step():
    batch = make_batch(rows=4)
    model, objective = word2vec.Model(V, width=D), skipgram.Objective(scale=10.0)
    names = ("embed/tokens/embedding", "head/output/embedding")
    params = tree.unflatten(dict(zip(names, map(jnp.asarray, tables()))))
    tx = optax.sgd(0.1)
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    steps = [jax.jit(make_train_step(model, objective, tx, parts)) for parts in (1, 2, 4)]
    found = [step(state, batch, jax.random.key(0))[0] for step in steps]
    for other in found[1:]:
        for one, two in zip(jax.tree.leaves(found[0].params), jax.tree.leaves(other.params)):
            np.testing.assert_allclose(one, two, atol=1e-6)
