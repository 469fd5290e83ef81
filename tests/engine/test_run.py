"""Every mistake in a config is one sentence that names its field, before any device is touched."""

import pytest

from ctxjax import cli
from ctxjax import config as configs
from ctxjax import run as runs
from ctxjax.config import ConfigError, override
from tests.engine import outside


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


def make(corpus, **settings):
    config = outside.get_config(f"corpus={corpus}").lock()
    override(config, {name.replace("__", "."): str(value) for name, value in settings.items()})
    return config


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"total": "soon"}, r"config\.total='soon' is not a length such as '100 steps'"),
        ({"total": "50 percent"}, r"config\.total='50 percent'.* cannot be a percentage"),
        ({"log_every": "10 miles"}, r"config\.log_every"),
        ({"save_every": ""}, r"config\.save_every"),
        ({"eval_every": "-5 steps"}, r"config\.eval_every"),
        ({"batch_size": 0}, r"config\.batch_size=0 must be at least 1"),
        ({"accum_steps": 3}, r"config\.batch_size=8 does not divide into config\.accum_steps=3"),
        ({"keep": 0}, r"config\.keep=0 must be at least 1"),
        ({"max_skipped": 0}, r"config\.max_skipped=0"),
        ({"seed": -1}, r"config\.seed=-1"),
        ({"source__corpus": ""}, r"config\.source\.corpus is empty: .*ctxjax\.prepare"),
        ({"model__vocab_size": 24}, r"config\.model\.vocab_size=24 .* --config\.model\.vocab_size=23"),
        ({"source__length": 65}, r"config\.source\.length=65 is more than config\.model\.max_len=64"),
        ({"batch_size": 4096}, r"config\.batch_size=4096 is more than one pass"),
        ({"profile_steps": "9"}, r"config\.profile_steps='9' is not a range"),
        ({"model__name": "tests.engine.outsde"}, r"names no module"),
        ({"optim__name": "adamm"}, r"did you mean 'adamw'"),
        ({"evals__heldout__split": "test"}, r"test"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(corpus, settings, words, monkeypatch):
    monkeypatch.setattr("jax.device_put", lambda *_, **__: pytest.fail("a device was touched"))
    config = make(corpus, **settings)
    with pytest.raises((ConfigError, FileNotFoundError), match=words) as caught:
        run = runs.assemble(config)
        run.evaluators(runs.make_mesh(config))
    if isinstance(caught.value, ConfigError):
        assert "\n" not in str(caught.value)


def test_characters_of_model_and_source_have_to_agree():
    config = configs.load("experiments/elmo/pretrain.py:smoke")
    override(config, {"source.max_chars": "40"})
    with pytest.raises(ConfigError, match=r"config\.model\.max_chars=50 is not config\.source\.max_chars=40"):
        runs.assemble(config)


def test_mistakes_that_no_flag_can_make(corpus):
    config = make(corpus)
    with config.unlocked():
        config.model.num_heads = 3
    with pytest.raises(ConfigError, match=r"config\.model\.num_heads=3 does not divide config\.model\.width=16"):
        runs.assemble(config)
    config = make(corpus)
    with config.unlocked():
        config.model.widht = 3
    with pytest.raises(ConfigError, match=r"config\.model\.widht is not a field .* did you mean 'width'"):
        runs.assemble(config)
    config = make(corpus)
    with config.unlocked():
        del config.keep
    with pytest.raises(ConfigError, match="no field 'keep'"):
        runs.assemble(config)
    config = make(corpus)
    with config.unlocked():
        del config.evals.heldout.name
    with pytest.raises(ConfigError, match=r"config\.evals\.heldout has no field 'name'"):
        runs.assemble(config)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"batch_size": 4}, r"config\.batch_size=4 is not a multiple of 8"),
        (
            {"accum_steps": 2},
            r"config\.batch_size=8 is not a multiple of 16, which is config\.accum_steps=2 times the 8",
        ),
        ({"mesh__data": 5}, r"config\.mesh=.* does not multiply to the 8 devices"),
    ],
    ids=str,
)
def test_batches_and_meshes_that_do_not_fit(corpus, settings, words):
    with pytest.raises(ConfigError, match=words):
        runs.make_mesh(make(corpus, **settings))


def test_lengths_and_shapes(corpus):
    run = runs.assemble(make(corpus, total="2 epochs", save_every="10 percent", log_every="1_000 tokens"))
    assert run.steps_per_pass == 62 and run.total_steps == 124 and run.tokens_per_step == 64
    assert run.steps("save_every") == 12 and run.steps("log_every") == 16
    assert run.batch["inputs"]["tokens"].shape == (8, 8) and run.abstract.carry["layer_0"].shape == (8, 16)
    assert run.flops_per_step() == 3 * (12 * 16**2 * 64 + 2 * 64 * 16 * 23)


def test_overrides_and_their_mistakes(corpus):
    import argparse

    parser = argparse.ArgumentParser()
    cli.add_config(parser)
    spec = f"tests/engine/outside.py:corpus={corpus}"
    _, config = cli.parse(parser, ["--config", spec, "--config.optim.lr=0.5", "--config.total", "7 steps"])
    assert config.optim.lr == 0.5 and config.total == "7 steps"
    for flags, words in [
        (["--config", spec, "--config.optim.lrr=1"], r"unknown config field 'optim\.lrr'; did you mean 'optim\.lr'"),
        (["--config", spec, "--config.batch_size=many"], r"config field batch_size='many' is not of type int"),
        (["--config", spec, "--config.seed"], r"--config\.seed needs a value"),
        (["--config", "nowhere.py"], "config file 'nowhere.py' does not exist"),
    ]:
        with pytest.raises(ConfigError, match=words):
            cli.parse(parser, flags)


@pytest.mark.parametrize("family", ["word2vec", "glove", "fasttext"])
def test_the_scale_of_a_sum_follows_the_batch(family):
    """A batch of another size is another sum; the mean (1) is always right."""
    config = configs.load(f"experiments/{family}/pretrain.py:smoke")
    runs.assemble(config)
    override(config, {"batch_size": "8"})
    with pytest.raises(ConfigError, match=r"config.objective.scale=1024 is not the 512 targets .*scale=512"):
        runs.assemble(config)
    override(config, {"objective.scale": "1"})
    runs.assemble(config)
