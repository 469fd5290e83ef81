"""launch/gke.py makes a JobSet that its API knows, whatever stands in the command, and hands it to kubectl."""

import copy
import os
import re
import subprocess
import sys

import pytest

from tests.programs.jobset import JOBSET
from tests.programs.stubs import NASTY, ROOT, recorded, stub
from tests.scripts import opened

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")
BASE = ("--name=mini", "--image=reg/p/i:1", "--accelerator=tpu-v5-lite-podslice", "--topology=4x8")


@pytest.fixture(scope="module")
def gke():
    return opened(ROOT / "launch" / "gke.py")


@pytest.fixture
def made(gke, capsys):
    def make(*flags, command=("python",)):
        assert gke.main([*BASE, *flags, "--dry-run", "--", *command]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "kubectl create --filename=- <<'END_OF_JOBSET'" and lines[-1] == "END_OF_JOBSET"
        return yaml.safe_load("\n".join(lines[1:-1]))

    return make


def job_of(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(jobset):
    return job_of(jobset)["template"]["spec"]


def expanded(word):
    """As Kubernetes reads a word of a command: `$$` is `$`, and `$(NAME)` a variable."""
    assert not re.search(r"(?<!\$)(?:\$\$)*\$\(", word), "a variable would be put in"
    return word.replace("$$", "$")


def test_the_jobset_is_one_that_the_api_knows(made):
    jobset = made("--slices=2", "--spot", "--service-account=trainer", command=NASTY)
    jsonschema.validate(jobset, JOBSET)
    job, pod = job_of(jobset), pod_of(jobset)
    assert jobset["metadata"]["name"] == "mini" and jobset["spec"]["replicatedJobs"][0]["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 8
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    container = pod["containers"][0]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}} and pod["serviceAccountName"] == "trainer"
    assert [expanded(word) for word in container["command"]] == NASTY
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and rule["onExitCodes"]["values"] == [2, 3]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda jobset: jobset["spec"]["failurePolicy"].update(maxRestart=3),
        lambda jobset: jobset["spec"]["failurePolicy"]["rules"][0].update(action="Fail"),
        lambda jobset: pod_of(jobset).update(restartPolicy="OnFailure"),
        lambda jobset: job_of(jobset).update(parallelism="8"),
        lambda jobset: pod_of(jobset)["containers"][0].update(command="python -m x"),
    ],
)
def test_the_schema_knows_mistakes(made, spoil):
    jobset = copy.deepcopy(made())
    spoil(jobset)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(jobset, JOBSET)


def lost(ours, theirs, path=""):
    """What a model of another's has dropped."""
    if isinstance(ours, dict):
        gone = [f"{path}/{name}" for name in ours if name not in theirs]
        return gone + [
            one for name in ours if name in theirs for one in lost(ours[name], theirs[name], f"{path}/{name}")
        ]
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        return [one for left, right in zip(ours, theirs) for one in lost(left, right, path)]
    return [] if ours == theirs else [path]


def test_the_jobset_is_one_that_published_clients_know(made):
    """Their models are made from the API's own description, and drop what it does not have."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    jobset = made("--spot", command=NASTY)
    jobset["spec"]["failurePolicy"]["maxRestart"] = 3
    model = models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(jobset))
    assert lost(jobset, model.to_dict()) == ["/spec/failurePolicy/maxRestart"]


def test_hosts_are_chips_by_those_of_a_host(made, gke):
    assert job_of(made("--topology=4x4x8", "--accelerator=tpu-v5p-slice"))["completions"] == 32
    assert job_of(made("--topology=2x4", "--chips=8"))["completions"] == 1
    for topology in ("4x", "4x8x2x1", "0x4", "4*8"):
        with pytest.raises(ValueError, match="is not of the form 4x8"):
            gke.hosts_of(topology, 4)
    with pytest.raises(ValueError, match="no whole number of hosts of 8 chips"):
        gke.hosts_of("2x2", 8)


def test_what_the_dry_run_prints_is_what_kubectl_gets(tmp_path):
    stub(tmp_path / "bin", "kubectl", f"cat >>'{tmp_path}/stdin'")
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    program = [sys.executable, ROOT / "launch" / "gke.py", *BASE]

    def read(command, **more):
        (tmp_path / "stdin").write_text("")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, **more)
        return done.stdout, (tmp_path / "stdin").read_text()

    dry, nothing = read([*program, "--dry-run", "--", *NASTY])
    assert nothing == "" and recorded(tmp_path / "bin", "kubectl") == []
    _, pasted = read(["bash"], input=dry)
    _, given = read([*program, "--", *NASTY])
    assert (
        pasted == given
        and [expanded(word) for word in pod_of(yaml.safe_load(given))["containers"][0]["command"]] == NASTY
    )
    assert recorded(tmp_path / "bin", "kubectl") == [["create", "--filename=-"]] * 2


@pytest.mark.parametrize("flags", [["--name=Mini"], ["--name=a b"], ["--name=x;y"], ["--topology=4"], ["--slices=0"]])
def test_mistakes_are_told_before_anything_is_asked_of_the_cluster(gke, flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        gke.main([*BASE, *flags, "--", "python"])
    assert stopped.value.code == 2 and flags[0].split("=")[0] in capsys.readouterr().err
