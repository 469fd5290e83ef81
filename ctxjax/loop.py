"""The training loop, one for every model: steps that are due, metrics one step late, checkpoints, preemption, progress.

The device is never waited for but where its numbers are read, and those of step n are read while step n + 1 runs.
Everything that decides the outcome (state, batch, key) depends on the step number alone, so a run that is stopped and
started again ends with the same bits.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from ctxjax import config as configs
from ctxjax import metrics, optim, paths, processes, records, rngs, sharding, transfer, tree
from ctxjax import run as runs
from ctxjax.best import Best
from ctxjax.checkpoint import Checkpoints, RunError
from ctxjax.config import ConfigError
from ctxjax.data import pipeline
from ctxjax.digests import step_folder
from ctxjax.folders import find, read_meta
from ctxjax.progress import Interval, Log, Stop, clock, padding_share, progress_bar
from ctxjax.step import TrainState, variables


class Diverged(RunError):
    """Too many steps in a row had a loss or gradient that is not finite."""

    def __init__(self, step: int, in_a_row: int):
        self.step = step
        super().__init__(
            f"{in_a_row} steps in a row, up to about step {step}, had a loss or gradient that is not finite, so the "
            "run ends (config.max_skipped); the last checkpoint is from before"
        )


class Trainer:
    """One session of a run: from its last checkpoint, or from the beginning, to its end or until it is stopped.

    Args:
      config: a locked config.
      workdir: the run folder; made if need be, and continued if it holds a checkpoint.
      stop_at: save and stop after this step, as if preempted, with exit code 0.
      peak: peak FLOP/s of one device, where the table of `metrics` does not have it.
      devices: all devices of all processes by default.
      like: a trainer of the same config but for its seed, whose model, evaluators, mesh and clock this one shares.
    """

    at_once = 1  # runs that one step advances; see `ctxjax.seeds`

    def __init__(
        self,
        config: Any,
        workdir: str | os.PathLike[str],
        stop_at: int | None = None,
        peak: float = 0.0,
        devices: Sequence[Any] | None = None,
        like: Trainer | None = None,
    ):
        self.ledger = like.ledger if like else metrics.Ledger()
        with self.ledger("start"):
            if like is None:
                transfer.resolve(config, workdir)
            self.run = like.run if like else runs.assemble(config)
            self.config, self.workdir, self.peak = config, paths.at(workdir), peak
            self.stop = Stop(stop_at)
            self.mesh = like.mesh if like else runs.make_mesh(config, devices)
            self.abstract, notes = runs.placed(self.run, self.mesh)
            self.batches, self.rows = self.run.batches, sharding.batch_sharding(self.mesh)
            self.evaluators = like.evaluators if like else self.run.evaluators(self.mesh)
            self.every = {name: self.run.steps(f"{name}_every") for name in ("log", "save", "eval")}
            self.first = jax.process_index() == 0
            if self.first:
                self.workdir.mkdir(parents=True, exist_ok=True)
            self.mirror = paths.Mirror(self.workdir if self.first else None)
            self.log = Log(self.mirror.folder, silent=like is not None)
            self.checkpoints = Checkpoints(self.workdir / "checkpoints", config.keep, report=self.log)
            self.root = jax.jit(lambda: rngs.root_key(config.seed), out_shardings=sharding.replicated(self.mesh))()
            self.best = Best(runs.optional(config, "best", ""), runs.optional(config, "patience", 0))
            self.final: dict[str, float] = {}
            self.writers: list[metrics.Writer] = []
            self.evaluated = 0  # the step of the last evaluation
            self.origin: dict[str, Any] = {}  # what `init_from` began with
            self.interval, self.in_a_row = Interval(), 0
            self.flops = self.run.flops_per_step()
            for note in notes:
                self.log(note, quiet=True)

    # --- the state to start from ---

    def start_state(self) -> TrainState:
        """The last good checkpoint, or a fresh state (with `init_from` in it)."""
        self.checkpoints.clean()
        if processes.agree("resume", lambda: "yes" if self.checkpoints.steps() else "no") == "yes":
            with self.ledger("restore"):
                step = self.checkpoints.pick()
                meta = read_meta(step_folder(self.checkpoints.folder, step))
                for change in runs.check_resume(self.run, meta):
                    self.log(f"changed since the checkpoint: {change}")
                state = self.checkpoints.load(self.abstract, step)
                self.remember(meta)
            self.log(f"continuing from step {step} of {self.run.total_steps}")
            return state
        with self.ledger("start"):
            return self.fresh_state()

    def fresh_state(self) -> TrainState:
        """A state of step 0, with `init_from` in it."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        state = jax.jit(self.run.init, out_shardings=shardings)(self.root)
        origin = runs.optional(self.config, "init_from", {})
        if path := runs.optional(origin, "path", ""):
            state = transfer.init_from(state, self.run.source.tokenizer, report=self.log, **_given(origin))
            self.origin = _origin(read_meta(find(path)))
        return state

    def memory(self) -> dict[str, Any]:
        """What a checkpoint's meta data keep of evaluations and beginnings, for `remember`."""
        return {"evaluated": self.evaluated, "best": self.best.summary(), "origin": self.origin}

    def remember(self, meta: Mapping[str, Any]) -> None:
        """Go on from the meta data of a checkpoint."""
        self.evaluated, self.origin = meta.get("evaluated", 0), meta.get("origin", {})
        self.best.restore(meta.get("best", {}))

    def lifted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step of one run as that of all runs that this trainer advances."""
        return sharding.traced_on(self.mesh, step)

    def compile(self, state: TrainState) -> list[Any]:
        """The compiled step `(state, batch, root) -> (state, metrics)` for each width of the batches.

        The learning rate is among the metrics.
        """
        step = self.run.train_step()

        def with_lr(state: TrainState, batch: Any, root: Any) -> tuple[TrainState, dict[str, Any]]:
            new, values = step(state, batch, root)
            counts = [leaf for name, leaf in tree.flatten(state.opt_state).items() if name.endswith("count")]
            return new, values | {"lr": self.run.schedule(counts[-1] if counts else state.step)}

        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        rows, whole = self.rows, sharding.replicated(self.mesh)
        jitted = jax.jit(
            self.lifted(with_lr),
            in_shardings=(shardings, rows, whole),
            out_shardings=(shardings, whole),
            donate_argnums=0,
        )
        compiled = []
        with self.ledger("compile"):
            for shapes in self.batches:
                batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), shapes)
                compiled.append(jitted.lower(state, batch, self.root).compile())
        return compiled

    # --- the run folder ---

    def prepare_folder(self) -> None:
        """config.json and the tokenizer, written by process 0."""
        if self.first:
            records.write_json(self.workdir / "config.json", configs.to_dict(self.config))
            self.run.source.tokenizer.save(self.workdir / "tokenizer")
        saved = sorted((self.workdir / "tokenizer").iterdir()) if self.first else []
        self.files = {f"tokenizer/{path.name}": path for path in saved}
        self.meta = {
            "config": configs.to_dict(self.config),
            "data": self.run.source.fingerprint,
            "tokenizer": self.run.source.tokenizer.digest(),
            "code": {"commit": records.commit(), **records.versions()},
            "tokens_per_step": self.run.tokens_per_step,
        }
        if self.first:
            wanted = {name: runs.optional(self.config, name, False) for name in ("tensorboard", "wandb")}
            self.writers = metrics.make_writers(self.mirror.folder, self.meta["config"], **wanted)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def event(self, values: Mapping[str, Any]) -> None:
        for writer in self.writers:
            if isinstance(writer, metrics.JsonLines):
                writer.event(values)

    # --- the loop ---

    def train(self) -> int:
        """Run the session and return the exit code of the program."""
        try:
            with self.stop:
                return self._train()
        finally:
            if self.writers:
                self.event({"session": self.ledger.summary()})
            self.close()

    def close(self) -> None:
        """Close the files, and wait for the last checkpoint."""
        with contextlib.closing(self.checkpoints), contextlib.closing(self.mirror):
            for writer in self.writers:
                writer.close()
            self.log.close()

    def _train(self) -> int:
        state = self.start_state()
        start, total = int(jax.device_get(state.step).max()), self.run.total_steps
        if (start >= total or self.ended) and self.evaluated == start and (self.workdir / "record.json").exists():
            self.log(f"nothing to do: all {start} steps are done")
            return 0
        self.prepare_folder()
        self.event({"resumed": start})
        parameters = tree.count(self.run.abstract.params)
        self.log(
            f"{parameters:,} parameters, {total:,} steps of {self.run.tokens_per_step:,} tokens, "
            f"one pass is {self.run.steps_per_pass:,} steps; mesh {dict(self.mesh.shape)} of "
            f"{jax.devices()[0].device_kind}"
        )
        for what, number in self.run.dropped().items():
            self.log(f"left out of the data: {number:,} {what}")
        step = start
        if start < total and start % self.every["eval"] == 0 and self.evaluated < start:
            state = self.evaluate(start, state)  # it was due when the run was stopped
        if start < total and not self.ended:
            compiled = by_width(self.batches, self.compile(state))
            with (
                contextlib.closing(self.stream(start)) as stream,
                progress_bar(self.log, start, total, self.first) as bar,
            ):
                state, step = self._steps(compiled, state, start, stream, bar)
        self.save(step, state, block=True)
        over = step >= total or self.ended
        if over:
            if not self.final:
                self.evaluate(step, state, judge=False)  # of a step that is saved, with the best as it was known then
            self.record(step)
        done = "stopped; the same command continues"
        if over:
            done = "done" if step >= total else "ended early (config.patience)"
        self.log(f"step {step} of {total}: {done}")
        return 0 if over else self.stop.exit_code

    @property
    def ended(self) -> bool:
        """Whether the run is over before its last step."""
        return self.best.exhausted

    def stream(self, start: int) -> Any:
        """The batches of this process from a step on, to be closed."""
        index, count = sharding.process_rows(self.mesh)
        return pipeline.batches(
            self.run.source,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            start_step=start,
            process_index=index,
            process_count=count,
            threads=runs.optional(self.config, "threads", 2),
            workers=runs.optional(self.config, "workers", 0),
        )

    def _steps(
        self, compiled: Callable[..., Any], state: TrainState, start: int, stream: Iterator[Any], bar: Any
    ) -> tuple[TrainState, int]:
        """Steps until the end or a stop; the batch of the next step is on its way while one runs."""
        total = self.run.total_steps
        self.interval, pending = Interval(), None
        batch, padding = self._next(stream)
        step = start
        profiling = False
        while step < total:
            if self.run.profile_steps and step == self.run.profile_steps[0] and self.first:
                jax.profiler.start_trace(str(self.mirror.file("profile")))
                profiling = True
            with self.ledger("step"), jax.transfer_guard("disallow"):
                state, values = compiled(state, batch, self.root)
            step += 1
            self.interval.padding += padding
            if step < total:
                batch, padding = self._next(stream)
            if profiling and self.run.profile_steps and step >= self.run.profile_steps[1]:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
                profiling = False
            stopping = self.stop.reached(step) or step == total
            log_due, save_due, eval_due = (stopping or step % self.every[name] == 0 for name in ("log", "save", "eval"))
            # Read what is one step old, and what is new only where something is due.
            late = [pending] if pending is not None else []
            pending = values
            if log_due or save_due or eval_due:
                late, pending = [*late, values], None
            for old in late:
                with self.ledger("step"):
                    old = jax.device_get(old)
                self.observe(step, old)
            self.checkpoints.check()
            if bar is not None:
                bar.update(1)
            if log_due and self.interval.steps:
                self.log_interval(step, float(old["lr"].mean()), bar)
                self.interval = Interval()
            if eval_due and (step == total or not stopping):
                with self._pause():
                    state = self.evaluate(step, state)
            if stopping or self.ended:
                break
            if save_due or self.must_save(step):  # after the evaluation, to which the optimiser may react
                with self._pause():
                    self.interval.save += self.save(step, state)
        return state, step

    def _next(self, stream: Iterator[Any]) -> tuple[Any, float]:
        began = time.perf_counter()
        with self.ledger("data_wait"):
            rows = next(stream)
        self.interval.data_wait += time.perf_counter() - began
        with self.ledger("step"):
            return sharding.put(rows, self.rows), padding_share(rows)

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.interval.paused += time.perf_counter() - began

    def observe(self, step: int, values: Mapping[str, Any]) -> None:
        """Sum the metrics of one step, which are read at `step` or the one before."""
        self.interval.add(values)
        self.in_a_row = self.in_a_row + 1 if values["skipped"] else 0
        if self.in_a_row >= self.config.max_skipped:
            raise Diverged(step, self.in_a_row)

    def must_save(self, step: int) -> bool:
        """Whether a step is saved though no checkpoint is due: it is the best."""
        return self.best.step == step

    def log_interval(self, step: int, lr: float, bar: Any) -> None:
        """Write what was summed since the last log line."""
        interval = self.interval
        seconds = interval.seconds_per_step()
        rate = self.at_once * self.run.tokens_per_step / seconds
        flops = self.at_once * self.flops / seconds
        peak = self.peak or metrics.peak_flops(jax.devices()[0].device_kind)
        values = interval.summary(tuple(getattr(self.run.objective, "perplexity", ())))
        values |= {
            "lr": lr,
            "tokens": step * self.run.tokens_per_step,
            "epoch": step / self.run.steps_per_pass,
            "step_seconds": seconds,
            "tokens_per_second": rate,
            "flops_per_second": flops,
            "data_wait": interval.data_wait / interval.steps / seconds,
            "checkpoint_stall_seconds": interval.save,
            "padding": interval.padding / interval.steps,
        }
        if peak:
            values["peak_fraction"] = flops / peak / self.mesh.size
        self.write(step, values)
        left = clock((self.run.total_steps - step) * seconds)
        if bar is not None:
            bar.set_postfix_str(f"loss {values['loss']:.4f}, {rate:,.0f} tokens/s")
        self.log(
            f"step {step}/{self.run.total_steps}  loss {values['loss']:.4f}  {rate:,.0f} tokens/s  {left} left"
            + (f"  {interval.skipped} skipped" if interval.skipped else ""),
            quiet=bar is not None,
        )

    def save(self, step: int, state: TrainState, block: bool = False) -> float:
        """Save a checkpoint and return for how many seconds the loop stood still."""
        began = time.perf_counter()
        with self.ledger("save"):
            meta = self.meta | self.memory()
            self.upload()  # first, so that the lines up to a step are there if the step is
            self.checkpoints.save(step, state, meta, self.files, block=block)
        return time.perf_counter() - began

    def upload(self) -> None:
        """Write what was logged to the run folder, where that is in an object store."""
        self.mirror.upload()

    def evaluate(self, step: int, state: TrainState, judge: bool = True) -> TrainState:
        """Run every evaluator, write what they found, judge whether it is the best, and let the optimiser react."""
        found: dict[str, float] = {}
        with self.ledger("eval"):
            params = variables(optim.eval_params(state.opt_state, state.params), state.extra)
            for name, evaluator in self.evaluators.items():
                found |= {f"{name}/{metric}": value for metric, value in evaluator.run(params).items()}
        if judge and step > self.evaluated:
            self.best.judge(step, found)
        self.evaluated = step
        if found:
            self.final = found
            self.write(step, found | {"tokens": step * self.run.tokens_per_step})
            self.log(f"step {step}  " + "  ".join(f"{name} {value:.4f}" for name, value in found.items()))
        return optim.on_eval(state, found)

    def record(self, step: int, **more: Any) -> None:
        """record.json: what was run, on what, for how long, and how it ended."""
        if not self.first:
            return
        self.upload()
        lines = metrics.read(self.workdir, everything=True)
        sessions = [line["session"] for line in lines if "session" in line] + [self.ledger.summary()]
        logged = [line for line in lines if "loss" in line]
        config = records.without_paths(configs.to_dict(self.config))
        for fields, field in (("source", "corpus"), ("init_from", "path")):
            if path := config.get(fields, {}).get(field):
                config[fields][field] = pathlib.Path(path).name
        wall = sum(session["wall"] for session in sessions)
        payload = {
            "config": config,
            "steps": step,
            "tokens": step * self.run.tokens_per_step,
            "parameters": tree.count(self.run.abstract.params),
            "flops": self.flops * step,
            "train": logged[-1] if logged else {},
            "evaluation": {name: metrics.plain(value) for name, value in self.final.items()},
            "best": self.best.summary(),
            "origin": self.origin,
            "examples": self.run.rows_per_pass,
            "wall_seconds": round(wall, 1),
            "goodput": round(sum(session.get("step", 0.0) for session in sessions) / wall, 4),
            "sessions": sessions,
            "data": self.run.source.fingerprint,
        } | more
        records.write_json(self.workdir / "record.json", records.stamp("train", payload))


def by_width(shapes: Sequence[Any], compiled: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """The step that was compiled for batches as wide as the one that it is given."""
    if len(compiled) == 1:
        return compiled[0]
    of = {_widths(batch): step for batch, step in zip(shapes, compiled, strict=True)}
    return lambda state, batch, root: of[_widths(batch)](state, batch, root)


def _widths(batch: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(batch["inputs"]))


def _origin(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Of the checkpoint that a run began with: its model, steps, tokens and commit, and what it began with in turn."""
    steps = meta.get("step", 0)
    return {
        "model": meta.get("config", {}).get("model", {}),
        "steps": steps,
        "tokens": steps * meta.get("tokens_per_step", 0),
        "commit": meta.get("code", {}).get("commit"),
        "origin": meta.get("origin", {}),
    }


def _given(fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def train(
    config: Any,
    workdir: str | os.PathLike[str],
    stop_at: int | None = None,
    peak: float = 0.0,
    devices: Sequence[Any] | None = None,
) -> int:
    """Train a config in a run folder, or go on where it stopped; returns the exit code. The arguments are `Trainer`'s.

    Raises:
      ConfigError: a mistake in the config, or a run folder that holds another run's checkpoint; before any step.
      RunError: numbers that are not finite, or a checkpoint that cannot be written.
    """
    if stop_at is not None and stop_at < 1:
        raise ConfigError(f"--stop-at={stop_at} must be at least 1")
    return Trainer(config, workdir, stop_at, peak, devices).train()
