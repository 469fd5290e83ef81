"""F1 of a tagger over a whole split: every sentence once whatever the batch, as the tags that it told are counted."""

import jax
import pytest

from ctxjax import config as configs
from ctxjax import rngs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.evaluators import word_accuracy
from ctxjax.evaluators.entities import Evaluator
from ctxjax.text import tags

CONFIG = "experiments/taglm/tag.py:smoke"


@pytest.fixture(scope="module")
def run():
    return runs.assemble(configs.load(CONFIG))


def make(run, **fields):
    mesh = runs.make_mesh(run.config, jax.devices()[:1])
    given = {"objective": run.objective, "open_source": run.open_source, "mesh": mesh, "train_batch_size": 16}
    return Evaluator(model=run.model, **given, **fields)


def test_every_sentence_once_whatever_the_batch(run):
    params = jax.jit(run.init)(rngs.root_key(0)).params
    evaluators = [make(run, batch_size=size, by_kind=True) for size in (7, 16)]
    told = [one.told(params) for one in evaluators]
    sentences = evaluators[0].source.sentences
    assert told[0] == told[1] and [len(row) for row in told[0]] == [len(one.words) for one in sentences]
    assert len(sentences) % 7 and len(sentences) % 16
    found = tags.compare(told[0], [one.tags for one in sentences])
    scores = evaluators[0].run(params)
    assert scores["f1"] == pytest.approx(100 * found[""].f1) and scores["f1_LOC"] == pytest.approx(
        100 * found["LOC"].f1
    )


def test_predictions_are_what_conlleval_reads(run, monkeypatch, tmp_path):
    evaluator = make(run, split="test")
    monkeypatch.setattr(
        evaluator, "told", lambda params: [["O"] * len(one.words) for one in evaluator.source.sentences]
    )
    path = evaluator.predict(None, tmp_path / "told")
    assert path.name == "test.predictions.txt"
    blocks = path.read_text().rstrip("\n").split("\n\n")
    one = evaluator.source.sentences[1]
    assert len(blocks) == len(evaluator.source.sentences)
    assert blocks[1].splitlines() == [f"{word} {tag} O" for word, tag in zip(one.words, one.tags)]


def test_words_are_counted_by_whether_training_has_them(run, monkeypatch):
    mesh = runs.make_mesh(run.config, jax.devices()[:1])
    given = {"objective": None, "open_source": run.open_source, "mesh": mesh, "train_batch_size": 16}
    evaluator = word_accuracy.Evaluator(model=run.model, **given)
    first = evaluator.source.sentences[0].words[0]
    evaluator.source.training[:] = [one._replace(words=(first,)) for one in evaluator.source.training[:1]]
    wrong = [["X" if word == first else tag for word, tag in zip(*one[:2])] for one in evaluator.source.sentences]
    monkeypatch.setattr(evaluator, "told", lambda params: wrong)
    found = evaluator.run(None)
    words = [word for one in evaluator.source.sentences for word in one.words]
    assert (found["known"], found["unknown"], found["words"]) == (0.0, 100.0, len(words))
    assert found["accuracy"] == pytest.approx(100 * (1 - words.count(first) / len(words)))


def test_a_model_that_always_tells_the_truth_has_100(run, monkeypatch):
    evaluator = make(run)
    monkeypatch.setattr(evaluator, "told", lambda params: [list(one.tags) for one in evaluator.source.sentences])
    assert evaluator.run(None) == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "majority_f1": 0.0}


def test_tags_without_spans_are_refused(run):
    config = configs.load(CONFIG)
    with config.unlocked():
        config.source.update(read="", scheme="")
    source = configs.build("source", config.source)
    with pytest.raises(ConfigError, match=r"set config\.source\.scheme"):
        make(run, split="heldout").__class__(
            model=run.model, objective=None, open_source=lambda split: source, mesh=None, train_batch_size=16
        )
