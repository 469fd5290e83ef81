"""AWD-LSTM in a run that comes to average, cut on both sides of that, ends with the bits of the run in one go."""

import pathlib

import jax
import numpy as np
import pytest

import ctxjax
from ctxjax import checkpoint, loop, optim
from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.data import generated
from tests.engine.test_models_resume import digest_of, losses

ROOT = pathlib.Path(__file__).parent.parent.parent
STEPS = "opt_state/5/steps"


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("ntasgd")
    generated.write_corpus(corpus, "words", count=60)

    def config(**settings):
        made = configs.load(f"{ROOT}/experiments/ulmfit/pretrain.py:smoke")
        fixed = {"model.width": "12", "model.embed_width": "8", "model.weight_drop": "0.3", "model.dropout": "0.2"}
        fixed |= {"model.embed_dropout": "0.2", "total": "24 steps", "eval_every": "2 steps", "save_every": "5 steps"}
        fixed |= {
            "optim.window": "1",
            "optim.lr": "60.0",
            "optim.clip": "5.0",
            "threads": "1",
        }  # too far, so up and down
        fixed |= {"source.corpus": str(corpus), "evals.heldout.batches": "3"}
        configs.override(made, fixed | {name.replace("__", "."): str(value) for name, value in settings.items()})
        return made

    return config


def run(config, workdir, stop_at=None, count=1):
    return loop.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:count])


@pytest.fixture(scope="module")
def straight(make, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    assert run(make(), workdir) == 0
    return workdir


def test_cut_in_places_is_the_same_to_the_last_bit(make, straight, tmp_path):
    arrays, _ = checkpoint.read(straight)
    began = 24 - int(arrays[STEPS])
    assert 4 < began < 22  # averaging began in the middle of the run
    for stop in (3, began, began + 1):
        assert run(make(), tmp_path, stop_at=stop) == 0
    assert run(make(), tmp_path) == 0
    assert digest_of(tmp_path) == digest_of(straight)


def test_what_is_loaded_and_started_from_is_the_average(make, straight, tmp_path):
    arrays, _ = checkpoint.read(straight)
    name = "layer_0/lstm/recurrent/kernel"
    average, last = arrays[f"opt_state/5/average/{name}"], arrays[f"params/{name}"]
    assert np.abs(average - last).max() > 1e-3
    loaded = ctxjax.load(straight).params["layer_0"]["lstm"]["recurrent"]["kernel"]
    np.testing.assert_array_equal(loaded, average)
    assert optim.exported(arrays)[f"params/{name}"] is average
    started = make(init_from__path=straight, total="1 steps", optim__lr=1e-30, eval_every="1 steps")
    assert run(started, tmp_path) == 0
    np.testing.assert_allclose(checkpoint.read(tmp_path)[0][f"params/{name}"], average, atol=1e-7)


@pytest.mark.slow
def test_the_mesh_of_all_axes_has_the_losses_of_one_device(make, tmp_path):
    calm = {"optim__lr": 10.0, "optim__clip": 0.25, "total": "6 steps", "log_every": "1 steps"}
    run(make(**calm), tmp_path / "one")
    run(make(**calm, mesh__data=2, mesh__fsdp=2, mesh__tensor=2), tmp_path / "eight", count=8)
    one, eight = (list(losses(tmp_path / name).values()) for name in ("one", "eight"))
    np.testing.assert_allclose(eight, one, rtol=1e-4)
    assert len(one) == 6


def test_the_metric_must_be_one_that_is_evaluated(make, tmp_path):
    with pytest.raises(ConfigError, match=r"config.optim.metric='dev/lm' needs config.evals.dev"):
        run(make(optim__metric="dev/lm"), tmp_path)
