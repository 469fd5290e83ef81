"""launch/sweep.py: one command a run of get_sweep(), by any launcher, into the folders that ctxjax.sweep looks in."""

import json
import os
import subprocess

import pytest

from ctxjax import cli, sweep
from ctxjax.config import ConfigError
from tests.programs.stubs import NASTY, ROOT, recorded, stub
from tests.scripts import opened

FILE = """
from tests.engine.outside import get_config

def get_sweep():
    yield {"optim.lr": 0.02, "total": "4 steps; 'here'"}
    yield {"optim.lr": 1e-3}
"""


@pytest.fixture(scope="module")
def launch():
    return opened(ROOT / "launch" / "sweep.py")


@pytest.fixture
def spec(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "it's.py").write_text(FILE.replace("; 'here'", ""))
    return f"{folder}/it's.py:corpus={tmp_path}/no corpus"


def trained(spec, name, *fields, python="python", more=()):
    workdir = ["--workdir", f"gs://bucket/grid/{name}"]
    return [python, "-m", "ctxjax.train", "--config", spec, *workdir, *more, *(f"--config.{field}" for field in fields)]


def test_dry_run_prints_a_command_a_run_that_a_shell_reads_back(launch, spec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ctxjax.run.validate", lambda config: None)  # the corpus is not there
    stub(tmp_path / "bin", "sbatch")
    given = ["--config", spec, "--workdir", "gs://bucket/grid/", "--config.best=lowest heldout/next", "--dry-run"]
    launcher = ["--", "sbatch", "--job-name=grid-{number}", *NASTY, "--"]
    assert launch.main([*given, "--distributed", "--python", "/opt/py 3", *launcher]) == 0
    assert recorded(tmp_path / "bin", "sbatch") == []
    printed = capsys.readouterr().out
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", printed], env=environment, check=True)
    more = {"python": "/opt/py 3", "more": ["--distributed"]}
    best = "best=lowest heldout/next"
    assert recorded(tmp_path / "bin", "sbatch") == [
        ["--job-name=grid-1", *NASTY, "--"]
        + trained(spec, "lr=0.02,total=4_steps", best, "optim.lr=0.02", "total=4 steps", **more),
        ["--job-name=grid-2", *NASTY, "--"] + trained(spec, "lr=0.001", best, "optim.lr=0.001", **more),
    ]


def test_runs_are_launched_and_those_that_fail_are_named(launch, spec, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("ctxjax.run.validate", lambda config: None)
    stub(tmp_path / "bin", "launcher", 'case "$1" in 2) exit 3;; esac')
    program = str(tmp_path / "bin" / "launcher")
    given = ["--config", spec, "--workdir", str(tmp_path / "x"), "--at-once", "2"]
    assert launch.main([*given, "--", program, "{number}", "--"]) == 3
    calls = sorted(recorded(tmp_path / "bin", "launcher"))
    assert [call[:2] for call in calls] == [["1", "--"], ["2", "--"]]
    assert capfd.readouterr().err == "lr=0.001: exit code 3\n"
    folders = [call[call.index("--workdir") + 1] for call in calls]
    assert folders == [str(tmp_path / "x" / name) for name in sweep.points(spec, {})]


def test_the_command_trains_the_config_of_the_sweep(launch, spec):
    """What is in the command is what `ctxjax.sweep` would have trained."""
    points = sweep.points(spec, {"seed": "7"})
    for command, point in zip(launch.commands(spec, "w", points, [], "python", []), points.values()):
        _, settings = cli.split_overrides(command[3:])
        assert settings == point
        there, here = cli.parse_config(spec, settings), cli.parse_config(spec, point)
        assert json.loads(there.to_json()) == json.loads(here.to_json()) and there.seed == 7


def test_a_mistake_is_told_before_anything_is_launched(launch, spec, tmp_path):
    stub(tmp_path / "bin", "launcher")
    launcher = ["--", str(tmp_path / "bin" / "launcher")]
    given = ["--config", spec, "--workdir", str(tmp_path / "x")]
    with pytest.raises(ConfigError, match=r"unknown config field 'optim\.rate'"):
        launch.main([*given, "--config.optim.rate=1", *launcher])
    with pytest.raises(ConfigError, match=r"config\.log_every='often' is not a length"):
        launch.main([*given, "--config.log_every=often", *launcher])
    assert recorded(tmp_path / "bin", "launcher") == []
