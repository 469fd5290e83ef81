"""BERT, the biLM and GPT-2, cut at five places with dropout on, have the bits of a run in one go; meshes agree."""

import hashlib
import pathlib

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, loop, metrics
from ctxjax import config as configs
from ctxjax.data import generated

ROOT = pathlib.Path(__file__).parent.parent.parent
KINDS = {"bert": "wordpiece", "elmo": "words", "gpt2": "byte_bpe"}
SMALL = {
    "bert": {"model.width": "16", "model.num_heads": "2", "model.mlp_dim": "32", "model.attention_dropout": "0.1"},
    "elmo": {"model.width": "8", "model.projection": "8", "objective.samples": "16"},
    "gpt2": {"model.width": "16", "model.mlp_dim": "32", "model.attention_dropout": "0.1"},
}


@pytest.fixture(scope="module", params=["bert", "elmo", pytest.param("gpt2", marks=pytest.mark.slow)])
def make(request, tmp_path_factory):
    """`make(**settings)` gives the smoke config of a model, smaller still, with dropout, on a generated corpus."""
    corpus = tmp_path_factory.mktemp(request.param)
    generated.write_corpus(corpus, KINDS[request.param], count=120)

    def config(**settings):
        made = configs.load(f"{ROOT}/experiments/{request.param}/pretrain.py:smoke")
        fixed = {"model.dropout": "0.1", "total": "30 steps", "log_every": "1 steps", "save_every": "8 steps"}
        fixed |= {"batch_size": "8", "threads": "1"}
        fixed |= {"source.corpus": str(corpus)} | SMALL[request.param]
        configs.override(made, fixed | {name.replace("__", "."): str(value) for name, value in settings.items()})
        with made.unlocked():
            made.evals = {}
        return made

    config.kind = request.param
    return config


def run(config, workdir, stop_at=None, count=1):
    return loop.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:count])


def digest_of(workdir):
    arrays, _ = checkpoint.read(workdir)
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()


def losses(workdir):
    return {line["step"]: line["loss"] for line in metrics.read(workdir) if "loss" in line}


@pytest.fixture(scope="module")
def straight(make, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    assert run(make(), workdir) == 0
    return workdir


def test_cut_at_five_places_is_the_same_to_the_last_bit(make, straight, tmp_path):
    for stop in (2, 8, 9, 17, 29):
        assert run(make(), tmp_path, stop_at=stop) == 0
    assert run(make(), tmp_path) == 0
    assert losses(tmp_path) == losses(straight) and len(losses(straight)) == 30
    assert digest_of(tmp_path) == digest_of(straight)
    groups = {name.split("/")[0] for name in checkpoint.read(straight)[0]}
    assert groups == {"step", "params", "opt_state"} | ({"carry"} if make.kind == "elmo" else set())


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, count",
    [((8, 1, 1), 8), ((1, 8, 1), 8), ((2, 2, 2), 8), ((1, 2, 4), 8), ((2, 1, 1), 2), ((4, 1, 1), 4)],
    ids=str,
)
def test_every_mesh_has_the_losses_of_one_device(make, straight, tmp_path, sizes, count):
    data, fsdp, tensor = sizes
    run(make(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor), tmp_path, count=count)
    want, have = losses(straight), losses(tmp_path)
    np.testing.assert_allclose([have[step] for step in want], list(want.values()), rtol=1e-5)


@pytest.mark.slow
def test_the_mesh_of_all_axes_has_the_losses_of_one_device(make, straight, tmp_path):
    """(2, 2, 2) for ten steps, all of which agree; the tests above go on to 30."""
    run(make(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), tmp_path, stop_at=10, count=8)
    want, have = losses(straight), losses(tmp_path)
    np.testing.assert_allclose([have[step] for step in range(1, 11)], [want[step] for step in range(1, 11)], rtol=1e-5)
