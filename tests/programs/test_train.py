"""`python -m ctxjax.train` as a user meets it: one sentence and an exit code for every mistake."""

import os
import pathlib
import subprocess
import sys

import pytest

from ctxjax import cli, processes
from ctxjax import train as program
from ctxjax.config import ConfigError
from tests.engine import outside

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


def arguments(corpus, workdir, *flags):
    return ["--config", f"tests/engine/outside.py:corpus={corpus}", "--workdir", str(workdir), *flags]


def train(corpus, workdir, *flags):
    """The exit code of the program, in this process."""
    with pytest.raises(SystemExit) as stop:
        cli.main_guard(lambda: program.main(arguments(corpus, workdir, *flags)))
    return stop.value.code


def test_a_run_from_the_shell_and_again(corpus, tmp_path, capfd):
    flags = ("--config.total=6 steps", "--config.log_every=3 steps", "--peak-flops=1e12")
    environment = os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    command = [sys.executable, "-m", "ctxjax.train", *arguments(corpus, tmp_path, *flags)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert any(line.startswith("step 3/6  loss 3.") and line.endswith(" left") for line in lines)
    assert any("heldout/next_perplexity" in line for line in lines) and lines[-1] == "step 6 of 6: done"
    assert '"peak_fraction"' in (tmp_path / "metrics.jsonl").read_text()
    assert not done.stdout
    assert train(corpus, tmp_path, *flags) == 0
    assert "nothing to do: all 6 steps are done" in capfd.readouterr().err


def test_a_mistake_is_one_sentence_and_exit_code_2(corpus, tmp_path, capfd):
    for flag, words in [
        (
            "--config.model.vocab_size=99",
            "config.model.vocab_size=99 is not the corpus's: set --config.model.vocab_size=23",
        ),
        ("--config.model.widht=9", "unknown config field 'model.widht'; did you mean 'model.width'?"),
        ("--config.total=soon", "config.total='soon' is not a length such as '100 steps' (units: "),
        ("--stop-at=0", "--stop-at=0 must be at least 1"),
    ]:
        assert train(corpus, tmp_path / "run", flag) == 2
        captured = capfd.readouterr()
        assert captured.err.startswith(f"error: {words}") and captured.err.count("\n") == 1 and not captured.out
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_exit_code_3(corpus, tmp_path, capfd):
    assert train(corpus, tmp_path, "--config.source.poison_to=100", "--config.max_skipped=4") == 3
    errors = capfd.readouterr().err
    last = errors.splitlines()[-1]
    assert last.startswith("error: 4 steps in a row, up to about step ") and "config.max_skipped" in last
    assert "Traceback" not in errors


def test_ctrl_c_and_a_bug_are_told_apart(capfd):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        cli.main_guard(interrupted)
    assert stop.value.code == 130 and capfd.readouterr().err == "interrupted\n"
    with pytest.raises(ValueError, match="a bug"):
        cli.main_guard(lambda: (_ for _ in ()).throw(ValueError("a bug")))


def test_processes_that_are_only_half_described(monkeypatch):
    monkeypatch.setenv("CTXJAX_COORDINATOR", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="CTXJAX_NUM_PROCESSES and CTXJAX_PROCESS_ID must be set to a number"):
        processes.initialize()


@pytest.mark.parametrize(
    "environment, kind",
    [
        ({}, None),
        ({"CTXJAX_COORDINATOR": "a:1"}, "ctxjax"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, "slurm"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # the shell of sbatch
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, "tpu"),
    ],
)
def test_who_asks_for_several_processes(environment, kind):
    assert processes.wanted(environment) == kind


def test_the_compile_cache_is_private(tmp_path):
    script = (
        "import jax, os; from ctxjax import processes; processes.cache_compilations()\n"
        "folder = jax.config.jax_compilation_cache_dir; print(folder, oct(os.stat(folder).st_mode & 0o777))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(tmp_path / "ctxjax" / "compiled"), "0o700"], done.stderr
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split()[0] == str(tmp_path), "a folder that was chosen is left alone"
