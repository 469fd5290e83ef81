"""Starting JAX; several processes, one run: joining them, and agreeing on small things with a name and a deadline.

Agreement goes through the coordination service and never through a collective, so a process that is gone gives an
error that names what was waited for instead of a hang.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping
from typing import Any

from ctxjax.config import ConfigError

COORDINATOR = "CTXJAX_COORDINATOR"  # host:port of process 0, set by launch/local.py and friends
COUNT = "CTXJAX_NUM_PROCESSES"
INDEX = "CTXJAX_PROCESS_ID"
HEARTBEAT = "CTXJAX_HEARTBEAT_SECONDS"
TIMEOUT = 600
_asked: collections.Counter[str] = collections.Counter()


def wanted(environment: Mapping[str, str] = os.environ) -> str | None:
    """Which environment asks for several processes: `"ctxjax"`, `"slurm"`, `"tpu"`, or None."""
    if COORDINATOR in environment:
        return "ctxjax"
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # of srun; SLURM_NTASKS is in sbatch's own shell, too
        return "slurm"
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return "tpu"
    return None


def of_slurm(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What `jax.distributed.initialize` must be told under Slurm; it finds coordinator and rank by itself.

    Of its own accord JAX gives a task one GPU, that of its number within the node. One task a node is to have all of
    the node's, and a task that Slurm binds to GPUs (--gpus-per-task) all that it sees.
    """
    tasks, nodes = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment["SLURM_STEP_NUM_NODES"])
    whole = (tasks == nodes or "SLURM_GPUS_PER_TASK" in environment) and "JAX_LOCAL_DEVICE_IDS" not in environment
    return {"num_processes": tasks} | ({"local_device_ids": []} if whole else {})


def cache_compilations(folder: str | None = None) -> None:
    """Keep compiled programs in a private folder of the user's cache, so that the second start is quick.

    Nothing is changed where JAX_COMPILATION_CACHE_DIR or a caller has chosen a folder already. What is in the cache is
    executed: nobody else may write there.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = folder or os.path.join(cache, "ctxjax", "compiled")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError:
        return  # no writable home: compile every time
    jax.config.update("jax_compilation_cache_dir", folder)


def initialize(force: bool = False) -> None:
    """Join the other processes of the run where the environment says that there are some; before any device work.

    Args:
      force: join even where nothing says so (a TPU pod reached over ssh), and let JAX find the others.

    Raises:
      ConfigError: an incomplete environment.
    """
    import jax

    kind = wanted()
    heartbeat = int(os.environ.get(HEARTBEAT, "100"))
    if kind == "ctxjax":
        missing = [name for name in (COUNT, INDEX) if not os.environ.get(name, "").isdigit()]
        if missing:
            raise ConfigError(f"{COORDINATOR} is set, so {' and '.join(missing)} must be set to a number too")
        jax.distributed.initialize(
            coordinator_address=os.environ[COORDINATOR],
            num_processes=int(os.environ[COUNT]),
            process_id=int(os.environ[INDEX]),
            heartbeat_timeout_seconds=heartbeat,
            cluster_detection_method="deactivate",  # or Slurm and Kubernetes have a say in what has been said
        )
    elif kind or force:
        more = of_slurm() if kind == "slurm" else {}
        jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat, **more)


def shutdown() -> None:
    """Leave the other processes, once everybody is here."""
    import jax

    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def agree(name: str, decide: Callable[[], str], timeout: int = TIMEOUT) -> str:
    """Process 0 decides and every process gets its answer; an error of process 0 is raised in all of them.

    Args:
      name: what is agreed on, the same in every process; asked again, it is another question.
      decide: called on process 0 alone.
      timeout: seconds that the others wait.

    Raises:
      TimeoutError: process 0 did not answer in time.
    """
    import jax

    if jax.process_count() == 1:
        return decide()
    from jax._src import distributed  # the client has no public name; Orbax reaches for it in the same way

    _asked[name] += 1
    client, key = distributed.global_state.client, f"ctxjax/{name}/{_asked[name]}"
    assert client is not None
    if jax.process_index() == 0:
        try:
            answer = decide()
        except BaseException as error:
            client.key_value_set(key, f"!{error}")
            raise
        client.key_value_set(key, f"={answer}")
        return answer
    try:
        answer = client.blocking_key_value_get(key, timeout * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise TimeoutError(f"process 0 gave no answer to {name!r} within {timeout} s") from error
    if answer.startswith("!"):
        raise ConfigError(f"process 0: {answer[1:]}")
    return answer[1:]
