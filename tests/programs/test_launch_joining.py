"""Processes find one another by what Slurm, GKE and TPU machines tell them, with jax.distributed's own detection."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

from ctxjax import processes
from tests.programs.stubs import ROOT

SHOW = """
import os
import jax
from ctxjax import processes
if "GCE_METADATA_IP" in os.environ:
    os.environ.pop("TPU_SKIP_MDS_QUERY", None)  # JAX has set it, since no chip is there
processes.initialize(force={force})
print(jax.process_index(), jax.process_count(), len(jax.devices()), jax.config.read("jax_cuda_visible_devices"))
print(processes.agree("word", lambda: "said by 0"))
processes.shutdown()
"""
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_LOCALID": "0"}
SLURM |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def joined(*environments, force=False):
    """What processes with these environments say."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "TPU", "CTXJAX"))}
    base |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    base |= {"JAX_COORDINATOR_PORT": free_port()}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHOW.format(force=force)],
            env=base | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    try:
        outputs = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(started), outputs
    return [output.split("\n")[:2] for output, _ in outputs]


def test_what_asks_for_several_processes():
    assert processes.wanted({}) is None
    assert processes.wanted({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) is None, "sbatch's own shell"
    assert processes.wanted(SLURM) == "slurm" and processes.wanted(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert processes.wanted({"TPU_WORKER_HOSTNAMES": "a,b"}) == "tpu"
    assert processes.wanted({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert processes.wanted({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_WORKER_HOSTNAMES": "a"}) == "tpu"
    assert processes.wanted({"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "localhost"}) is None
    assert processes.wanted({"MEGASCALE_COORDINATOR_ADDRESS": "a", "TPU_WORKER_HOSTNAMES": "localhost"}) == "tpu"
    assert processes.wanted(SLURM | {processes.COORDINATOR: "a:1"}) == "ctxjax"


def test_a_task_of_slurm_has_all_gpus_of_its_node_or_those_it_is_bound_to():
    assert processes.of_slurm(SLURM) == {"num_processes": 2, "local_device_ids": []}
    shared = SLURM | {"SLURM_STEP_NUM_TASKS": "16"}
    assert processes.of_slurm(shared) == {"num_processes": 16}, "JAX gives each the GPU of its number"
    assert processes.of_slurm(shared | {"SLURM_GPUS_PER_TASK": "1"}) == {"num_processes": 16, "local_device_ids": []}
    assert processes.of_slurm(SLURM | {"JAX_LOCAL_DEVICE_IDS": "0,1"}) == {"num_processes": 2}


def test_tasks_of_slurm_join_and_keep_all_their_gpus():
    lines = joined(*(SLURM | {"SLURM_PROCID": str(index)} for index in range(2)))
    assert lines == [["0 2 2 all", "said by 0"], ["1 2 2 all", "said by 0"]]


@pytest.mark.slow
def test_processes_of_local_join_within_a_slurm_step_of_another_kind():
    port = free_port()
    ours = {processes.COORDINATOR: f"127.0.0.1:{port}", processes.COUNT: "2"}
    lines = joined(*(SLURM | {"SLURM_PROCID": "1"} | ours | {processes.INDEX: str(index)} for index in range(2)))
    assert lines == [["0 2 2 all", "said by 0"], ["1 2 2 all", "said by 0"]]


@pytest.mark.slow
def test_hosts_of_gke_join():
    """JAX_FORCE_TPU_INIT: as on a machine with TPUs. Two slices of one host, as JobSet and GKE describe them."""
    pytest.importorskip("requests")
    gke = {
        "JAX_FORCE_TPU_INIT": "1",
        "TPU_SKIP_MDS_QUERY": "true",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    gke |= {"MEGASCALE_COORDINATOR_ADDRESS": "localhost", "MEGASCALE_NUM_SLICES": "2"}
    lines = joined(*(gke | {"MEGASCALE_SLICE_ID": str(index)} for index in range(2)))
    assert [line[0].split()[:3] for line in lines] == [["0", "2", "2"], ["1", "2", "2"]]
    assert [line[1] for line in lines] == ["said by 0"] * 2


class Metadata(http.server.BaseHTTPRequestHandler):
    """What a TPU machine's metadata server says, to the worker whose number the server has."""

    def do_GET(self):
        said = {
            "agent-worker-number": str(self.server.worker),
            "worker-network-endpoints": "unknown:a:127.0.0.1,unknown:b:127.0.0.1",
            "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'",
        }
        answer = said[self.path.rpartition("/")[2]].encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


@pytest.mark.slow
def test_hosts_of_a_tpu_pod_join_with_distributed():
    """By the metadata server of each machine, which is asked only where --distributed says that there are others."""
    pytest.importorskip("requests")
    servers = []
    for worker in range(2):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        server.worker = worker
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    try:
        addresses = [f"127.0.0.1:{server.server_address[1]}" for server in servers]
        lines = joined(*({"JAX_FORCE_TPU_INIT": "1", "GCE_METADATA_IP": one} for one in addresses), force=True)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    assert [line[0].split()[:3] for line in lines] == [["0", "2", "2"], ["1", "2", "2"]]
    assert [line[1] for line in lines] == ["said by 0"] * 2
