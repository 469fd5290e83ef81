"""A whole split told once, its tail too, whatever the shapes; the official files; mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import sharding
from ctxjax.config import ConfigError
from ctxjax.data.generated_examples import generated_task
from ctxjax.data.sources.examples import Source
from ctxjax.evaluators import task as evaluators
from ctxjax.evaluators.scores import scores
from ctxjax.models import downstream
from ctxjax.objectives.classification import Objective, told
from ctxjax.step import Forward


def make(task, split="heldout", size=16, **more):
    """An evaluator of tables of words with a mean, its parameters, and the split."""
    fields = {"task": task, "length": 40, "framing": "words", **generated_task(task, "words")}
    source = Source(**fields, split=split)
    kind = source.task.kind
    encoder = {"name": "word2vec", "vocab_size": source.vocab_size, "width": 6}
    model = downstream.Model(encoder=encoder, task=kind, labels=source.labels, pool="mean", dropout=0.0)
    inputs = jax.tree.map(jnp.asarray, source.take(np.array([0]))["inputs"])
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs, method="touch"))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), shapes["params"])
    about = {"model": model, "objective": Objective(task=kind), "mesh": sharding.make_mesh(devices=jax.devices()[:1])}
    about |= {"open_source": lambda name: Source(**fields, split=name), "train_batch_size": size}
    return evaluators.Evaluator(split, **about, **more), params, source, model


@pytest.mark.parametrize("task", ["own.pairs", "own.scores", "own.choices3"])
def test_every_example_is_told_once_in_order(task):
    """60 examples in batches of 16: the same as all at once, with rows of one length and of several."""
    evaluator, params, source, model = make(task)
    whole = jax.tree.map(jnp.asarray, source.take(np.arange(60))["inputs"])
    forward = Forward(model, params, jax.random.key(0), train=False)
    right = np.asarray(told(forward, forward(whole), source.task.kind))
    np.testing.assert_allclose(evaluator.scores(params), right, atol=1e-5)
    evaluator.source.widths = 3
    del evaluator.source.__dict__["padded"]
    assert len(evaluator.source.padded) > 1
    np.testing.assert_allclose(evaluator.scores(params), right, atol=1e-5)
    figures = evaluator.run(params)
    best = right if source.task.kind == "regress" else right.argmax(-1)
    expected = scores(source.task.metrics, best.astype(np.float64), source.targets(), 1)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    (baseline,) = set(figures) - set(expected)
    assert baseline == f"majority_{source.task.metrics[0]}"


def test_baseline_is_the_commonest_label_of_training():
    evaluator, params, source, _ = make("own.labels")
    train = Source(
        task="own.labels", tokenizer=f"{source.corpus.folder}/tokenizer", corpus=source.corpus.folder
    ).targets()
    common = np.bincount(train).argmax()
    figures = evaluator.run(params)
    assert figures["majority_accuracy"] == pytest.approx(100 * (source.targets() == common).mean())
    assert "majority_accuracy" not in make("own.labels", baseline=False)[0].run(params)


def test_official_file(tmp_path):
    evaluator, params, source, _ = make("own.labels")
    path = evaluator.predict(params, tmp_path / "out")
    lines = path.read_text().splitlines()
    assert path.name == "heldout.tsv" and lines[0] == "index\tprediction" and len(lines) == 61
    best = evaluator.told(params)
    assert lines[1:] == [f"{one.id}\t{source.labels[label]}" for one, label in zip(source.examples, best.tolist())]
    told = evaluator.examples(params)
    assert told[0] == {"id": "0", "target": source.examples[0].target, "prediction": source.labels[best[0]]}
    evaluator, params, _, _ = make("own.scores")
    number = evaluator.predict(params, tmp_path).read_text().splitlines()[1].split("\t")[1]
    assert number == f"{evaluator.told(params)[0]:.3f}"


def test_mistakes_are_named(tmp_path):
    fields = generated_task("own.labels", "words")
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "a"}\n')
    evaluator, params, _, model = make("own.labels")
    about = {"model": model, "objective": None, "mesh": evaluator._rows.mesh, "train_batch_size": 4}

    def opened(name):
        return Source(tmp_path, name, "own.labels", fields["tokenizer"])

    with pytest.raises(ConfigError, match=r"test.jsonl says no labels; write .*ctxjax.predict --split test"):
        evaluators.Evaluator("test", open_source=opened, **about).run(params)
    (tmp_path / "heldout.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match=r"heldout.jsonl says no labels"):  # when it is made, before a step is taken
        evaluators.Evaluator("heldout", open_source=opened, **about)
    (tmp_path / "unlabelled").mkdir()
    (tmp_path / "unlabelled" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    source = Source(tmp_path / "unlabelled", "train", "own.labels", fields["tokenizer"])
    with pytest.raises(ConfigError, match=r"unlabelled/train.jsonl says no labels, so there is nothing to train on"):
        source.take(np.arange(1))
    with pytest.raises(ConfigError, match="needs the source 'examples'"):
        evaluators.Evaluator("test", open_source=lambda name: object(), **about)
    monkey = evaluators.Evaluator("heldout", open_source=lambda name: opened("train"), **about)
    monkey.told = lambda params: np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="3 predictions of 2 examples"):
        monkey.run(params)
    with pytest.raises(ValueError, match="3 predictions of 2 examples"):
        monkey.predict(params, tmp_path)
