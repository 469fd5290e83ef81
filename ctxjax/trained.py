"""A trained run opened again: its config, and its parameters on a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from ctxjax import checkpoint, digests, optim, processes, transfer, tree
from ctxjax import config as configs
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.step import TrainState, variables


def from_meta(meta: Mapping[str, Any], settings: Mapping[str, str]) -> Any:
    """The config inside a checkpoint, with settings applied."""
    config = ml_collections.ConfigDict(configs.as_tuples(meta["config"])).lock()
    configs.override(config, settings)
    return config


def restored(config: Any, folder: Any, meta: Mapping[str, Any]) -> tuple[runs.Run, Any, Any]:
    """The run of a config, its mesh, and what evaluators are handed of a step folder: parameters, averages where they
    are used, and batch statistics.

    Raises:
      ConfigError: a damaged checkpoint, another model, a tokenizer that is not the checkpoint's.
    """
    transfer.resolve(config, folder)
    run = runs.assemble(config)
    if run.source.tokenizer.digest() != meta["tokenizer"]:
        raise ConfigError("config.source.corpus was prepared with another tokenizer than the checkpoint's")
    problems = processes.agree("evaluate", lambda: "\n".join(digests.verify(folder)))
    if problems:
        raise ConfigError(f"checkpoint {folder} is damaged: {problems.splitlines()[0]}; use another --step")
    mesh = runs.make_mesh(config)
    state, _ = runs.placed(run, mesh)
    wanted = TrainState(step=state.step, params=state.params, opt_state=state.opt_state, extra=state.extra)
    there = checkpoint.abstract_of(meta)
    differences = tree.diff(wanted, {name: leaf for name, leaf in there.items() if not name.startswith("carry/")})
    if differences:
        raise ConfigError(f"checkpoint {folder} is of another model: {'; '.join(differences[:3])}")
    arrays = checkpoint.load_arrays(folder, tree.flatten(wanted))
    wanted = jax.tree.unflatten(jax.tree.structure(wanted), [arrays[name] for name in tree.flatten(wanted)])
    return run, mesh, variables(optim.eval_params(wanted.opt_state, wanted.params), wanted.extra)
