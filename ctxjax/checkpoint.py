"""Checkpoints: Orbax writes the arrays, our digest file is the commit, and any mesh can read them back.

    00001000/state/...        arrays by path name (Orbax PyTreeSave)
    00001000/tokenizer/...    what is needed to use the model, copied
    00001000/meta.json        config, fingerprints, code version, and path -> [dtype, shape] of every array
    00001000/digests.json     written last and atomically: with it the step exists, without it there is no such step

Orbax checks neither bytes nor dtypes, and takes an empty folder for the newest step; so listing, verifying, comparing
and deleting are ours. See docs/checkpoints.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ctxjax import digests, paths, processes, tree
from ctxjax.config import ConfigError
from ctxjax.folders import META, best_of, find, read_meta

STATE = "state"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class RunError(ConfigError):
    """What ends a run and is no mistake in its config: a full disk, numbers that are not finite. Exit code 3."""

    exit_code = 3


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack(finite).all()


@jax.jit
def _copy(arrays: Any) -> Any:
    return jax.tree.map(jnp.copy, arrays)


def _options() -> ocp.options.MultiprocessingOptions:
    """Naming the processes makes Orbax use barriers of the coordination service, which have a deadline."""
    several = jax.process_count() > 1
    return ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes=set(range(jax.process_count())) if several else None
    )


def _handler() -> ocp.PyTreeCheckpointHandler:
    return ocp.PyTreeCheckpointHandler(multiprocessing_options=_options())


def abstract_of(meta: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of a checkpoint by path name, from its meta.json."""
    return {name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for name, (dtype, shape) in meta["state"].items()}


def load_arrays(folder: epath.PathLike, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Some arrays of a step folder by path name, read in parallel and in part.

    Args:
      folder: a step folder.
      wanted: path name -> `ShapeDtypeStruct` with a sharding, or without one for a NumPy array.
    """

    def how(leaf: Any) -> ocp.RestoreArgs:
        if getattr(leaf, "sharding", None) is None:
            return ocp.RestoreArgs(restore_type=np.ndarray)
        return ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)

    args = ocp.args.PyTreeRestore(
        item=tree.unflatten(wanted),
        restore_args=tree.unflatten({name: how(leaf) for name, leaf in wanted.items()}),
        partial_restore=True,
    )
    with ocp.Checkpointer(_handler(), multiprocessing_options=_options()) as checkpointer:
        return tree.flatten(checkpointer.restore(paths.at(folder) / STATE, args=args))


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: made when the first step is saved; a path or `gs://...`.
      keep: how many of the newest steps stay; the best one, if meta data name one, stays besides.
      report: called with one sentence when a step is found damaged; printing by default.
      timeout: seconds that processes wait for one another, and for a save.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 3,
        report: Callable[[str], None] = print,
        timeout: int = processes.TIMEOUT,
    ):
        if keep < 1:
            raise ConfigError(f"config.keep={keep} must be at least 1")
        self.folder = paths.at(folder)
        self.keep, self.report, self.timeout = keep, report, timeout
        self._name = self.folder.parent.name  # a process may save several runs, and agrees with others on each
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved: set[int] = set()
        self._calls = 0

    def steps(self) -> list[int]:
        """The committed steps, rising. Empty, unmarked and foreign folders are not among them."""
        return digests.steps(self.folder)

    def latest(self) -> int | None:
        """The newest committed step, whole or damaged."""
        return max(self.steps(), default=None)

    def save(
        self,
        step: int,
        state: Any,
        meta: Mapping[str, Any],
        files: Mapping[str, str | os.PathLike[str]] | None = None,
        block: bool = False,
    ) -> None:
        """Copy the state to the host and write it in the background; every process calls this.

        The previous save is waited for first. A step that this object has saved or restored is not saved twice.

        Args:
          step: the name of the checkpoint.
          state: a pytree of arrays with `params` in it; may be donated as soon as this returns.
          meta: JSON-able data for meta.json; `step` and `state` are added.
          files: name within the step folder -> file to copy.
          block: return when the step is committed.

        Raises:
          RunError: parameters that are not finite (nothing is written), or a failed write, with the free space.
        """
        self.wait()
        if step in self._saved:
            return
        if not bool(_all_finite(state.params)):
            raise RunError(f"the parameters at step {step} are not finite, so they were not saved")
        for name in files or {}:
            if not _FILE_NAME.fullmatch(name):
                raise ConfigError(f"checkpoint file name {name!r} is not a plain relative path")
        path = digests.step_folder(self.folder, step)
        leaves = tree.flatten(state)
        meta = dict(meta) | {"step": step, "state": {k: [str(v.dtype), list(v.shape)] for k, v in leaves.items()}}
        if jax.default_backend() == "cpu":
            leaves = _copy(leaves)  # there Orbax reads the very buffers that the next step will overwrite
        try:
            if jax.process_index() == 0:
                digests.delete(path)
                path.mkdir(parents=True)
            if self._checkpointer is None:
                self._checkpointer = ocp.AsyncCheckpointer(
                    _handler(), timeout_secs=self.timeout, multiprocessing_options=_options()
                )
            self._checkpointer.save(path / STATE, args=ocp.args.PyTreeSave(tree.unflatten(leaves)))
        except Exception as error:
            raise self._failure(path, error) from error
        self._saved.add(step)
        self._calls += 1
        self._thread = threading.Thread(
            target=self._finish, args=(path, meta, dict(files or {}), self._calls), name="ctxjax-commit"
        )
        self._thread.start()
        if block:
            self.wait()

    def _finish(self, path: epath.Path, meta: dict[str, Any], files: Mapping[str, Any], call: int) -> None:
        """Wait for the arrays of all processes, then commit on process 0; runs in a thread."""
        assert self._checkpointer is not None
        try:
            self._checkpointer.wait_until_finished()  # a barrier of all processes is in it

            def commit() -> str:
                for name, source in files.items():
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    with paths.at(source).open("rb") as read, (path / name).open("wb") as write:
                        shutil.copyfileobj(read, write)
                paths.write_text(path / META, json.dumps(meta, indent=1))
                digests.commit(path)
                self._delete_old()
                return "committed"

            processes.agree(f"checkpoint/{self._name}/{call}/{path.name}", commit, self.timeout)
        except BaseException as error:
            self._error = self._failure(path, error)

    def _delete_old(self) -> None:
        """All but the newest steps, and what these call the best."""
        there = self.steps()
        kept = {*there[-self.keep :]}
        kept |= {best_of(digests.step_folder(self.folder, step)) for step in kept}
        for old in there:
            if old not in kept:
                digests.delete(digests.step_folder(self.folder, old))

    def _failure(self, path: epath.Path, error: BaseException) -> RunError:
        """One sentence for a failed save, whose remains are removed."""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        space = ""
        if paths.is_local(path):
            existing = next(parent for parent in (path, *path.parents) if parent.exists())
            space = f"; {shutil.disk_usage(existing).free / 2**20:.0f} MiB are free there"
        if jax.process_index() == 0:
            digests.delete(path)
        good = self.steps()
        kept = f"the checkpoint of step {good[-1]} is whole" if good else "there is no earlier checkpoint"
        return RunError(f"checkpoint {path} could not be written ({reason[:200]}){space}; {kept}")

    def wait(self) -> None:
        """Return when the last save is committed; raise what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong with the last save, without waiting for it."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def clean(self) -> None:
        """Remove what a killed save has left: step folders of ours that were never committed. Before the first save."""
        if jax.process_index() != 0 or not self.folder.is_dir():
            return
        for child in list(self.folder.iterdir()):
            if digests.STEP.fullmatch(child.name) and not (child / digests.DIGESTS).exists():
                remains = [entry.name for entry in child.iterdir()] if child.is_dir() else []
                if remains and all(name.startswith((STATE, META, "tokenizer", ".")) for name in remains):
                    digests.delete(child)
                    self.report(f"removed {child}, which was never completed")

    def pick(self, step: int | None = None) -> int:
        """The newest step whose every byte is as written; damaged ones are reported, set aside and passed over.

        Raises:
          ConfigError: no such step, no good step, or the step that was asked for is damaged.
        """
        self._calls += 1
        return int(processes.agree(f"restore/{self._name}/{self._calls}", lambda: str(self._pick(step)), self.timeout))

    def _pick(self, step: int | None) -> int:
        there = self.steps()
        if step is not None and step not in there:
            raise ConfigError(f"{self.folder} has no checkpoint of step {step}; it has {there or 'none'}")
        for candidate in [step] if step is not None else reversed(there):
            path = digests.step_folder(self.folder, candidate)
            problems = digests.verify(path)
            if not problems:
                return candidate
            if step is not None:
                raise ConfigError(f"the checkpoint of step {step} is damaged: {problems[0]}; use one of {there}")
            earlier = [other for other in there if other < candidate]
            then = f"using step {earlier[-1]}" if earlier else "and there is no earlier step"
            self.report(f"the checkpoint of step {candidate} is damaged: {'; '.join(problems[:3])}; {then}")
            digests.set_aside(path)
        raise ConfigError(f"{self.folder} has no checkpoint that can be restored")

    def restore(self, abstract: Any, step: int | None = None) -> tuple[Any, dict[str, Any], int]:
        """Verify and read a checkpoint onto the mesh of `abstract`; every process calls this.

        Args:
          abstract: the state as `ShapeDtypeStruct`s with shardings, on any mesh.
          step: a certain step, or the newest good one.

        Returns:
          `(state, meta, step)`.

        Raises:
          ConfigError: nothing to restore, or paths, shapes or dtypes that differ, by name and before anything is read.
        """
        self.wait()
        step = self.pick(step)
        return self.load(abstract, step), read_meta(digests.step_folder(self.folder, step)), step

    def load(self, abstract: Any, step: int) -> Any:
        """Read a step that `pick` has verified onto the mesh of `abstract`; raises as `restore` does."""
        path = digests.step_folder(self.folder, step)
        differences = tree.diff(abstract, abstract_of(read_meta(path)))
        if differences:
            more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
            raise ConfigError(f"checkpoint {path} is of another model: {'; '.join(differences[:3])}{more}")
        arrays = load_arrays(path, tree.flatten(abstract))
        self._saved.add(step)
        leaves = [arrays[name] for name in tree.flatten(abstract)]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    def close(self) -> None:
        """Wait for the last save and free Orbax's threads."""
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None


def read(
    path: str | os.PathLike[str], pattern: str | None = None, step: int | None = None, verify: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a checkpoint as NumPy, by path name, with its meta data: for notebooks and converters; no mesh.

    Args:
      path: a run folder or a step folder.
      pattern: regular expression over path names, as in `"^params/"`; everything by default.
      step: the newest step by default.
      verify: check every file against its digest first.

    Raises:
      ConfigError: no checkpoint, a damaged file (named), or a pattern that nothing matches.
    """
    folder = find(path, step)
    problems = digests.verify(folder) if verify else []
    if problems:
        raise ConfigError(f"checkpoint {folder} is damaged: {problems[0]}; use an earlier step")
    meta = read_meta(folder)
    wanted = tree.select(abstract_of(meta), pattern or "")
    if not wanted:
        raise ConfigError(f"no array of {folder} matches {pattern!r}")
    return load_arrays(folder, wanted), meta
