"""Several runs as one program, each of which ends as it would by itself, up to rounding.

Every leaf of the state has an axis more in front, and so has the batch; each seed has its own data and root key. Along
`data` the mesh splits the seeds where their number divides, which needs no communication, and otherwise the rows.
Evaluators see one seed after another. A seed that has diverged, or has waited long enough for a better figure, is
carried along and no longer looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ctxjax import digests, optim, sharding, significance, tree
from ctxjax import run as runs
from ctxjax.config import ConfigError
from ctxjax.loop import Diverged, Trainer, between
from ctxjax.progress import Interval
from ctxjax.step import TrainState


def run_of(folder: epath.Path, seed: int) -> epath.Path:
    """The run folder of one seed."""
    return folder / f"seed_{seed}"


def alone(config: Any, seed: int, count: int = 1) -> Any:
    """The config of one seed, or of `count` from this one on."""
    made = config.copy_and_resolve_references()
    with made.unlocked():
        for field in ("seeds", "seeds_at_once"):
            if field in made:
                del made[field]
        made.seed = seed
        if count > 1:
            made.seeds = count
    return made.lock()


class Together(Trainer):
    """Several runs that one program advances, each with a `Trainer` of its own for everything but the steps.

    Its folder has the checkpoints of all of them together, from which it goes on; they are saved at every step that is
    the best of one run or its last, and only then is that run's own checkpoint written.

    Args:
      config: of the first seed, with `seeds`, their number.
      workdir: the folder for what they have together.
      seeds: all of them.
      folder: where the run folders of the seeds are made.
      stop_at, peak, devices: as `Trainer`.
    """

    def __init__(
        self,
        config: Any,
        workdir: epath.Path,
        seeds: Sequence[int],
        folder: epath.Path,
        stop_at: int | None = None,
        peak: float = 0.0,
        devices: Sequence[Any] | None = None,
    ):
        super().__init__(config, workdir, stop_at, peak, devices)
        self.at_once = len(seeds)
        self.members = [Trainer(alone(config, seed), run_of(folder, seed), like=self) for seed in seeds]
        for member in self.members:
            if runs.optional(config, "wandb", False):
                with member.config.unlocked():
                    member.config.wandb = False  # which has one run a process: that of all together
        self.failed: dict[int, str] = {}  # place of a member that has diverged -> why
        self.over: set[int] = set()  # those that were over at the checkpoint, and stay so with more patience
        self.recorded: set[int] = set()
        self._begun: tuple[int, Any] = 0, None
        apart = self.at_once % self.mesh.shape["data"] == 0 and jax.process_count() == 1
        axis = "data" if apart else None

        def stacked(leaf: Any, spec: P) -> Any:
            where = NamedSharding(self.mesh, P(axis, *(_without(part, axis) for part in spec)))
            return jax.ShapeDtypeStruct((self.at_once, *leaf.shape), leaf.dtype, sharding=where)

        one = jax.tree.map(lambda leaf: leaf.sharding, self.held)
        self.abstract, self.held = (
            jax.tree.map(lambda leaf: stacked(leaf, leaf.sharding.spec), state) for state in (self.abstract, self.held)
        )
        self.widen, self.narrow = between(self.abstract, self.held)
        self.batches = [jax.tree.map(lambda leaf: stacked(leaf, P()), self.run.batch)]
        self.rows = NamedSharding(self.mesh, P(axis, _without(sharding.ROWS, axis)))
        whole = jax.tree.map(lambda leaf: leaf.sharding, self.held)
        self.root = jax.jit(lambda *roots: jnp.stack(roots), out_shardings=sharding.replicated(self.mesh))(
            *(member.root for member in self.members)
        )
        self._join = jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states), out_shardings=whole)
        self._take = jax.jit(lambda states, place: jax.tree.map(lambda x: x[place], states), out_shardings=one)
        self._put_back = jax.jit(
            lambda states, one, place: jax.tree.map(lambda x, y: x.at[place].set(y), states, one),
            out_shardings=whole,
            donate_argnums=0,
        )
        self.reacts = any(optim.AVERAGED in name for name in tree.flatten(self.abstract.opt_state))

    def gone(self, place: int) -> bool:
        """Whether a member is over before its last step."""
        return place in self.failed or place in self.over or self.members[place].ended

    @property
    def ended(self) -> bool:
        return all(self.gone(place) for place in range(self.at_once))

    # --- the steps ---

    def lifted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(step)  # not told of the mesh: its data axis splits the seeds here, and not the rows of one

    def stream(self, start: int) -> Any:
        return _Stacked([member.stream(start) for member in self.members])

    def observe(self, step: int, values: Mapping[str, Any]) -> None:
        going = []
        for place, member in enumerate(self.members):
            if self.gone(place):
                continue
            one = jax.tree.map(lambda leaf, place=place: leaf[place], values)
            going.append(one)
            try:
                member.observe(step, one)
            except Diverged as error:
                self.failed[place] = str(error)
                self.log(f"seed {member.config.seed}: {error}")
        taken = [one for one in going if not one["skipped"]] or going[:1]
        if taken:
            means = {name: np.mean([one[name] for one in taken]) for name in ("loss", "grad_norm", "skipped")}
            self.interval.add(
                means | {"terms": jax.tree.map(lambda *leaves: sum(leaves), *(x["terms"] for x in taken))}
            )

    def log_interval(self, step: int, lr: float, bar: Any) -> None:
        perplexity = tuple(getattr(self.run.objective, "perplexity", ()))
        for place, member in enumerate(self.members):
            if member.interval.steps and not self.gone(place):
                tokens, epoch = step * self.run.tokens_per_step, step / self.run.steps_per_pass
                values = member.interval.summary(perplexity)
                member.write(step, values | {"lr": lr, "tokens": tokens, "epoch": epoch})
            member.interval = Interval()
        super().log_interval(step, lr, bar)

    def evaluate(self, step: int, state: TrainState, judge: bool = True) -> TrainState:
        for place, member in enumerate(self.members):
            if not self.gone(place):
                one = member.evaluate(step, self._take(state, place), judge)
                state = self._put_back(state, one, place) if self.reacts else state
        self.evaluated = step
        self.final, deviation = significance.spread(member.final for member in self.members)
        if self.final:
            self.write(step, self.final | {"tokens": step * self.run.tokens_per_step})
            each = (f"{name} {value:.4f} ± {deviation[name]:.4f}" for name, value in self.final.items())
            self.log(f"step {step}  " + "  ".join(each))
        return state

    # --- the folders ---

    def fresh_state(self) -> TrainState:
        begun = [member.workdir for member in self.members if member.checkpoints.steps()]
        if begun:
            raise ConfigError(
                f"{begun[0]} was begun by itself: keep config.seeds_at_once as it was, or start in another --workdir"
            )
        state = self._join(*(member.fresh_state() for member in self.members))
        self.origin = self.members[0].origin
        return state

    def start_state(self) -> TrainState:
        for member in self.members:
            member.checkpoints.clean()
        state = super().start_state()
        start = int(jax.device_get(state.step).max())
        for member in self.members:  # what was saved after the step that is gone on from will be saved again
            for step in member.checkpoints.steps():
                if step > start and self.first:
                    digests.delete(digests.step_folder(member.checkpoints.folder, step))
        self._begun = start, state
        return state

    def memory(self) -> dict[str, Any]:
        kept = [
            member.memory() | {"over": self.gone(place), "failed": self.failed.get(place)}
            for place, member in enumerate(self.members)
        ]
        return {"evaluated": self.evaluated, "origin": self.origin, "members": kept}

    def remember(self, meta: Mapping[str, Any]) -> None:
        self.evaluated, self.origin = meta["evaluated"], meta["origin"]
        for place, (member, kept) in enumerate(zip(self.members, meta["members"])):
            member.remember(kept)
            if kept["failed"]:
                self.failed[place] = kept["failed"]
            if kept["over"]:
                self.over.add(place)
            if self.gone(place) and (member.workdir / "record.json").exists():
                self.recorded.add(place)

    def prepare_folder(self) -> None:
        super().prepare_folder()
        for member in self.members:
            member.prepare_folder()
        (start, state), self._begun = self._begun, (0, None)
        if start:  # what a kill has kept from being written
            self._save_members(start, state)

    def event(self, values: Mapping[str, Any]) -> None:
        super().event(values)
        for member in self.members:
            member.event(values)

    def must_save(self, step: int) -> bool:
        members = enumerate(self.members)
        return any(member.must_save(step) or (self.gone(at) and at not in self.recorded) for at, member in members)

    def upload(self) -> None:
        super().upload()
        for member in self.members:
            member.upload()

    def save(self, step: int, state: TrainState, block: bool = False) -> float:
        members = step >= self.run.total_steps or self.must_save(step)
        seconds = super().save(step, state, block or members)
        if members:
            self._save_members(step, state)
        return seconds

    def _save_members(self, step: int, state: TrainState) -> None:
        """Write what belongs to single members at a step that is saved."""
        for place, member in enumerate(self.members):
            gone = self.gone(place)
            if place in self.recorded or not (gone or member.must_save(step) or step >= self.run.total_steps):
                continue
            if step not in member.checkpoints.steps():
                member.save(step, self._take(state, place), block=True)
            if gone:
                self._record(place, step)

    def _record(self, place: int, step: int) -> None:
        why = {"failed": self.failed[place]} if place in self.failed else {}
        self.members[place].record(step, at_once=self.at_once, **why)
        self.recorded.add(place)

    def record(self, step: int, **more: Any) -> None:
        for place in range(self.at_once):
            if place not in self.recorded:
                self._record(place, step)
        super().record(step, **more)

    def close(self) -> None:
        for member in self.members:
            member.close()
        super().close()


def _without(part: Any, axis: str | None) -> Any:
    """One entry of a PartitionSpec without a mesh axis."""
    if isinstance(part, tuple):
        return tuple(name for name in part if name != axis) or None
    return None if part == axis else part


class _Stacked(Iterator[Any]):
    """Batches of several streams, one behind the other along a new first axis."""

    def __init__(self, streams: Sequence[Any]):
        self.streams = streams

    def __next__(self) -> Any:
        return jax.tree.map(lambda *rows: np.stack(rows), *(next(stream) for stream in self.streams))

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
