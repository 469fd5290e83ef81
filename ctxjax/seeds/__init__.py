"""One experiment with several seeds: `config.seeds = 5` trains with the seeds `seed`, `seed + 1`, ... `seed + 4`.

Each seed has a run folder of its own, `WORKDIR/seed_N`, in which everything is as in a run of that seed alone, and
which can be opened as one; `WORKDIR/record.json` has the figures of all, their mean and deviation, and who failed.

As many seeds as have room run at once (`together.py`), the others in turn. `config.seeds_at_once` says how many; where
it is empty, as many as fit into four fifths of the memory that a device has, if each needs what the compiler says that
the step of one does: state, batch, gradient and activations.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from ctxjax import config as configs
from ctxjax import loop, paths, processes, records
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.loop import Diverged, Trainer
from ctxjax.seeds import outcome
from ctxjax.seeds.together import Together, alone, run_of

SHARE = 0.8  # of a device's memory, for what runs at once


def train(
    config: Any,
    workdir: str | os.PathLike[str],
    stop_at: int | None = None,
    peak: float = 0.0,
    devices: Sequence[Any] | None = None,
    survives: bool = False,
) -> int:
    """Train a config with all of its seeds, or go on; returns the exit code.

    Args:
      config, workdir, stop_at, peak, devices: as `Trainer`.
      survives: that a single run has diverged is no error but in its record, as it is of one of several seeds.

    Raises:
      ConfigError, RunError: as `loop.train`.
    """
    runs.validate(config)
    count, folder = runs.optional(config, "seeds", 1), paths.at(workdir)
    if count == 1 and not survives:
        return loop.train(config, workdir, stop_at, peak, devices)
    if count == 1:
        return _train_one(config, folder, stop_at, peak, devices)
    seeds = list(range(config.seed, config.seed + count))
    at_once = min(count, _at_once(config, folder, seeds, devices))
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        records.write_json(folder / "config.json", configs.to_dict(config) | {"seeds_at_once": at_once})
    for first in range(0, count, at_once):
        group = seeds[first : first + at_once]
        code = _train_group(config, folder, group, stop_at, peak, devices)
        if code or not ended([run_of(folder, seed) for seed in group]):
            return code  # stopped; the same command continues
    if jax.process_index() == 0:
        found = {seed: outcome.read(run_of(folder, seed)) for seed in seeds}
        records.write_json(folder / "record.json", outcome.summary(configs.to_dict(config), found))
    return 0


def ended(folders: Sequence[epath.Path]) -> bool:
    """Whether all of these runs have a record, as process 0 sees it."""
    there = processes.agree("ended", lambda: "yes" if all((one / "record.json").exists() for one in folders) else "no")
    return there == "yes"


def _train_group(
    config: Any, folder: epath.Path, group: list[int], stop_at: int | None, peak: float, devices: Any
) -> int:
    if len(group) > 1:
        place = folder / f"seeds_{group[0]}_to_{group[-1]}"
        return Together(alone(config, group[0], len(group)), place, group, folder, stop_at, peak, devices).train()
    return _train_one(alone(config, group[0]), run_of(folder, group[0]), stop_at, peak, devices)


def _train_one(config: Any, place: epath.Path, stop_at: int | None, peak: float, devices: Any) -> int:
    if ended([place]) and outcome.read(place).get("failed"):
        return 0
    trainer = Trainer(config, place, stop_at, peak, devices)
    try:
        return trainer.train()
    except Diverged as error:
        trainer.record(error.step, failed=str(error))
        return 0


def _at_once(config: Any, folder: epath.Path, seeds: list[int], devices: Any) -> int:
    """How many seeds run at once: as told, as before, or as memory allows."""
    told = runs.optional(config, "seeds_at_once", 0)
    if runs.optional(config.source, "widths", 1) > 1:
        if told > 1:
            raise ConfigError(f"config.seeds_at_once={told} needs batches of one width: set --config.source.widths=1")
        return 1
    if told:
        return told

    before = folder / "config.json"
    kept = processes.agree("seeds begun", lambda: before.read_text(encoding="utf-8") if before.exists() else "{}")
    if told := json.loads(kept).get("seeds_at_once"):
        return told
    trainer = Trainer(alone(config, seeds[0]), run_of(folder, seeds[0]), devices=devices)
    needs = trainer.compile(trainer.held)[0].memory_analysis()
    size = needs.argument_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    size += needs.temp_size_in_bytes
    free = free_memory(trainer.mesh.devices.flat[0])
    trainer.close()
    return int(processes.agree("seeds at once", lambda: str(max(1, int(SHARE * free / max(1, size))))))


def free_memory(device: Any) -> int:
    """Bytes that a device may use: of an accelerator its limit, of a CPU its part of what is free."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // jax.local_device_count(device.platform)
