"""The config of tasks on whole texts: every task and system loads, and says what the originals do."""

import importlib
import pathlib
import pkgutil

import jax
import pytest

import ctxjax.data.tasks
from ctxjax import config as configs
from ctxjax import rngs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.data.tasks import Task
from ctxjax.step import make_train_step

CONFIG = "experiments/tasks/finetune.py"
TASKS = {
    f"{module.name}.{name}": value
    for module in pkgutil.iter_modules(ctxjax.data.tasks.__path__)
    for name, value in vars(importlib.import_module(f"ctxjax.data.tasks.{module.name}")).items()
    if isinstance(value, Task)
}
SYSTEMS = ("bert", "gpt", "elmo", "word2vec", "glove")


def test_there_are_tasks():
    assert {"glue.cola", "sentiment.imdb", "topics.trec6", "entailment.snli", "choices.swag"} <= set(TASKS)
    text = pathlib.Path(CONFIG).read_text().split('"""')[1]
    assert not [name for name in TASKS if name.split(".")[1] not in text and not name.startswith("own.")]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_task_has_a_config(system, monkeypatch):
    monkeypatch.setenv("CTXJAX_DATA", "/data")
    for name, task in TASKS.items():
        config = configs.load(f"{CONFIG}:task={name},system={system}")
        assert config.model.task == config.objective.task == task.kind
        assert config.source.both_orders == (system == "gpt" and task.symmetric)
        pair = task.parts == 2 and task.kind != "choose"
        assert config.source.apart == config.model.compare == (pair and system not in ("bert", "gpt"))
        assert bool(config.source.corpus) != name.startswith("own.")
        assert config.model.labels == (task.labels if task.kind == "classify" else ())


def test_recipes_are_the_published_ones():
    bert = configs.load(f"{CONFIG}:task=glue.mnli")
    assert (bert.batch_size, bert.total, bert.optim.lr, bert.model.dropout) == (32, "3 epochs", 5e-5, 0.1)
    assert bert.optim.schedule.to_dict() == {"name": "warmup_linear", "warmup": "10 percent"}
    assert bert.evals.mismatched.split == "heldout_mm"
    swag = configs.load(f"{CONFIG}:task=choices.swag")
    assert (swag.batch_size, swag.optim.lr, swag.total) == (16, 2e-5, "3 epochs")
    gpt = configs.load(f"{CONFIG}:task=glue.stsb,system=gpt")
    assert (gpt.optim.lr, gpt.objective.language_model, gpt.optim.eps) == (6.25e-5, 0.5, 1e-8)
    elmo = configs.load(f"{CONFIG}:system=elmo")
    assert elmo.model.mix and elmo.objective.mix_l2 == 1e-3 and elmo.model.encoder.dropout == 0.0


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("task=glue.colla", "config argument task='glue.colla': there is no 'colla'"),
        ("system=bart", "system='bart' is not one of bert"),
        ("task=files.table", "is no task on whole texts"),
    ],
)
def test_mistakes_are_named(arg, message):
    with pytest.raises(ConfigError, match=message):
        configs.load(f"{CONFIG}:{arg}")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["glue.stsb", "choices.swag", "sentiment.sst5", "glue.mrpc"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_builds_for_every_kind_of_task(task, system):
    config = configs.load(f"{CONFIG}:task={task},system={system},smoke")
    run = runs.assemble(config)
    assert run.flops_per_step() > 0 and run.total_steps == 20
    step = make_train_step(run.model, run.objective, run.tx, 1)
    values = jax.eval_shape(step, run.abstract, run.batch, jax.eval_shape(lambda: rngs.root_key(0)))[1]
    assert set(values["terms"]) >= set(run.objective.loss)
