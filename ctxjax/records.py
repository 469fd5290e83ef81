"""Run records: one JSON file a run or bench, with what is needed to trust its numbers, and nothing of the host.

A record says when, at which commit, with which versions and on what hardware; it holds no host name, user or path, so
that it can be committed beside the code. Tables and plots are rendered from records, never typed.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from etils import epath

from ctxjax import paths

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments" / "records"
VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "transformers", "gensim")


def commit() -> str | None:
    """The commit of this source tree, with `+changes` where it was edited; None where it is not a git checkout."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(ROOT), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def without_paths(value: Any) -> Any:
    """JSON-able data with the last part of every absolute path in it, which says nothing of the host or bucket."""
    if isinstance(value, Mapping):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    somewhere = isinstance(value, str) and (os.path.isabs(value) or not paths.is_local(value))
    return pathlib.PurePath(value).name if somewhere else value


def versions() -> dict[str, str]:
    """Version of Python, of ctxjax and of every library named in `VERSIONS` that is loaded in this process."""
    from importlib import metadata

    import ctxjax

    found = {"python": platform.python_version(), "ctxjax": ctxjax.__version__}
    for name in VERSIONS:
        module = {"orbax-checkpoint": "orbax"}.get(name, name)
        if module in sys.modules:
            found[name] = metadata.version(name)
    return found


def hardware() -> dict[str, Any]:
    """Processor model and usable cores and, where JAX is loaded, kind and number of its devices and processes."""
    found: dict[str, Any] = {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "memory_gb": _memory_gb()}
    if "jax" in sys.modules:
        import jax

        devices = jax.devices()
        found |= {
            "platform": devices[0].platform,
            "device": devices[0].device_kind,
            "devices": len(devices),
            "processes": jax.process_count(),
        }
    return found


def _cpu_model() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError):
        return None


def stamp(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """`payload` with name, date, commit, versions and hardware; a field of the payload wins over ours."""
    now = datetime.datetime.now(datetime.UTC)
    made = {
        "name": name,
        "date": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
    }
    return made | dict(payload)


def write(name: str, payload: Mapping[str, Any], folder: str | os.PathLike[str] | None = None) -> epath.Path:
    """Write a record and return its path.

    Args:
      name: what was measured, as in `bench_train_step`; letters, digits, `_`, `-` and `.`.
      payload: JSON-able data.
      folder: where to; `experiments/records/` of this source tree by default.
    """
    record = stamp(name, payload)
    when = record["date"].replace("-", "").replace(":", "").partition("+")[0]
    folder = paths.at(folder or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{when}.json"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{when}-{number}.json"
    write_json(path, record)
    return path


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON so that the file is the old one or the whole new one, whatever happens in between."""
    paths.write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
