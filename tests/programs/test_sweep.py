"""sweep: every point of get_sweep() once, whatever stops it, and the best by a figure of its evaluations."""

import json

import pytest

from ctxjax import config as configs
from ctxjax import sweep
from ctxjax.config import ConfigError
from tests.engine import outside

FILE = """
from ctxjax.config import grid
from tests.engine.outside import get_config

def get_sweep():
    yield from grid(**{"optim.lr": (0.02, 100.0), "total": ("4 steps", "6 steps")})
    yield {"optim.lr": 0.001, "source.poison_to": 100, "max_skipped": 2}
"""
CHOSEN = "--config.best=lowest heldout/next"


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "config.py").write_text(FILE)
    return f"{tmp_path / 'config.py'}:corpus={outside.write_corpus(tmp_path / 'corpus')}"


def names(table):
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def record_of(name, value, **more):
    return {name: {"evaluation": {"dev/f1": value}, "steps": 3, **more}}


def test_names_are_plain_and_points_every_combination():
    points = list(configs.grid(**{"optim.lr": (5e-5, 2e-5), "total": ("2 epochs", "3 epochs"), "batch_size": (16,)}))
    assert [sweep.name_of(point) for point in points] == [
        *("lr=5e-05,total=2_epochs,batch_size=16", "lr=5e-05,total=3_epochs,batch_size=16"),
        *("lr=2e-05,total=2_epochs,batch_size=16", "lr=2e-05,total=3_epochs,batch_size=16"),
    ]


def test_the_best_is_first_and_a_failed_run_last():
    rows = record_of("a", 70.0) | record_of("b", 90.0, failed="why") | record_of("c", 80.0) | record_of("d", 80.0)
    assert sweep.choose(rows, "dev/f1", 1.0) == ["c", "d", "a", "b"]
    assert sweep.choose(rows, "dev/f1", -1.0) == ["a", "c", "d", "b"]
    several = record_of("s", 75.0, seeds={"0": {}, "1": {}}, failed={"1": "why"}, deviation={"dev/f1": 0.5})
    assert sweep.choose(rows | several, "dev/f1", 1.0) == ["c", "d", "s", "a", "b"]
    table = sweep.table(rows | several, ["c", "s"], "dev/f1")
    assert "| s | 75.0000 | 0.5000 | 1 | 3 |" in table and "| c | 80.0000 |  | 0 | 3 |" in table


def test_mistakes_are_named_before_any_run(spec, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"config\.best is empty, and a sweep chooses by it"):
        sweep.main(["--config", spec, "--workdir", str(tmp_path / "x")])
    bare = f"tests/engine/outside.py:{spec.partition(':')[2]}"
    with pytest.raises(ConfigError, match=r"has no get_sweep\(\)"):
        sweep.main(["--config", bare, "--workdir", str(tmp_path / "x"), CHOSEN])
    (tmp_path / "config.py").write_text(FILE.replace('"optim.lr": (', '"optim.rate": ('))
    with pytest.raises(ConfigError, match=r"unknown config field 'optim\.rate'"):
        sweep.main(["--config", spec, "--workdir", str(tmp_path / "x"), CHOSEN])
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_and_finished_runs_are_left_alone(spec, tmp_path, capsys):
    workdir = tmp_path / "sweep"
    command = ["--config", spec, "--workdir", str(workdir), CHOSEN, "--config.eval_every=2 steps"]
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:  # stopped within the third run
        from ctxjax import seeds

        whole = seeds.train

        def stopped(config, folder, **more):
            third = "lr=100.0,total=4_steps" in str(folder)
            code = whole(config, folder, stop_at=1 if third else None, **more)
            return 143 if third else code

        patched.setattr(seeds, "train", stopped)
        assert sweep.main(command) == 143
    assert not (workdir / "record.json").exists() and capsys.readouterr().out == ""
    finished = workdir / "lr=0.02,total=4_steps" / "record.json"
    before = finished.read_text()
    assert sweep.main(command) == 0
    order = names(capsys.readouterr().out)
    assert finished.read_text() == before
    assert order[0] == "lr=0.02,total=6_steps" and order[-1] == "lr=0.001,poison_to=100,max_skipped=2"
    record = json.loads((workdir / "record.json").read_text())
    assert record["config"]["total"] == "6 steps" and [row["run"] for row in record["sweep"]["runs"]] == order
    assert "2 steps in a row" in json.loads((workdir / order[-1] / "record.json").read_text())["failed"]
