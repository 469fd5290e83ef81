"""`python -m ctxjax.evaluate`: the numbers of the training run again, from its checkpoint alone."""

import json

import jax
import pytest

from ctxjax import evaluate, loop, metrics, trained
from ctxjax.config import ConfigError
from tests.engine import outside


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = outside.get_config("corpus=" + outside.write_corpus(folder / "corpus"))
    config.total = "12 steps"
    config.save_every = "6 steps"
    config.eval_every = "6 steps"
    assert loop.train(config.lock(), folder / "work", devices=jax.devices()[:1]) == 0
    return folder


def evaluated(run, step):
    (line,) = [line for line in metrics.read(run / "work") if line["step"] == step and "heldout/next" in line]
    return line


def test_the_same_numbers_from_the_checkpoint(run, capsys):
    for step in (6, 12):
        assert evaluate.main(["--workdir", str(run / "work"), "--step", str(step)]) == 0
        found = json.loads(capsys.readouterr().out)
        want = evaluated(run, step)
        assert set(found) == {"step", "heldout/next", "heldout/accuracy", "heldout/next_perplexity"}
        for name in found:
            assert found[name] == pytest.approx(want[name], rel=1e-5), "evaluated on 8 devices, trained on one"


def test_settings_records_and_one_evaluator(run, tmp_path, capsys):
    flags = ["--config.evals.heldout.batches=1", "--only", "heldout", "--record", str(tmp_path)]
    assert evaluate.main(["--workdir", str(run / "work"), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["heldout/next"] != evaluated(run, 12)["heldout/next"]
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert record["evaluation"]["heldout/next"] == found["heldout/next"] and record["step"] == 12
    assert str(run) not in path.read_text()


def test_the_carry_goes_through_the_batches(run):
    """State that is dropped between batches gives another number: eight windows are one stream, not eight."""
    from ctxjax import checkpoint, folders
    from ctxjax import run as runs

    folder = folders.find(run / "work")
    meta = folders.read_meta(folder)
    config = trained.from_meta(meta, {"evals.heldout.batches": "8"})
    with_carry = evaluate.evaluate(config, folder, meta)["heldout/next"]
    assembled = runs.assemble(config)
    mesh = runs.make_mesh(config)
    evaluator = assembled.evaluators(mesh)["heldout"]
    step = evaluator._step
    fresh = lambda carry: jax.tree.map(lambda leaf: leaf * 0, carry)
    evaluator._step = lambda params, batch, carry, key: step(params, batch, fresh(carry), key)
    arrays, _ = checkpoint.read(folder, "^params/")
    params = checkpoint.tree.unflatten({name.removeprefix("params/"): array for name, array in arrays.items()})
    assert abs(evaluator.run(params)["next"] - with_carry) > 1e-5


def test_mistakes(run, tmp_path):
    other = outside.write_corpus(tmp_path / "other", vocab=24)
    for flags, words in [
        (["--step", "7"], "no checkpoint of step 7"),
        (["--only", "helout"], "did you mean 'heldout'"),
        (["--config.model.width=8"], "is of another model: .*float32"),
        (["--config.batch_size=128"], "too small for evaluation batches of 128"),
        ([f"--config.source.corpus={other}"], r"config\.model\.vocab_size=23"),
        ([f"--config.source.corpus={other}", "--config.model.vocab_size=24"], "another tokenizer"),
    ]:
        with pytest.raises(ConfigError, match=words):
            evaluate.main(["--workdir", str(run / "work"), *flags])
