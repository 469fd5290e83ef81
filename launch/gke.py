#!/usr/bin/env python3
"""Start a run on TPU slices of Google Kubernetes Engine, as a JobSet made from launch/gke_jobset.yaml.

    python launch/gke.py --name mini --image REGION-docker.pkg.dev/PROJECT/REPO/ctxjax \\
        --accelerator tpu-v5-lite-podslice --topology 4x8 -- \\
        python -m ctxjax.train --config FILE.py:ARG --workdir gs://BUCKET/mini

--dry-run prints the kubectl command with the JobSet, to be pasted, and starts nothing. The cluster is the one that
kubectl talks to, with JobSet 0.6 or newer installed; launch/Dockerfile makes an image.

    kubectl get jobset mini                                                        # how it stands
    kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=mini           # what it says
    kubectl delete jobset mini                                                     # end it
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import re
import string
import subprocess
import sys
from collections.abc import Sequence

TEMPLATE = pathlib.Path(__file__).with_name("gke_jobset.yaml")
CREATE = "kubectl create --filename=-"


def hosts_of(topology: str, chips: int) -> int:
    """Hosts of a slice: `4x8` with 4 chips a host are 8.

    Raises:
      ValueError: what is no topology, or does not divide.
    """
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}", topology):
        raise ValueError(f"--topology {topology} is not of the form 4x8 or 4x4x8")
    hosts, rest = divmod(math.prod(map(int, topology.split("x"))), chips)
    if rest:
        raise ValueError(f"--topology {topology} is no whole number of hosts of {chips} chips; give --chips")
    return hosts


def render(args: argparse.Namespace, command: Sequence[str]) -> str:
    """The JobSet as YAML."""
    nodes = {
        "cloud.google.com/gke-tpu-accelerator": args.accelerator,
        "cloud.google.com/gke-tpu-topology": args.topology,
    }
    if args.spot:
        nodes["cloud.google.com/gke-spot"] = "true"
    values = {
        "name": args.name,
        "image": args.image,
        "nodes": nodes,
        "slices": args.slices,
        "hosts": hosts_of(args.topology, args.chips),
        "chips": args.chips,
        "restarts": args.restarts,
        "service_account": args.service_account,
        "command": [word.replace("$", "$$") for word in command],  # Kubernetes expands $(NAME), and reads $$ as $
    }
    text = "".join(line for line in TEMPLATE.read_text().splitlines(keepends=True) if not line.startswith("#"))
    return string.Template(text).substitute({name: json.dumps(value) for name, value in values.items()})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the JobSet: small letters, digits and -")
    parser.add_argument("--image", required=True, help="container image with ctxjax in it")
    parser.add_argument("--accelerator", required=True, help="as in tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice")
    parser.add_argument("--topology", required=True, help="chips of a slice, as in 4x8")
    parser.add_argument("--chips", type=int, default=4, help="chips of one host")
    parser.add_argument("--slices", type=int, default=1, help="slices, joined by the data centre's network")
    parser.add_argument("--spot", action="store_true", help="on Spot node pools, which may be taken away")
    parser.add_argument(
        "--service-account", default="default", help="Kubernetes service account that may use the bucket"
    )
    parser.add_argument("--restarts", type=int, default=100, help="how often all starts again when a host is lost")
    parser.add_argument("--dry-run", action="store_true", help="print the command and stop")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- program and its arguments")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("give a command after --")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", args.name):
        parser.error(f"--name {args.name!r}: small letters, digits and -, at most 40")
    if min(args.chips, args.slices, args.restarts + 1) < 1:
        parser.error("--chips and --slices are 1 or more, --restarts 0 or more")
    try:
        text = render(args, command)
    except ValueError as error:
        parser.error(str(error))
    if args.dry_run:
        print(f"{CREATE} <<'END_OF_JOBSET'\n{text}END_OF_JOBSET")
        return 0
    try:
        return subprocess.run(CREATE.split(), input=text, text=True).returncode
    except FileNotFoundError:
        print("error: kubectl is not installed", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
