"""From a pretrained run to predictions: init_from, training, evaluation again, and the file of a split."""

import json
import pathlib

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, convert, evaluate, loop, metrics, predict, tree
from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.data.generated import make_tokenizer
from ctxjax.data.generated_examples import generated_task
from ctxjax.interop.files import Published

CONFIG = "experiments/tasks/finetune.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A table of word vectors as a run, and a classifier trained on it."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = make_tokenizer("words")
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 8)).astype(np.float32)
    fields = {"name": "glove", "vocab_size": len(tokenizer), "width": 8}
    convert.write_run(folder / "vectors", Published(fields, {"embed/tokens/embedding": table}, tokenizer), {}, "x")
    config = configs.load(f"{CONFIG}:task=own.pairs,system=glove")
    settings = {
        "source.corpus": generated_task("own.pairs", "words")["corpus"],
        "init_from.path": str(folder / "vectors"),
        "model.labels": '["other", "same"]',
        "model.encoder.width": "8",
        "model.options.width": "16",
        "total": "6 steps",
        "save_every": "3 steps",
    }
    configs.override(config, settings)
    assert loop.train(config, folder / "run", stop_at=3, devices=jax.devices()[:1]) == 0
    again = configs.load(f"{CONFIG}:task=own.pairs,system=glove")
    configs.override(again, settings | {"source.tokenizer": str(folder / "gone")})
    assert loop.train(again, folder / "run", devices=jax.devices()[:1]) == 0
    return folder, table


def test_the_encoder_is_the_pretrained_one_and_stays_frozen(runs):
    folder, table = runs
    arrays, meta = checkpoint.read(folder / "run")
    np.testing.assert_array_equal(arrays["params/embed/tokens/embedding"], table)
    assert meta["config"]["model"]["encoder"]["vocab_size"] == len(table) and meta["step"] == 6
    assert set(tree.unflatten(arrays)["params"]["task"]["classify"]) == {"kernel", "bias", "layer"}
    assert "continuing from step 3" in (folder / "run" / "train.log").read_text()


def test_evaluated_again_and_predicted(runs, tmp_path, capsys):
    folder, _ = runs
    assert evaluate.main(["--workdir", str(folder / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    (line,) = [line for line in metrics.read(folder / "run") if line["step"] == 6 and "heldout/accuracy" in line]
    assert found["heldout/accuracy"] == pytest.approx(line["heldout/accuracy"])
    for split, count in (("test", 30), ("heldout", 60)):
        arguments = ["--workdir", str(folder / "run"), "--split", split, "--output", str(tmp_path)]
        assert predict.main(arguments) == 0
        lines = (tmp_path / f"{split}.tsv").read_text().splitlines()
        assert len(lines) == count + 1 and {line.split("\t")[1] for line in lines[1:]} <= {"same", "other"}
    examples = pathlib.Path(generated_task("own.pairs", "words")["corpus"], "heldout.jsonl").read_text().splitlines()
    right = [json.loads(line)["label"] for line in examples]
    told = [line.split("\t")[1] for line in lines[1:]]
    assert 100 * np.mean([a == b for a, b in zip(told, right)]) == pytest.approx(found["heldout/accuracy"])


def test_mistakes_are_named(runs, tmp_path):
    folder, _ = runs
    with pytest.raises(ConfigError, match=r"config.source.split='dev' is no split of own.pairs"):
        predict.main(["--workdir", str(folder / "run"), "--split", "dev", "--output", str(tmp_path)])
    with pytest.raises(ConfigError, match="has no evaluator 'task'"):
        predict.main(["--workdir", str(folder / "vectors"), "--output", str(tmp_path)])
