"""launch/tpu_pod.sh against a cloud of folders: it waits, starts, asks again for what is taken away, and gives up.

The workers' side is run for real: detached processes, their exit codes, and what ends them.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.programs.stubs import NASTY, ROOT, stub

SCRIPT = "launch/tpu_pod.sh"
POD = ("--name", "mini-1", "--zone", "us-x1-a")
ASKED = (*POD, "--type", "v5litepod-16", "--poll", "0.1")
WORDS = "import json, os, sys; print(json.dumps(sys.argv[1:])); open('ran', 'a').write('x'); sys.exit({})"


class Cloud:
    """The fake cloud, and what was asked of it."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        stub(self.bin, "git", f'for w; do case $w in --output=*) tar -czf "${{w#*=}}" -C "{ROOT}" LICENSE;; esac; done')
        python = f'mkdir -p .venv/bin; ln -sf "{sys.executable}" .venv/bin/python'  # what uv would make
        stub(self.bin, "python3", f'case "$*" in *venv*) {python};; esac')
        program = self.bin / "gcloud"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{ROOT}/tests/programs/gcloud.py" "$@"\n')
        program.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOUD": str(folder),
            "TMPDIR": str(folder),
        }
        self.plan("none", "ACTIVE")

    def plan(self, *states):
        (self.folder / "plan.json").write_text(json.dumps(states))

    def __call__(self, *words):
        command = ["bash", ROOT / SCRIPT, *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )

    def calls(self):
        path = self.folder / "calls.jsonl"
        return [json.loads(line)[2:] for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self):
        """What was asked, in short; looks left out."""
        short = []
        for service, verb, *words in self.calls():
            text = " ".join(words)
            if service == "tpu-vm":
                kinds = {"pip install": "install", "setsid": "start", "echo running": "", "cat ctxjax-runs": "logs"}
                verb = next((kind for mark, kind in kinds.items() if mark in text), verb)
            short += [verb] if verb and verb != "describe" else []
        return short

    def worker(self, number):
        return self.folder / f"worker{number}"


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    for pid in tmp_path.glob("worker*/ctxjax-runs/*/pid"):
        subprocess.run(["kill", "-KILL", "--", f"-{pid.read_text().strip()}"], stderr=subprocess.DEVNULL)


def python(code):
    return ("python", "-c", WORDS.format(code))


def test_a_run_from_request_to_logs(cloud):
    cloud.plan("none", "WAITING_FOR_RESOURCES", "PROVISIONING", "silent", "ACTIVE")
    setup = ("--setup", "echo 'set; up' >there")
    done = cloud("run", *ASKED, "--spot", "--project", "p-1", *setup, "--", *python(0), *NASTY)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["create", "scp", "install", "ssh", "start", "logs", "delete"]
    create = next(words for words in cloud.calls() if words[1] == "create")
    assert create[2:] == [
        *("mini-1", "--zone=us-x1-a", "--project=p-1", "--node-id=mini-1", "--accelerator-type=v5litepod-16"),
        *("--runtime-version=tpu-ubuntu2204-base", "--spot"),
    ]
    delete = cloud.calls()[-1]
    assert delete == ["queued-resources", "delete", "mini-1", "--zone=us-x1-a", "--project=p-1", "--force", "--quiet"]
    for worker in range(2):
        assert json.loads((cloud.folder / "mini-1-logs" / f"{worker}.log").read_text()) == NASTY
    for said in ("WAITING_FOR_RESOURCES", "PROVISIONING", "started", "done"):
        assert f"mini-1: {said}\n" in done.stderr


def test_what_the_dry_run_prints_is_what_is_done(cloud):
    words = ("run", *ASKED, "--setup", "echo 'set; up' >there", "--", *python(0), *NASTY)
    dry = cloud("run", "--dry-run", *words[1:])
    assert dry.returncode == 0 and dry.stderr == "" and cloud.calls() == []
    assert sorted(path.name for path in cloud.folder.iterdir()) == ["bin", "plan.json"]
    subprocess.run(
        ["bash", "-c", dry.stdout], cwd=cloud.folder, env=cloud.environment, capture_output=True, timeout=300
    )
    pasted = cloud.calls()
    (cloud.folder / "calls.jsonl").unlink()
    cloud.plan("none", "ACTIVE")
    assert cloud(*words).returncode == 0
    once = lambda calls: sorted({json.dumps(call) for call in calls})
    assert once(pasted) == once(cloud.calls())


def test_what_is_taken_away_is_asked_for_again_as_often_as_need_be(cloud):
    cloud.plan("none", "ACTIVE", "SUSPENDED", "none", "ACTIVE", "SUSPENDING", "none", "ACTIVE", "ACTIVE")
    tries = (
        f"import os, sys; path = '{cloud.folder}/tries-of-' + os.path.basename(os.environ['HOME']); "
        "open(path, 'a').write('x'); sys.exit(143 if os.path.getsize(path) < 3 else 0)"
    )
    done = cloud("run", *ASKED, "--retries", "0", "--", "python", "-c", tries)
    assert done.returncode == 0, done.stderr
    pod = ["create", "scp", "install", "start"]
    assert cloud.verbs() == [*pod, "delete", *pod, "delete", *pod, "logs", "delete"]
    assert "SUSPENDED: taken away; asking again" in done.stderr


def test_what_fails_is_started_again_on_the_same_pod_until_it_gives_up(cloud):
    done = cloud("run", *ASKED, "--retries", "1", "--keep", "--", *python(1))
    assert done.returncode == 1 and done.stderr.endswith("mini-1: gave up after 2 failures in a row\n")
    assert cloud.verbs() == ["create", *["scp", "install", "start"] * 2, "logs"]
    assert (cloud.worker(0) / "ctxjax" / "ran").read_text() == "xx"


@pytest.mark.parametrize("code", [2, 3])
def test_mistakes_end_it_at_once(cloud, code):
    done = cloud("run", *ASKED, "--", *python(code))
    assert done.returncode == code and cloud.verbs()[-3:] == ["start", "logs", "delete"]
    assert cloud.verbs().count("start") == 1


def test_a_request_that_fails_is_made_again_and_given_up(cloud):
    cloud.plan("none", "FAILED", "none", "FAILED")
    done = cloud("run", *ASKED, "--retries", "1", "--", *python(0))
    assert done.returncode == 1 and "gave up after 2 failures in a row" in done.stderr
    assert cloud.verbs() == ["create", "delete", "create", "delete", "logs", "delete"]


def test_without_answers_it_gives_up_and_leaves_the_pod_alone(cloud):
    cloud.plan("silent")
    done = cloud("run", *ASKED, "--", *python(0))
    assert done.returncode == 1 and done.stderr.endswith("error: gcloud gave no answer about mini-1 5 times in a row\n")
    assert cloud.verbs() == []
    cloud.plan("SUSPENDED")
    done = cloud("wait", *POD)
    assert done.returncode == 1 and done.stderr == "error: mini-1 is SUSPENDED and will not become ACTIVE\n"


def test_run_follows_what_already_runs_and_start_ends_it(cloud):
    cloud.plan("ACTIVE")
    assert cloud("install", *POD).returncode == 0
    assert cloud("start", *POD, "--", "sleep", "600").returncode == 0
    first = (cloud.worker(0) / "ctxjax-runs" / "mini-1" / "pid").read_text().strip()
    assert cloud("state", *POD).stdout.split() == ["ACTIVE", "running"]
    assert subprocess.run(["pgrep", "-g", first], stdout=subprocess.DEVNULL).returncode == 0
    waiting = ("sh", "-c", "echo at work; until [ -e end ]; do sleep 0.1; done")
    assert cloud("start", *POD, "--", *waiting).returncode == 0
    assert subprocess.run(["pgrep", "-g", first], stdout=subprocess.DEVNULL).returncode == 1
    (cloud.folder / "calls.jsonl").unlink()
    command = ["bash", ROOT / SCRIPT, "run", *ASKED, "--keep", "--", *waiting]
    with subprocess.Popen(command, cwd=cloud.folder, env=cloud.environment, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr.readline().endswith("mini-1: at work\n")
        for worker in range(2):
            (cloud.worker(worker) / "ctxjax" / "end").touch()
        assert run.stderr.read().endswith("mini-1: done\n")
    assert run.returncode == 0 and cloud.verbs() == ["logs"]


def test_each_runs_one_shell_command_on_every_worker(cloud):
    assert cloud("install", *POD).returncode == 0
    done = cloud("each", *POD, "--", "echo $((1 + 2)) >three; pwd")
    assert done.returncode == 0 and [line[-14:] for line in done.stdout.split()] == ["worker0/ctxjax", "worker1/ctxjax"]
    assert (cloud.worker(1) / "ctxjax" / "three").read_text() == "3\n"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--zone", "z", "--type", "t", "--", "python"),
        ("run", "--name", "a b", "--zone", "z", "--type", "t", "--", "python"),
        ("run", "--name", "a;b", "--zone", "z", "--type", "t", "--", "python"),
        ("run", "--name", "a", "--type", "t", "--", "python"),
        ("run", "--name", "a", "--zone", "z", "--", "python"),
        ("run", "--name", "a", "--zone", "z", "--type", "t"),
        ("delete", "--name", "a", "--zone", "z", "--", "python"),
        ("delete", "--name", "a", "--zone"),
        ("delete", "--name", "a", "--zone", "z", "--force"),
        ("wait", "--name", "a", "--zone", "z", "--poll", "soon"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_asked(cloud, words):
    done = cloud(*words)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert cloud.calls() == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_knows_every_command_and_flag(tmp_path):
    """It parses a command before it looks for an account, of which there is none."""
    dry = subprocess.run(
        ["bash", ROOT / SCRIPT, "run", "--dry-run", *ASKED, "--project", "p", "--spot", "--", "python"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    environment = os.environ | {
        "CLOUDSDK_CONFIG": str(tmp_path / "config"),
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }
    only = "git() { :; }\n" + dry
    done = subprocess.run(["bash", "-c", only], cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == dry.count("gcloud compute") and all("active account" in line for line in errors), done.stderr
