"""The probe program: from models and tasks to a record, a table and a picture; several steps and learned mixes, too."""

import json

import pytest

from ctxjax import probe
from ctxjax.config import ConfigError

CONFIG = "experiments/probe/layers.py:smoke"


def test_from_a_model_to_a_record_a_table_and_a_picture(tmp_path, capsys):
    run = tmp_path / "names"
    run.mkdir()
    shares = {"mix/mix_0_layer_0": 0.2, "mix/mix_0_layer_1": 0.8, "mix/mix_0_gamma": 1.5, "spans/f1": 50.0}
    (run / "record.json").write_text(json.dumps({"evaluation": shares}))
    output = tmp_path / "probes"
    assert probe.main(["--config", CONFIG, "--output", str(output), f'--config.mixes=["{run}"]']) == 0
    record = json.loads((output / "probes.json").read_text())
    assert record["mixes"] == {str(run): {"mix_0_layer_0": 0.2, "mix_0_layer_1": 0.8, "mix_0_gamma": 1.5}}
    (found,) = record["probes"].values()
    names = found["tasks"]["names"]
    assert found["step"] is None and len(names["accuracy"]) == len(names["f1"]) == len(names["control"]) == 1
    assert names["labels"] == 5 and 0 < names["majority"] <= names["accuracy"][0]
    assert names["edges"]["spans"] > 50 and len(names["edges"]["accuracy"]) == 1
    table = capsys.readouterr().out
    assert f"| names | 0 | {names['accuracy'][0]:.3f} | {names['control'][0]:.3f} |" in table
    assert (output / "probes.png").stat().st_size > 10_000
    assert record["config"]["probe"]["epochs"] == 2 and record["commit"] is not None


def test_steps_of_a_run_are_drawn_as_curves(tmp_path):
    figures = lambda low: {
        "accuracy": [low, low + 0.1],
        "control": [0.1, 0.2],
        "selectivity": [0.3, 0.3],
        "by_type": 0.5,
    }
    made = {f"step {step}": {"step": step, "tasks": {"pos": figures(step / 100)}} for step in (10, 20, 40)}
    probe.draw(made, {}, tmp_path / "curves.png")
    probe.draw({"one": made["step 10"]}, {}, tmp_path / "one.png")
    assert (tmp_path / "curves.png").stat().st_size > (tmp_path / "one.png").stat().st_size


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.models is empty"):
        probe.main(["--config", CONFIG, "--output", str(tmp_path), "--config.models=[]"])
    with pytest.raises(ConfigError, match=r"record\.json does not exist"):
        probe.read_mix(str(tmp_path))
    (tmp_path / "record.json").write_text(json.dumps({"evaluation": {"spans/f1": 1.0}}))
    with pytest.raises(ConfigError, match=r"has no mix of layers; its config needs evals\.mix"):
        probe.read_mix(str(tmp_path))
