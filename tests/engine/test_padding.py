"""A vocabulary padded in memory changes no figure and no checkpoint, and lets its tables divide over a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import checkpoint, loop, metrics, padding
from ctxjax import config as configs
from ctxjax import run as runs
from ctxjax.config import ConfigError

CONFIGS = {
    "bert": ({"model.attention_dropout": "0.1"}, "params/embed/tokens/embedding"),
    "gpt": ({}, "params/embed/tokens/embedding"),
    "elmo": ({"objective.samples": "16"}, "params/head/softmax/embedding"),
}
MULTIPLE = 48  # no vocabulary of these is one


def make(name, multiple, **changes):
    config = configs.load(f"experiments/{name}/pretrain.py:smoke")
    fixed = {"model.dropout": "0.1", "total": "6 steps", "log_every": "1 steps", "save_every": "3 steps"}
    fixed |= {"eval_every": "3 steps", "batch_size": "8", "vocab_multiple": str(multiple)} | CONFIGS[name][0]
    configs.override(config, fixed | changes)
    return config


def train(config, workdir, stop_at=None, count=1):
    assert loop.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:count]) == 0


def logged(workdir):
    lines = metrics.read(workdir)
    return {(line["step"], name): line[name] for line in lines for name in ("loss", "grad_norm") if name in line} | {
        (line["step"], name): value for line in lines for name, value in line.items() if name.startswith("heldout/")
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_figures_and_checkpoints_are_those_of_the_true_vocabulary(name, tmp_path):
    """With dropout and drawn negatives, over a mesh that divides only the padded table, cut and continued without."""
    mesh = {"mesh.data": "1", "mesh.fsdp": "2", "mesh.tensor": "2"}
    for folder, multiple, changes, count in (("true", 1, {}, 1), ("padded", MULTIPLE, mesh, 4)):
        train(make(name, multiple, **changes), tmp_path / folder, count=count)
    ours, theirs = logged(tmp_path / "padded"), logged(tmp_path / "true")
    assert ours.keys() == theirs.keys() and len(ours) > 12
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)
    (ours, _), (theirs, _) = checkpoint.read(tmp_path / "padded"), checkpoint.read(tmp_path / "true")
    assert {key: leaf.shape for key, leaf in ours.items()} == {key: leaf.shape for key, leaf in theirs.items()}
    for key, leaf in theirs.items():
        np.testing.assert_allclose(np.asarray(ours[key]), np.asarray(leaf), rtol=2e-3, atol=2e-5, err_msg=key)

    train(make(name, MULTIPLE, **mesh), tmp_path / "cut", stop_at=3, count=4)
    train(make(name, 1), tmp_path / "cut")
    np.testing.assert_allclose(
        list(logged(tmp_path / "cut").values()), list(logged(tmp_path / "true").values()), rtol=1e-4
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_padded_table_is_split(name):
    table = CONFIGS[name][1].removeprefix("params/")
    run = runs.assemble(make(name, MULTIPLE, **{"mesh.data": "1", "mesh.tensor": "8"}))
    mesh = runs.make_mesh(run.config, jax.devices()[:8])
    for held, size in ((False, run.model.vocab_size), (True, padding.padded(run.model.vocab_size, MULTIPLE))):
        state, _ = runs.placed(run, mesh, held)
        leaf = state.params
        for part in table.split("/"):
            leaf = leaf[part]
        assert leaf.shape[0] == size
        assert (leaf.sharding.shard_shape(leaf.shape)[0] == size // 8) == held


def test_rows_of_no_word_stay_zero(tmp_path):
    config = make("bert", MULTIPLE)
    trainer = loop.Trainer(config, tmp_path, devices=jax.devices()[:1])
    state = trainer.fresh_state()
    words, rows = trainer.run.model.vocab_size, padding.padded(trainer.run.model.vocab_size, MULTIPLE)
    assert words < rows
    step = trainer.compile(state)[0]
    with trainer.stream(0) as stream:
        for _ in range(3):
            state, values = step(state, next(stream), trainer.root)
    trainer.close()
    assert float(values["skipped"]) == 0
    for leaf in jax.tree.leaves(state):
        if leaf.ndim and leaf.shape[0] == rows:
            assert not np.asarray(leaf[words:]).any() and np.asarray(leaf[:words]).any()


def test_seeds_at_once(tmp_path):
    """Their common checkpoint and each one's own have the true vocabulary, and they go on from it."""
    from ctxjax import seeds

    config = make("bert", MULTIPLE)
    with config.unlocked():
        config.seeds = config.seeds_at_once = 2
    for stop in (4, None):
        assert seeds.train(config, tmp_path, stop_at=stop, devices=jax.devices()[:1]) == 0
    train(make("bert", 1, seed="1"), tmp_path / "alone")
    ours, theirs = logged(tmp_path / "seed_1"), logged(tmp_path / "alone")
    heldout = [key for key in theirs if key[1].startswith("heldout/")]
    np.testing.assert_allclose([ours[key] for key in heldout], [theirs[key] for key in heldout], rtol=1e-4)
    ours, theirs = (checkpoint.read(tmp_path / name)[0] for name in ("seed_1", "alone"))
    assert {key: leaf.shape for key, leaf in ours.items()} == {key: leaf.shape for key, leaf in theirs.items()}


def test_fit_cuts_and_fills():
    tree = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.ones(2)}
    wide = padding.fit(tree, {"a": jnp.zeros((4, 2)), "b": jnp.zeros(2)})
    np.testing.assert_array_equal(wide["a"], [[0, 1], [2, 3], [4, 5], [0, 0]])
    back = padding.fit(wide, tree)
    assert all(jnp.array_equal(back[name], tree[name]) for name in tree)


def test_a_model_without_a_vocabulary_of_words_is_refused():
    config = configs.load("experiments/fasttext/pretrain.py:smoke")
    configs.override(config, {"vocab_multiple": "4096"})
    with pytest.raises(ConfigError, match=r"config\.vocab_multiple=4096 is for language models"):
        runs.assemble(config)
    configs.override(config, {"vocab_multiple": "0"})
    with pytest.raises(ConfigError, match=r"config\.vocab_multiple=0 must be at least 1"):
        runs.assemble(config)
