"""What every config promises, found by itself: a new file under `experiments/*/` with a `get_config` is under test."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from ctxjax import config as configs
from ctxjax import loop, metrics, plan, rngs, tree
from ctxjax import run as runs
from ctxjax.config import ConfigError, Duration
from ctxjax.data import pipeline
from ctxjax.schedules import make_schedule
from ctxjax.step import make_train_step

BERT = "experiments/bert/pretrain.py"
FOLDER = pathlib.Path("experiments")
FILES = sorted(str(path) for path in FOLDER.glob("*/*.py") if "def get_config(" in path.read_text())
TRAINED = [file for file in FILES if "config.optim" in pathlib.Path(file).read_text()]  # the others count
PARAMETERS = {  # the published counts, with all heads
    "experiments/bert/pretrain.py:size=base": 110_106_428,
    "experiments/bert/pretrain.py:size=large": 336_226_108,
    "experiments/gpt/pretrain.py:size=published": 116_534_784,
    "experiments/gpt2/pretrain.py:size=small": 124_439_808,
    "experiments/gpt2/pretrain.py:size=xl": 1_557_611_200,
    "experiments/modernbert/pretrain.py:size=base": 149_655_232 - (50_368 - 30_522) * 769,
    "experiments/elmo/pretrain.py:size=published": 93_600_848 + 793_471 * 513,
    "experiments/transformer/pretrain.py:size=base": 63_045_632,  # 65 and 213 million in the paper
    "experiments/transformer/pretrain.py:size=big": 214_171_648,
    "experiments/ulmfit/pretrain.py:size=ptb": 24_221_600 + 401,  # and a row and a bias for <S>
    "experiments/ulmfit/pretrain.py:size=wt2": 33_556_078 + 401,
}


def arguments(file):
    """Every experiment that the top of a file names: sizes, recipes and phases one by one, and all of LAMB."""
    text = pathlib.Path(file).read_text().split('"""')[1]
    named = re.findall(r"\b(\w+)=((?:\w+\|)*\w+)", text.split("Arguments:")[1])
    found = {
        f"{name}={value}"
        for name, values in named
        for value in values.split("|")
        if name in ACCEPTED and value != "NAME"
    }
    return ["", *sorted(found), *(["size=large,recipe=lamb,phase=2"] if "recipe=lamb" in found else [])]


ACCEPTED = {"size", "recipe", "phase", "packed", "isolate", "direction", "kind", "task", "layers"}
SPECS = [f"{file}:{arg}" for file in TRAINED for arg in arguments(file)]


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("CTXJAX_DATA", raising=False)


def test_there_are_configs():
    assert {"experiments/bert/pretrain.py", "experiments/elmo/pretrain.py"} <= set(FILES)
    assert {f"experiments/bert/pretrain.py:size={size}" for size in "tiny mini small base large".split()} <= set(SPECS)
    assert {f"experiments/elmo/pretrain.py:size={size}" for size in ("small", "published")} <= set(SPECS)


def built():
    """Of each file the default and what has a published count in the fast tier; tracing deep models takes seconds."""
    for spec in SPECS:
        fast = spec.endswith(":") or spec in PARAMETERS
        yield pytest.param(spec, marks=[] if fast else [pytest.mark.slow])


@pytest.mark.parametrize("spec", list(built()))
def test_builds_without_memory_and_without_data(spec):
    """Model, objective, optimiser and state, as shapes; every name in the config belongs to what it configures."""
    config = configs.load(spec)
    assert config.is_locked
    run, real = plan.assemble(config)
    assert not real
    assert tree.count(run.abstract.params) == PARAMETERS.get(spec, tree.count(run.abstract.params))
    assert run.flops_per_step() > 0
    metrics_of_a_step = jax.eval_shape(
        make_train_step(run.model, run.objective, run.tx, config.accum_steps),
        run.abstract,
        run.batch,
        jax.eval_shape(lambda: rngs.root_key(0)),
    )[1]
    assert set(metrics_of_a_step["terms"]) >= set(run.objective.loss)


@pytest.mark.parametrize("spec", SPECS)
def test_says_what_is_missing_before_any_device_work(spec):
    with pytest.raises(ConfigError, match=r"config.source.corpus is empty.*ctxjax.prepare"):
        runs.validate(configs.load(spec))


@pytest.mark.parametrize("spec", SPECS)
def test_is_json_and_every_field_can_be_set(spec):
    config = configs.load(spec)
    data = configs.to_dict(config)
    assert json.loads(json.dumps(data)) == data
    for name, value in configs.leaves(config).items():
        if isinstance(value, (bool, int, float, str)):
            configs.override(config, {name: str(value)})
            assert configs.leaves(config)[name] == value
    for field in runs.FIELDS:
        assert field in config


@pytest.mark.parametrize("file", FILES)
def test_top_of_the_file_says_what_it_reproduces(file):
    text = pathlib.Path(file).read_text().split('"""')[1]
    for word in ("Paper:", "Expected:", "Hardware and time:", f"--config {file}", "Arguments:", "smoke"):
        assert word in text, word


@pytest.mark.parametrize("file", FILES)
def test_mistakes_in_the_argument_are_named(file):
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        configs.load(f"{file}:smokes")
    with pytest.raises(ConfigError, match="'gigantic' is not one of"):
        configs.load(f"{file}:size=gigantic")


def smokes(*parts):
    """One smoke in the fast tier of each model with each objective, or of each of the `parts` that are named."""
    seen = set()
    for file in TRAINED:
        config = configs.load(file)
        kind = tuple(config[part].name for part in parts)
        for number, arg in enumerate(arguments(file)):
            spec = f"{file}:{arg},smoke" if arg else f"{file}:smoke"
            yield pytest.param(spec, marks=[pytest.mark.slow] if number or kind in seen else [], id=spec)
        seen.add(kind)


@pytest.mark.parametrize("spec", list(smokes("model", "objective")))
def test_smoke_fits_one_repeated_batch(spec):
    """Two layers (none where the model has none), generated text; the loss of one batch falls by a quarter within 30
    steps at a constant rate."""
    config = configs.load(spec)
    with config.unlocked():
        config.optim.schedule = {"name": "constant"}
    run = runs.assemble(config)
    if "depth" in config.model:
        assert config.model.depth == (2 if configs.load(spec.split(":")[0]).model.depth else 0)
    assert run.total_steps == 20
    batch = pipeline.batch_at(run.source, seed=0, batch_size=config.batch_size, step=0)
    step = jax.jit(make_train_step(run.model, run.objective, run.tx, config.accum_steps))
    state, losses = jax.jit(run.init)(rngs.root_key(0)), []
    for _ in range(30):
        state, values = step(state, batch, rngs.root_key(0))
        losses.append(float(values["loss"]))
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("spec", list(smokes("source")))
def test_smoke_trains_to_its_end(spec, tmp_path):
    """The whole program: data, steps, evaluation, checkpoint, record. Run again there is nothing left to do."""
    config = configs.load(spec)
    assert loop.train(config, tmp_path, devices=jax.devices()[:1]) == 0
    lines = metrics.read(tmp_path)
    assert lines[-1]["step"] == 20 and any("heldout" in name for line in lines for name in line)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert json.loads((tmp_path / "record.json").read_text())["steps"] == 20


def test_phases_of_bert_are_one_published_schedule():
    """900,000 steps and 100,000 more, which go on where the first phase's count of updates ended."""
    first, second = (
        make_schedule(
            int(Duration.parse(config.total, "total").amount), config.optim.lr, **config.optim.schedule.to_dict()
        )
        for config in (configs.load(f"{BERT}:size=large,phase={phase}") for phase in (1, 2))
    )
    for step, rate in ((0, 0.0), (5_000, 5e-5), (10_000, 0.99e-4), (900_000, 1e-5), (950_000, 5e-6), (1_000_000, 0.0)):
        assert float(first(step)) == float(second(step)) == pytest.approx(rate, rel=1e-4, abs=1e-12)
    config = configs.load(f"{BERT}:size=large,phase=2")
    assert config.init_from.optimizer and config.init_from.path == "runs/bert-large-phase1"
    assert (config.source.length, config.total) == (512, "100000 steps")
    assert configs.load(f"{BERT}:size=large").total == "900000 steps"


SWEEPS = [file for file in FILES if "def get_sweep(" in pathlib.Path(file).read_text()]


@pytest.mark.parametrize("file", SWEEPS)
def test_every_run_of_a_sweep_is_one_of_the_config(file):
    runs_of_it = configs.load_sweep(file)
    assert len(runs_of_it) > 1 and len({json.dumps(one, sort_keys=True) for one in runs_of_it}) == len(runs_of_it)
    for settings in runs_of_it:
        config = configs.load(file)
        configs.override(config, {name: str(value) for name, value in settings.items()})
        assert {name: configs.leaves(config)[name] for name in settings} == settings
