"""A Google Cloud of one TPU pod with two workers, which are folders here: what `gcloud` is in the tests of tpu_pod.sh.

The folder CLOUD has plan.json, the answers to `describe` in turn, the last of them for ever ("none" is NOT_FOUND,
"silent" an error); every call is noted in calls.jsonl. What goes to a worker by ssh is run, with the worker's folder
for a home.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

CLOUD = pathlib.Path(os.environ["CLOUD"])
WORKERS = 2


def flag(words: list[str], name: str) -> str | None:
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), None)


def describe() -> int:
    plan = json.loads((CLOUD / "plan.json").read_text())
    (CLOUD / "plan.json").write_text(json.dumps(plan[1:] or plan))
    if plan[0] == "silent":
        print("ERROR: no route to host", file=sys.stderr)
    elif plan[0] == "none":
        print("ERROR: (gcloud.describe) NOT_FOUND: Resource 'x' was not found", file=sys.stderr)
    else:
        print(plan[0])
        return 0
    return 1


def ssh(words: list[str]) -> int:
    wanted, code = flag(words, "--worker"), 0
    folder = flag(words, "--output-directory")
    for worker in range(WORKERS) if wanted == "all" else [int(wanted or 0)]:
        home = CLOUD / f"worker{worker}"
        home.mkdir(exist_ok=True)
        command = ["bash", "-c", flag(words, "--command") or ""]
        done = subprocess.run(command, cwd=home, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True)
        sys.stderr.write(done.stderr)
        if folder:
            (pathlib.Path(folder) / f"{worker}.log").write_text(done.stdout)
        else:
            sys.stdout.write(done.stdout)
        code = code or done.returncode
    return code


def scp(words: list[str]) -> int:
    for worker in range(WORKERS):
        home = CLOUD / f"worker{worker}"
        home.mkdir(exist_ok=True)
        shutil.copy(words[0], home / words[1].partition(":")[2])
    return 0


def main(words: list[str]) -> int:
    with open(CLOUD / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(words) + "\n")
    service, verb = words[2], words[3]
    if (service, verb) == ("queued-resources", "describe"):
        return describe()
    if (service, verb) == ("queued-resources", "delete"):
        for home in CLOUD.glob("worker*"):
            shutil.rmtree(home)
    if service == "tpu-vm":
        return {"ssh": ssh, "scp": scp}[verb](words[4:] if verb == "scp" else words[5:])
    return 0


sys.exit(main(sys.argv[1:]))
