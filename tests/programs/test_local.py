"""Two real processes under jax.distributed train, save, stop and die together."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, digests, loop, metrics, progress
from tests.engine import outside

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = [sys.executable, str(ROOT / "launch" / "local.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}


@contextlib.contextmanager
def running(command, **options):
    """A process that does not outlive its test."""
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()  # its children follow


def train(corpus, workdir, *flags):
    config = f"tests/engine/outside.py:corpus={corpus}"
    command = [sys.executable, "-m", "ctxjax.train", "--config", config, "--workdir", str(workdir), *flags]
    return running([*LAUNCH, "-n", "2", "--devices", "2", "--", *command])


def wait_for_step(process, step):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"step {step}/"):
            return
    pytest.fail("".join(lines))


def children(process):
    """Process ids of the launched processes, in order."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


def losses(workdir):
    return {line["step"]: line["loss"] for line in metrics.read(workdir) if "loss" in line}


@pytest.fixture(scope="module")
def two(corpus, tmp_path_factory):
    """12 steps by 2 processes of 2 devices each."""
    workdir = tmp_path_factory.mktemp("two")
    with train(corpus, workdir, "--stop-at", "12", "--config.mesh.fsdp=2") as process:
        output = process.stderr.read()
        assert process.wait(timeout=120) == 0, output
    assert output.count("1,287 parameters") == 1, "one process speaks"
    return workdir


def test_two_processes_train_and_save_as_one(corpus, two, tmp_path):
    """They give the losses and the checkpoint of one process."""
    config = outside.get_config(f"corpus={corpus}").lock()
    loop.train(config, tmp_path, stop_at=12, devices=jax.devices()[:1])
    want, have = losses(tmp_path), losses(two)
    assert list(have) == list(want) == list(range(1, 13))
    np.testing.assert_allclose(list(have.values()), list(want.values()), rtol=1e-5)
    ours, theirs = checkpoint.read(tmp_path)[0], checkpoint.read(two)[0]
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=1e-6)


def test_one_process_continues_two_continue_and_sigterm_stops_both_at_the_same_step(corpus, two):
    config = outside.get_config(f"corpus={corpus}").lock()
    assert loop.train(config, two, stop_at=14, devices=jax.devices()[:4]) == 0
    flags = ("--config.total=1000000 steps", "--config.save_every=1000000 steps", "--config.eval_every=1000000 steps")
    with train(corpus, two, *flags) as process:
        wait_for_step(process, 24)
        pids = children(process)
        began = time.monotonic()
        os.kill(pids[1], signal.SIGTERM)  # a notice to one of them is a notice to all
        output = process.stderr.read()
        assert process.wait(timeout=60) == progress.PREEMPTED, output
        assert time.monotonic() - began < 15
    assert "continuing from step 14" in (two / "train.log").read_text()
    step = checkpoint.read(two)[1]["step"]
    assert step >= 24 and digests.steps(two / "checkpoints") == [12, 14, step]
    assert not any(alive(pid) for pid in pids)


def test_when_one_dies_the_other_is_ended_and_the_dead_is_named(corpus, tmp_path):
    with train(corpus, tmp_path, "--config.total=1000000 steps") as process:
        wait_for_step(process, 10)
        pids = children(process)
        began = time.monotonic()
        os.kill(pids[1], signal.SIGKILL)
        output = process.stderr.read()
        assert process.wait(timeout=60) == 128 + 9
        assert time.monotonic() - began < 15
    assert "process 1 of 2 was killed by SIGKILL" in output
    assert not any(alive(pid) for pid in pids)


SLEEPER = "import os, time; os.write(1, b'up' + bytes([10])); time.sleep(600)"


def launch(*command, count=2):
    return running([*LAUNCH, "-n", str(count), "--", *command], stdout=subprocess.PIPE)


def test_nothing_is_left_when_the_launcher_is_killed():
    with launch(sys.executable, "-c", SLEEPER) as process:
        assert process.stdout.readline() == process.stdout.readline() == "up\n"
        pids = children(process)
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        process.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_exit_codes_and_environment():
    names = "os.environ['CTXJAX_PROCESS_ID'] + ' ' + os.environ['CTXJAX_NUM_PROCESSES']"
    show = f"import os, sys; os.write(1, ({names} + chr(10)).encode()); sys.exit({{}})"
    with launch(sys.executable, "-c", show.format(0), count=3) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and sorted(output.split("\n")) == ["", "0 3", "1 3", "2 3"]
    with launch(sys.executable, "-c", show.format(5)) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 5 and "ended with exit code 5" in errors


def test_what_the_dry_run_prints_is_what_is_started():
    show = "import os, sys; os.write(1, (os.environ['CTXJAX_PROCESS_ID'] + f' {sys.argv[1:]}\\n').encode())"
    command = [*LAUNCH, "-n", "2", "--dry-run", "--", sys.executable, "-c", show, "a;rm -rf $HOME", "it's", ""]
    dry = subprocess.run(command, env=ENVIRONMENT | {"XLA_FLAGS": "--a=1 --b"}, capture_output=True, text=True)
    assert dry.returncode == 0 and "'XLA_FLAGS=--a=1 --b'" in dry.stdout
    done = subprocess.run(["bash", "-c", dry.stdout], capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == [f"{index} ['a;rm -rf $HOME', \"it's\", '']" for index in range(2)]
