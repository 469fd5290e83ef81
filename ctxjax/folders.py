"""Which step is meant by the path of a run, and what its meta data say; nothing here reads an array or imports JAX."""

from __future__ import annotations

import json
import os
from typing import Any

from etils import epath

from ctxjax import digests, paths
from ctxjax.config import ConfigError

META = "meta.json"
BEST = "@best"


def read_meta(folder: epath.PathLike) -> dict[str, Any]:
    """meta.json of a step folder."""
    path = epath.Path(folder) / META
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error}); use another step") from None


def best_of(folder: epath.PathLike) -> int | None:
    """The best step that a step folder knows of (`config.best`); None where there is none."""
    try:
        return read_meta(folder).get("best", {}).get("step")
    except ConfigError:  # damaged, and for others to say so
        return None


def run_folder(path: str | os.PathLike[str]) -> tuple[str, bool]:
    """`runs/x@best` -> `runs/x` and True; any other path as it is, and False."""
    text = os.fspath(path)
    return (text.removesuffix(BEST), True) if text.endswith(BEST) else (text, False)


def find(path: str | os.PathLike[str], step: int | None = None) -> epath.Path:
    """The step folder meant by a run folder, a checkpoints folder or a step folder itself.

    Args:
      path: with `@best` behind a run folder its best step by `config.best` is meant, else the newest.
      step: a certain step.

    Raises:
      ConfigError: there is no committed checkpoint, or none is called the best.
    """
    name, best = run_folder(path)
    path = paths.at(name)
    if best and step is not None:
        raise ConfigError(f"{path}{BEST} names a step, and so does step={step}; give one of them")
    if not best and (path / digests.DIGESTS).exists() and (path / META).exists():
        return path
    for folder in (path / "checkpoints", path):
        there = digests.steps(folder)
        if there and best:
            step = read_meta(digests.step_folder(folder, there[-1])).get("best", {}).get("step")
            if step is None:
                raise ConfigError(f"{path} has no best step: it was trained without config.best")
        if there and step is None:
            return digests.step_folder(folder, there[-1])
        if there:
            if step not in there:
                raise ConfigError(f"{folder} has no checkpoint of step {step}; it has {there}")
            return digests.step_folder(folder, step)
    if path.is_dir() and (seeds := sorted(child.name for child in path.glob("seed_*"))):
        raise ConfigError(f"{path} holds runs of several seeds; name one of them, as in {path / seeds[0]}")
    raise ConfigError(f"{path} holds no complete checkpoint (a run folder, its checkpoints/ or a step folder is meant)")
