#!/usr/bin/env python3
"""Run a program as several processes on this machine, joined by jax.distributed: a pod in small, on CPU cores.

    python launch/local.py -n 2 --devices 2 -- python -m ctxjax.train --config FILE.py --workdir DIR

When one process fails, it is named and the others are ended within 15 seconds; when all end well, so does this. SIGTERM
and Ctrl-C go to every process, which save and stop. Nothing is left running, not even when this launcher is killed.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE = 10.0  # seconds between SIGTERM and SIGKILL when one process has failed
STOPPED = (143, 130)  # saved and stopped because it was told to: the others are doing the same


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """In the child: its own process group, and SIGKILL when the launcher is gone (Linux)."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def environments(count: int, devices: int, heartbeat: int) -> list[dict[str, str]]:
    """What tells `count` processes apart: variables of each that are set besides ours."""
    common = {
        "CTXJAX_COORDINATOR": f"127.0.0.1:{free_port()}",
        "CTXJAX_NUM_PROCESSES": str(count),
        "CTXJAX_HEARTBEAT_SECONDS": str(heartbeat),
    }
    if devices:
        flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
        common |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": " ".join(flags)}
    return [common | {"CTXJAX_PROCESS_ID": str(index)} for index in range(count)]


def start(command: Sequence[str], count: int, devices: int, heartbeat: int) -> list[subprocess.Popen[bytes]]:
    """Start `count` copies of a command, told apart by their environment."""
    return [
        subprocess.Popen(command, env=os.environ | environment, preexec_fn=_die_with_parent)
        for environment in environments(count, devices, heartbeat)
    ]


def send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Signal the process groups of those that still run."""
    for process in processes:
        if process.poll() is None:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass


def end(processes: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """SIGTERM, then SIGKILL to the groups of all, dead leaders included."""
    send(processes, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def watch(processes: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> int:
    """Wait for all; on the first failure say which and end the rest. Returns the exit code."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [index for index, code in enumerate(codes) if code not in (None, 0, *STOPPED)]
        if failed:
            code = codes[failed[0]]
            assert code is not None
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            print(f"launch: process {failed[0]} of {len(processes)} {how}; ending the others", file=sys.stderr)
            end(processes, grace)
            return 128 - code if code < 0 else code
        if None not in codes:
            return max(code for code in codes if code is not None)
        time.sleep(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--processes", type=int, required=True, help="how many processes")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of each process; 0 leaves devices to JAX")
    parser.add_argument("--heartbeat", type=int, default=10, help="seconds without a sign of life that mean death")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- program and its arguments")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command or args.processes < 1:
        parser.error("give -n 1 or more, and a command after --")
    if args.dry_run:
        import shlex

        for environment in environments(args.processes, args.devices, args.heartbeat):
            print(shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), *command]), "&")
        print("wait")
        return 0
    processes = start(command, args.processes, args.devices, args.heartbeat)
    forward = lambda number, frame: send(processes, number if number != signal.SIGINT else signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    try:
        return watch(processes)
    finally:
        end(processes, grace=0.0)


if __name__ == "__main__":
    sys.exit(main())
