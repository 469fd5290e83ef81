"""The evaluator of questions: figures, files, mistakes, every window once whatever the batch; a model that learns."""

import json

import jax
import numpy as np
import pytest

from ctxjax import config as configs
from ctxjax import rngs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.data import pipeline
from ctxjax.evaluators.squad import Evaluator
from ctxjax.step import make_train_step
from tests.evaluators.test_answers import evaluator_of, source_of

CONFIG = "experiments/squad/finetune.py:smoke"


def right(source):
    """Scores that are high at the targets of every window, and higher where there is an answer."""
    rows = source.take(np.arange(len(source.windows)))
    scores = np.zeros((len(source.windows), source.length, 2), np.float32)
    for window, (start, end) in enumerate(rows["targets"].tolist()):
        scores[window, start, 0] = scores[window, end, 1] = 9.0 if start else 5.0
    return scores


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_a_model_that_is_right_has_100(version, tmp_path, monkeypatch):
    source = source_of(version)
    evaluator = evaluator_of(source, folder=str(tmp_path / "new"))
    monkeypatch.setattr(evaluator, "scores", lambda params: right(source))
    found = evaluator.run(None)
    assert found["exact_match"] == found["f1"] == 100.0
    told = json.loads((tmp_path / "new" / "predictions.json").read_text())
    assert list(told) == [one.id for one in source.questions]
    assert told == {one.id: one.answers[0].text if one.answers else "" for one in source.questions}
    best = json.loads((tmp_path / "new" / "nbest_predictions.json").read_text())
    assert all(some[0].keys() == {"text", "probability", "start_logit", "end_logit"} for some in best.values())
    assert all(sum(one["probability"] for one in some) == pytest.approx(1.0) for some in best.values())
    assert (tmp_path / "new" / "null_odds.json").exists() == (version == "2.0")
    if version == "2.0":
        assert found["no_answer_f1"] == found["has_answer_f1"] == found["best_f1"] == found["best_exact_match"] == 100.0
        odds = json.loads((tmp_path / "new" / "null_odds.json").read_text())
        assert all((odds[one.id] > 0) == one.impossible for one in source.questions)
    else:
        assert set(found) == {"exact_match", "f1"}
    assert evaluator.predict(None, tmp_path / "other") == tmp_path / "other" / "predictions.json"
    assert json.loads((tmp_path / "other" / "predictions.json").read_text()) == told


def test_a_threshold_tells_less_or_more(monkeypatch):
    """The odds are 10 less 0 where there is no answer, and 0 less 18 or 10 less 18 where there is one."""
    source = source_of("2.0")
    for threshold, figure in ((20.0, "no_answer_f1"), (-30.0, "has_answer_f1")):
        evaluator = evaluator_of(source, threshold=threshold)
        monkeypatch.setattr(evaluator, "scores", lambda params: right(source))
        found = evaluator.run(None)
        assert found[figure] == 0.0 and 0.0 < found["f1"] < 100.0 and found["best_f1"] == 100.0
        assert -20.0 < found["best_f1_threshold"] < 20.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection": "letters"}, "squad.projection='letters' is none of alignment, offsets"),
        ({"language": "de"}, "squad.language='de' is none of en, zh"),
        ({"n_best": 0}, "squad needs n_best and max_answer >= 1"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        evaluator_of(source_of("1.1"), **fields)


@pytest.mark.slow
def test_every_window_once_and_what_is_learned_is_told():
    """Two batches of questions are learned by heart: before, hardly one is answered; after, most of them."""
    config = configs.load(CONFIG)
    run = runs.assemble(config)
    mesh = runs.make_mesh(config, jax.devices()[:1])
    given = {"model": run.model, "objective": run.objective, "mesh": mesh, "train_batch_size": 16}
    source = run.open_source("train")
    source.__dict__["_index"] = source._index | {"windows": source.windows[source.windows[:, 0] < 8]}
    source.questions = source.questions[:8]
    first, second = (Evaluator("train", batch_size=size, open_source=lambda split: source, **given) for size in (16, 7))
    state = jax.jit(run.init)(rngs.root_key(0))
    np.testing.assert_allclose(first.scores(state.params), second.scores(state.params), atol=1e-5)
    assert len(source.windows) % 7 and first.run(state.params)["f1"] < 40.0
    step = jax.jit(make_train_step(run.model, run.objective, run.tx))
    for number in range(400):
        state, _ = step(state, pipeline.batch_at(source, seed=0, batch_size=16, step=number), rngs.root_key(0))
    learned = first.run(state.params)["f1"]
    each = [one["score"] for one in first.examples(state.params)]
    assert learned > 80.0 and len(each) == 8 and np.mean(each) == pytest.approx(learned)
