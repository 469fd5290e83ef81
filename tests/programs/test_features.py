"""From two files of vectors to a trained tagger: stored by the program, read by the run, and words to begin with."""

import jax
import numpy as np
import pytest

import ctxjax
from ctxjax import config as configs
from ctxjax import convert, features, loop, metrics, rngs, transfer
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.data import generated

CONFIG = "experiments/taglm/tag.py:smoke"


@pytest.fixture(scope="module")
def models():
    path = f"{generated.generated_tags()}/model.txt"
    return f'["{path}", "{path}"]'


def test_stored_by_the_program_and_read_by_the_run(models, tmp_path, capsys):
    settings = [f"--config.source.vectors_of={models}"]
    for _ in range(2):  # the second time nothing is left to do
        assert features.main(["--config", CONFIG, *settings]) == 0
        out = capsys.readouterr()
        assert out.out == "--config.model.features=6\n" and out.err.count("1 x 3 numbers a word by") == 6
    config = configs.load(CONFIG)
    configs.override(config, {"source.vectors_of": models, "total": "4 steps", "eval_every": "4 steps"})
    with pytest.raises(ConfigError, match=r"config\.model\.features=0 is not config\.source\.features=6"):
        runs.assemble(config)
    configs.override(config, {"model.features": "6"})
    rows, width, wide = runs.assemble(config).batch["inputs"]["features"].shape
    assert (rows, wide) == (16, 6) and width <= 64
    assert loop.train(config, tmp_path, devices=jax.devices()[:1]) == 0
    names = {name for line in metrics.read(tmp_path) for name in line}
    assert {"heldout/crf", "heldout/words_accuracy", "spans/f1", "spans/f1_PER"} <= names
    with pytest.raises(ConfigError, match=r"cannot embed: it is a tagger"):
        ctxjax.load(tmp_path).embed("ba ba ba")


def test_a_config_without_models_is_refused():
    with pytest.raises(ConfigError, match=r"config\.source\.vectors_of names no model"):
        features.main(["--config", CONFIG])


def test_words_begin_with_vectors_of_a_file(tmp_path):
    """As the top of the config says: converted, and matched row by row."""
    path = f"{generated.generated_tags()}/model.txt"
    convert.main([path, str(tmp_path / "vectors"), "--to", "ctxjax"])
    config = configs.load(CONFIG)
    configs.override(config, {"model.embed_width": "3"})
    run = runs.assemble(config)
    fresh = jax.jit(run.init)(rngs.root_key(0))
    state = transfer.init_from(
        fresh, run.source.tokenizer, tmp_path / "vectors", "^embed/tokens", report=lambda _: None
    )
    table = np.asarray(state.params["embed"]["tokens"]["embedding"])
    opened = ctxjax.load(path)
    known = [word for word in run.source.tokenizer.pieces[3:] if word in opened.tokenizer.ids]
    assert len(known) > 50
    for word in known:
        np.testing.assert_array_equal(table[run.source.tokenizer.ids[word]], opened.vector(word))
    dot = run.source.tokenizer.ids["."]  # not in the file
    np.testing.assert_array_equal(table[dot], fresh.params["embed"]["tokens"]["embedding"][dot])
