"""Programs run one after another, each printed before it runs; what the drivers under experiments/ are made of.

A stage is a title and the arguments of a Python process. Programs of ctxjax continue where they were interrupted, so
the same list of stages, run again, continues too.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
Stage = tuple[str, list[str]]


def run_stages(stages: Sequence[Stage], settle: Callable[[str], str] = str) -> int:
    """Run all stages in the root of the repository, or those up to the first that fails; returns its exit status.

    Args:
      stages: titles, and arguments of `python`.
      settle: called with each argument just before its stage, for what only earlier stages could say.
    """
    for number, (title, arguments) in enumerate(stages, 1):
        settled = [settle(argument) for argument in arguments]
        print(f"\n[{number}/{len(stages)}] {title}\n  python {shlex.join(settled)}", flush=True)
        if code := run(settled):
            print(f"\nstopped in stage {number} ({title}); the same command continues from here", file=sys.stderr)
            return code
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run one program to its end. Ctrl-C reaches it too: a training run saves, and is waited for."""
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT) as process:
        while True:
            try:
                code = process.wait()
                return 130 if code == -signal.SIGINT else code
            except KeyboardInterrupt:
                continue


def pieces_of(argument: str) -> str:
    """`FIELD=@CORPUS` with the number of its pieces, perhaps less than was asked for; a `settle` of `run_stages`."""
    name, at, corpus = argument.partition("=@")
    if not at:
        return argument
    manifest = json.loads((pathlib.Path(corpus) / "manifest.json").read_text(encoding="utf-8"))
    return f"{name}={manifest['tokenizer']['pieces']}"
