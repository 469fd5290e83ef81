"""A run whose batches are of several widths: the same figures as of one width, and the same bits wherever it is cut."""

import json

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, loop, metrics
from ctxjax import config as configs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.seeds import train as train_seeds

CONFIG = "experiments/tasks/finetune.py:task=own.pairs,smoke,system="


def make(system="word2vec", **changes):
    config = configs.load(CONFIG + system)
    with config.unlocked():
        config.update(total="8 steps", save_every="3 steps", eval_every="4 steps", log_every="1 steps", batch_size=4)
        config.source.update(changes)
    return config.lock()


def train(config, workdir, stop_at=None):
    return loop.train(config, workdir, stop_at, devices=jax.devices()[:2])


def losses(workdir):
    return [line["loss"] for line in metrics.read(workdir) if "loss" in line]


def last(workdir):
    arrays, _ = checkpoint.read(workdir)
    return {name: np.asarray(leaf).tobytes() for name, leaf in arrays.items()}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("narrow")
    assert train(make(widths=3), workdir) == 0
    return workdir


def padding(workdir):
    return np.mean([line["padding"] for line in metrics.read(workdir) if "padding" in line])


def test_widths_change_no_figure(narrow, tmp_path):
    assert train(make(widths=1), tmp_path) == 0
    np.testing.assert_allclose(losses(narrow), losses(tmp_path), rtol=1e-5)
    assert padding(narrow) < padding(tmp_path) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("system", ("bert", "gpt", "elmo"))
def test_widths_change_no_figure_of_an_encoder(system, tmp_path):
    for widths in (1, 3):
        assert train(make(system, widths=widths), tmp_path / f"{widths}") == 0
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "3"), rtol=1e-4)
    assert padding(tmp_path / "3") < padding(tmp_path / "1") - 0.05


def test_the_record_has_the_examples_of_a_pass(narrow):
    """All of them, though 8 steps of 4 read no whole pass."""
    run = runs.assemble(make(widths=3))
    record = json.loads((narrow / "record.json").read_text())
    assert record["examples"] == run.source.count == len(run.source.examples)


def test_cut_anywhere_it_ends_with_the_same_bits(narrow, tmp_path):
    config = make(widths=3)
    for step in (2, 5):
        assert train(config, tmp_path, stop_at=step) == 0
    assert train(config, tmp_path) == 0
    assert last(tmp_path) == last(narrow)


def test_flops_are_those_of_the_widths_that_are_run():
    run = runs.assemble(make("bert", widths=3))
    assert len(run.batches) == len(run.source.padded) > 1
    every = [3.0 * run.objective.flops(run.model, batch) for batch in run.batches]
    steps = range(run.steps_per_pass)
    widths = [run.source.width_of(run.source.of_step(0, 4, step)) for step in steps]
    assert run.flops_per_step() == pytest.approx(np.mean([every[run.source.padded.index(width)] for width in widths]))
    assert min(every) < run.flops_per_step() < runs.assemble(make("bert", widths=1)).flops_per_step()


def test_seeds_at_once_need_one_width(tmp_path):
    config = make(widths=3)
    with config.unlocked():
        config.update(seeds=2, seeds_at_once=2)
    with pytest.raises(ConfigError, match=r"seeds_at_once=2 needs batches of one width: set --config.source.widths=1"):
        train_seeds(config, tmp_path)
