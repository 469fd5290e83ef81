"""The best step: kept beside the newest ones, opened by `@best`, and a run that waits no longer for a better one."""

import json

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, digests, folders, inspect, loop, metrics
from ctxjax import run as runs
from ctxjax.best import Best
from ctxjax.config import ConfigError, override
from ctxjax.data import stored
from tests.engine import outside

FIGURE = "heldout/next"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


def make(corpus, **settings):
    """A run that gets worse after a while: the rate is far too high, and rises."""
    config = outside.get_config(f"corpus={corpus}").lock()
    mine = {"best": f"lowest {FIGURE}", "eval_every": "3 steps", "save_every": "4 steps", "keep": 2}
    mine |= {"optim.lr": 1.5, "optim.schedule.warmup": "90%"} | settings
    override(config, {name.replace("__", "."): str(value) for name, value in mine.items()})
    return config


def train(config, workdir, stop_at=None):
    return loop.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:1])


def held(workdir):
    return {line["step"]: line[FIGURE] for line in metrics.read(workdir) if FIGURE in line}


def record(workdir):
    return json.loads((workdir / "record.json").read_text())


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """All 30 steps, without patience."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(make(corpus), workdir) == 0
    return workdir


def test_the_best_step_is_recorded_and_outlives_the_newest(whole):
    found = held(whole)
    step = min(found, key=found.get)
    assert 0 < step < 20, "the fixture is meant to have its best step early"
    best = record(whole)["best"]
    assert (best["step"], best["by"]) == (step, f"lowest {FIGURE}")
    assert best["figures"][FIGURE] == found[step] and record(whole)["evaluation"][FIGURE] == found[30]
    assert digests.steps(whole / "checkpoints") == [step, 28, 30]


def test_at_best_opens_the_best_step_and_a_bare_path_the_newest(whole, capsys):
    step = record(whole)["best"]["step"]
    assert folders.find(f"{whole}@best").name == f"{step:08d}"
    assert folders.find(whole).name == "00000030"
    assert int(checkpoint.read(f"{whole}@best", "^step$")[0]["step"]) == step
    assert inspect.main([f"{whole}@best"]) == 0
    assert f"this is {step}\n" in capsys.readouterr().out
    assert stored.model_digest(f"{whole}@best") != stored.model_digest(whole)
    with pytest.raises(ConfigError, match="give one of them"):
        folders.find(f"{whole}@best", step=30)


def test_a_run_without_a_choice_has_no_best(corpus, tmp_path):
    train(make(corpus, best="", total="3 steps"), tmp_path)
    assert record(tmp_path)["best"] == {}
    with pytest.raises(ConfigError, match=r"trained without config\.best"):
        folders.find(f"{tmp_path}@best")


def test_patience_ends_the_run_and_says_when_it_was_best(corpus, whole, tmp_path):
    config = make(corpus, patience=2)
    assert train(config, tmp_path) == 0
    best = record(tmp_path)["best"]
    assert best["step"] == record(whole)["best"]["step"] and best["waited"] == 2
    assert record(tmp_path)["steps"] == best["step"] + 6 < 30
    assert digests.steps(tmp_path / "checkpoints")[-1] == best["step"] + 6
    before = (tmp_path / "record.json").read_text()
    assert train(config, tmp_path) == 0 and (tmp_path / "record.json").read_text() == before
    # It goes on from there if it is told to wait longer.
    assert train(make(corpus, patience=3), tmp_path) == 0
    assert record(tmp_path)["steps"] == best["step"] + 9
    assert held(tmp_path)[best["step"] + 9] == held(whole)[best["step"] + 9]


@pytest.mark.slow
def test_waiting_survives_being_stopped_anywhere(corpus, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    config = make(corpus, patience=2)
    train(config, straight)
    end = record(straight)["steps"]
    for stop in range(1, end, 2):
        train(config, cut, stop_at=stop)
    train(config, cut)
    assert record(cut)["best"] == record(straight)["best"] and record(cut)["steps"] == end
    assert held(cut) == held(straight)
    for path in ("", "@best"):
        ours, theirs = checkpoint.read(f"{cut}{path}")[0], checkpoint.read(f"{straight}{path}")[0]
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_of_equals_the_first_is_best_and_nan_never():
    best = Best("highest dev/f1", patience=2)
    for step, value in enumerate((np.nan, 0.5, 0.5, np.nan), start=1):
        assert not best.exhausted
        best.judge(step, {"dev/f1": value, "dev/loss": 1.0})
    assert (best.step, best.waited, best.exhausted) == (2, 2, True)
    again = Best("highest dev/f1", patience=2)
    again.restore(json.loads(json.dumps(best.summary())))
    assert again.summary() == best.summary()
    other = Best("lowest dev/loss")
    other.restore(best.summary())
    assert other.step is None


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"best": "heldout/next"}, r"config\.best='heldout/next' is not a direction and a figure"),
        ({"best": "highest dev/f1"}, r"config\.best='dev/f1' needs config\.evals\.dev, which is not there"),
        ({"best": "", "patience": 2}, r"config\.patience needs config\.best"),
        ({"patience": -1}, r"config\.patience=-1 must be at least 0"),
        ({"seeds": 0}, r"config\.seeds=0 must be at least 1"),
    ],
    ids=str,
)
def test_mistakes_are_named_before_any_step(corpus, settings, words):
    with pytest.raises(ConfigError, match=words):
        runs.validate(make(corpus, **settings))


def test_a_figure_that_no_evaluator_gives_is_named(corpus, tmp_path):
    with pytest.raises(
        ConfigError, match=r"config\.best='lowest heldout/nxt' is no figure; did you mean 'heldout/next'"
    ):
        train(make(corpus, best="lowest heldout/nxt", total="3 steps"), tmp_path)
