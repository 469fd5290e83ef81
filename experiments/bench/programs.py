"""Programs of ctxjax as users start them, the memory of all their processes, and folders that are gone at the end."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

from ctxjax.config import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def scratch() -> pathlib.Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="ctxjax-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def corpus_of(given: str, kind: str) -> str:
    """The folder that was given, or that of a generated corpus of "words" or "wordpiece"."""
    from ctxjax.data.generated import generated_corpus

    return given or generated_corpus(kind)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], bool] = lambda: False,
    every: float = 0.1,
) -> tuple[float, int, float | None]:
    """Run `python -m ctxjax.ARGUMENTS` to its end; what it prints goes to stderr.

    Args:
      watch: asked `every` so many seconds whether what is waited for has come.

    Returns:
      Seconds of the whole, the peak bytes of all its processes (memory shared by several counted once), and the
      seconds until `watch` said yes, None where it never did.

    Raises:
      ConfigError: it failed, as its last words on stderr say.
    """
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | dict(environment or {})
    began, peak, seen, next_look = time.perf_counter(), 0, None, 0.0
    with subprocess.Popen(command, cwd=ROOT, stdout=2, env=environment, start_new_session=True) as it:
        while it.poll() is None:
            now = time.perf_counter() - began
            if seen is None and watch():
                seen = now
            if now >= next_look:
                peak, next_look = max(peak, memory(it.pid)), now + 0.1
            time.sleep(every)
    if it.returncode:
        raise ConfigError(f"{' '.join(arguments[:1])} failed with exit code {it.returncode}; what it says stands above")
    return time.perf_counter() - began, peak, seen


def memory(group: int) -> int:
    """Bytes of all processes of a process group; memory shared by several is counted once."""
    total = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                for line in (folder / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return total
