"""launch/slurm.sbatch submits what it prints, and requeues what was stopped or failed and nothing else."""

import os
import pathlib
import shutil
import subprocess

import pytest

from tests.programs.stubs import NASTY, ROOT, recorded, stub

SCRIPT = "launch/slurm.sbatch"


@pytest.fixture
def bin(tmp_path):
    folder = tmp_path / "bin"
    for name in ("sbatch", "scontrol"):
        stub(folder, name)
    stub(folder, "srun", 'while [ "${1#--}" != "$1" ]; do shift; done\n"$@"')
    return folder


def bash(bin, *words, **more):
    environment = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}"} | more
    return subprocess.run(["bash", *words], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_what_the_dry_run_prints_is_what_is_submitted(bin):
    words = [SCRIPT, "submit", "--nodes=4", "--comment=two words; 'here'", "--", "python", "-m", "x", *NASTY]
    dry = bash(bin, *words[:2], "--dry-run", *words[2:])
    assert dry.returncode == 0 and recorded(bin, "sbatch") == []
    assert bash(bin, "-c", dry.stdout).returncode == bash(bin, *words).returncode == 0
    pasted, submitted = recorded(bin, "sbatch")
    assert pasted == submitted
    assert submitted == ["--nodes=4", "--comment=two words; 'here'", SCRIPT, "run", "python", "-m", "x", *NASTY]


def job(bin, folder, *command, **more):
    environment = {"SLURM_JOB_ID": "77"} | more
    path = {"PATH": f"{bin}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", ROOT / SCRIPT, "run", *command],
        cwd=folder,
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
    )


def test_the_job_runs_the_command_word_by_word(bin, tmp_path):
    done = job(bin, tmp_path, "printf", "<%s>", *NASTY, SLURM_CPUS_PER_TASK="6")
    assert done.returncode == 0 and done.stdout == "".join(f"<{word}>" for word in NASTY)
    assert recorded(bin, "srun") == [["--kill-on-bad-exit=1", "printf", "<%s>", *NASTY]]
    assert recorded(bin, "scontrol") == []


@pytest.mark.parametrize("code", [0, 2, 3])
def test_what_has_ended_is_not_requeued(bin, tmp_path, code):
    assert job(bin, tmp_path, "sh", "-c", f"exit {code}").returncode == code
    assert recorded(bin, "scontrol") == []


def test_what_was_stopped_is_requeued_every_time(bin, tmp_path):
    for _ in range(5):
        assert job(bin, tmp_path, "sh", "-c", "exit 143").returncode == 0
    assert recorded(bin, "scontrol") == [["requeue", "77"]] * 5


def test_failures_are_requeued_three_times_in_a_row_and_counted_anew_after_a_stop(bin, tmp_path):
    for code in (1, 1, 143, 1, 1, 137):
        assert job(bin, tmp_path, "sh", "-c", f"exit {code}").returncode == 0
    assert len(recorded(bin, "scontrol")) == 6
    last = job(bin, tmp_path, "sh", "-c", "exit 1")
    assert last.returncode == 1 and "fourth time in a row; not requeued" in last.stderr
    assert len(recorded(bin, "scontrol")) == 6 and list(tmp_path.glob("*.failures")) == []


def test_mistakes_are_one_sentence(bin):
    for words in ([], ["submit", "--nodes=2"], ["submit", "--nodes=2", "--"], ["run"], ["python"]):
        done = bash(bin, SCRIPT, *words)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_slurm_is_told_to_stop_the_tasks_in_time():
    """SIGTERM, which ctxjax saves on; and without B:, which would signal the shell alone."""
    options = [line.split()[1] for line in (ROOT / SCRIPT).read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--signal=TERM@300", "--requeue", "--ntasks-per-node=1", "--open-mode=append"} <= set(options)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_pod.sh"])
def test_shellcheck(name):
    done = subprocess.run(["shellcheck", pathlib.Path("launch") / name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
