"""A run assembled from its config: model, objective, source, optimiser, lengths, and the shape of its state.

Shared by the programs that train, evaluate and plan. Nothing here touches a device, so every mistake in a config is
found before one is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ctxjax import best, optim, rngs, sharding
from ctxjax import config as configs
from ctxjax.config import ConfigError, Duration
from ctxjax.step import TrainState, init_state, make_train_step

Config = Any  # a locked ml_collections.ConfigDict, whose fields no type checker knows

FIELDS = (
    "seed batch_size accum_steps total model objective source optim mesh log_every save_every eval_every keep "
    "max_skipped evals"
).split()
CADENCES = ("total", "log_every", "save_every", "eval_every")
# What a checkpoint fixes; beneath, the exceptions: where the data lies, and how the same numbers are computed.
FIXED = ("seed", "seeds", "batch_size", "accum_steps", "model", "objective", "source", "optim")
SAMPLED = 256  # steps whose widths are looked at
FREE = ("source.corpus", "source.tokenizer", "source.verify", "model.remat", "model.attention_implementation")


def optional(config: Config, field: str, default: Any) -> Any:
    """A field that a config may leave out or leave empty."""
    value = config[field] if field in config else None
    return default if value is None else value


def validate(config: Config) -> None:
    """Check everything in a config that can be checked without its data and devices.

    Raises:
      ConfigError: one sentence that names the field.
    """
    for field in FIELDS:
        if field not in config:
            raise ConfigError(f"the config has no field {field!r}, which every run needs")
    for field in ("batch_size", "accum_steps", "keep", "max_skipped"):
        if config[field] < 1:
            raise ConfigError(f"config.{field}={config[field]} must be at least 1")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"config.seed={config.seed} must be between 0 and {2**32 - 1}")
    for field in CADENCES:
        Duration.parse(config[field], field)
    if Duration.parse(config.total, "total").unit == "percent":
        raise ConfigError(f"config.total={config.total!r}: the length of the run itself cannot be a percentage")
    if config.batch_size % config.accum_steps:
        raise ConfigError(
            f"config.batch_size={config.batch_size} does not divide into config.accum_steps={config.accum_steps} parts"
        )
    if not optional(config.source, "corpus", ""):
        raise ConfigError(
            "config.source.corpus is empty: name a corpus made by python -m ctxjax.prepare, "
            "as in --config.source.corpus=DIR"
        )
    for name, fields in config.evals.items():
        if "name" not in fields:
            raise ConfigError(f"config.evals.{name} has no field 'name', as in name='objective'")
    chosen = optional(config, "best", "")
    for field, metric in (
        ("optim.metric", optional(config.optim, "metric", "")),
        ("best", best.parse(chosen)[0] if chosen else ""),
    ):
        if metric and metric.split("/")[0] not in config.evals:
            raise ConfigError(
                f"config.{field}={metric!r} needs config.evals.{metric.split('/')[0]}, which is not there"
            )
    if optional(config, "patience", 0) and not chosen:
        raise ConfigError("config.patience needs config.best, the figure to wait for, as in 'highest dev/f1'")
    for field, least in (("patience", 0), ("seeds", 1), ("seeds_at_once", 0)):
        if optional(config, field, least) < least:
            raise ConfigError(f"config.{field}={config[field]} must be at least {least}")
    _profile_steps(config)


def _profile_steps(config: Config) -> tuple[int, int] | None:
    text = optional(config, "profile_steps", "")
    if not text:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError(f"config.profile_steps={text!r} is not a range of steps such as '10:13'")
    return int(first), int(last)


def _validate_model(model: Any, config: Config, source: Any) -> None:
    size = source.vocab_size
    if model.vocab_size != size:
        raise ConfigError(
            f"config.model.vocab_size={model.vocab_size} is not the corpus's: set --config.model.vocab_size={size}"
        )
    for name in ("buckets", "shortest", "longest", "word_ngrams", "labels", "features", "feature_layers", "scheme"):
        theirs = getattr(source, name, None)
        if theirs is not None and theirs != getattr(model, name, theirs):
            raise ConfigError(f"config.model.{name}={getattr(model, name)} is not config.source.{name}={theirs}")
    heads = getattr(model, "num_heads", None)
    if heads and model.width % heads:
        raise ConfigError(f"config.model.num_heads={heads} does not divide config.model.width={model.width}")
    length = getattr(source, "length", None)
    longest = getattr(model, "max_len", None)
    if length and longest and length > longest:
        raise ConfigError(f"config.source.length={length} is more than config.model.max_len={longest}")
    if getattr(model, "couples_rows", False) and config.accum_steps > 1:
        raise ConfigError("config.accum_steps must be 1 for a model that couples the rows of a batch")


def _validate_row(model: Any, row: Any) -> None:
    chars, longest = row["inputs"].get("chars"), getattr(model, "max_chars", None)
    if chars is not None and longest is not None and chars.shape[-1] != longest:
        raise ConfigError(f"config.model.max_chars={longest} is not config.source.max_chars={chars.shape[-1]}")


@dataclasses.dataclass
class Run:
    """What a config means.

    Attributes:
      config: the locked config.
      model, objective, source: as built from it.
      batches: shapes of global training batches, of every width that they have, the widest last; trees of
        `ShapeDtypeStruct`.
      steps_per_pass: steps of one pass over the training data.
      tokens_per_step: tokens of one global batch.
      total_steps: length of the run.
      tx, schedule: the optimiser, and its learning rate by number of updates.
      abstract: the train state as `ShapeDtypeStruct`s, without shardings.
    """

    config: Config
    model: Any
    objective: Any
    source: Any
    batches: list[Any]
    steps_per_pass: int
    tokens_per_step: int
    total_steps: int
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    abstract: TrainState = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.abstract = jax.eval_shape(lambda: self.init(rngs.root_key(self.config.seed)))

    @property
    def batch(self) -> Any:
        """Shapes of the widest global training batch."""
        return self.batches[-1]

    @property
    def rows_per_pass(self) -> int:
        """Rows that a pass reads: all of a source that counts them, else those of its whole batches."""
        return int(getattr(self.source, "count", self.steps_per_pass * self.config.batch_size))

    def init(self, root: Any) -> TrainState:
        """A fresh state, to be jitted with the shardings it shall have."""
        row = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), self.batch["inputs"])
        return init_state(self.model, self.tx, row, root, carry_rows=self.config.batch_size)

    def train_step(self) -> Callable[..., Any]:
        """The train step of the config; parameters that `config.optim.frozen` matches have no gradient."""
        frozen = optional(self.config.optim, "frozen", "")
        return make_train_step(self.model, self.objective, self.tx, self.config.accum_steps, frozen)

    def steps(self, field: str) -> int:
        """A cadence of the config in steps."""
        return Duration.parse(self.config[field], field).steps(
            steps_per_epoch=self.steps_per_pass, tokens_per_step=self.tokens_per_step, total_steps=self.total_steps
        )

    @property
    def profile_steps(self) -> tuple[int, int] | None:
        """First and last step to profile."""
        return _profile_steps(self.config)

    def flops_per_step(self) -> float:
        """Model FLOPs of one training step: three times the forward pass; recomputation does not count.

        Where batches are of several widths, the mean over the first steps.
        """
        flops = [3.0 * float(self.objective.flops(self.model, batch)) for batch in self.batches]
        if len(flops) == 1:
            return flops[0]
        source, config = self.source, self.config
        steps = range(min(SAMPLED, self.steps_per_pass))
        widths = [source.width_of(source.of_step(config.seed, config.batch_size, step)) for step in steps]
        return sum(flops[source.padded.index(width)] for width in widths) / len(widths)

    def dropped(self) -> dict[str, int]:
        """What the source does not read, as counts by what it is; sources that read everything say nothing."""
        told = self.source.dropped(self.config.batch_size) if hasattr(self.source, "dropped") else {}
        return {what: number for what, number in told.items() if number}

    def open_source(self, split: str) -> Any:
        """The source of another split, otherwise as in training."""
        return configs.build("source", {**self.config.source, "split": split})

    def evaluators(self, mesh: Mesh) -> dict[str, Any]:
        """Every evaluator of the config by name."""
        more = {
            "model": self.model,
            "objective": self.objective,
            "open_source": self.open_source,
            "mesh": mesh,
            "train_batch_size": self.config.batch_size,
        }
        return {name: configs.build("evaluator", fields, **more) for name, fields in self.config.evals.items()}


def assemble(config: Config) -> Run:
    """Build everything that a config names, and check that it fits together; no device is touched.

    Raises:
      ConfigError: one sentence that names the field.
    """
    from ctxjax.data import pipeline

    validate(config)
    source = configs.build("source", config.source)
    if "labels" in config.model and not config.model.labels and getattr(source, "labels", ()):
        with config.unlocked():
            config.model.labels = tuple(source.labels)
    model = configs.build("model", config.model)
    objective = configs.build("objective", config.objective)
    _validate_model(model, config, source)
    if getattr(objective, "split", False) != bool(getattr(model, "splits", ())):
        raise ConfigError(
            f"config.objective.split={getattr(objective, 'split', False)} does not go with "
            f"config.model.splits={getattr(model, 'splits', ())}: set both or neither"
        )
    rows = [pipeline.batch_at(source, seed=config.seed, batch_size=1, step=0)]
    if len(getattr(source, "padded", ())) > 1:
        rows = source.shapes()
    row = rows[-1]
    _validate_row(model, row)
    size = config.batch_size * math.prod(row["targets"].shape[1:])
    if getattr(objective, "sums", False) and objective.scale not in (1.0, size):
        raise ConfigError(
            f"config.objective.scale={objective.scale:g} is not the {size} targets of a batch, whose sum the original "
            f"steps along: set --config.objective.scale={size}, or 1 for their mean"
        )
    batches = [
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((config.batch_size, *leaf.shape[1:]), leaf.dtype), one)
        for one in rows
    ]
    tokens_per_step = config.batch_size * source.tokens_per_row
    steps_per_pass = source.steps_per_pass(config.batch_size)
    if steps_per_pass < 1:
        raise ConfigError(
            f"config.batch_size={config.batch_size} is more than one pass over the corpus gives; make it smaller"
        )
    total = Duration.parse(config.total, "total").steps(steps_per_epoch=steps_per_pass, tokens_per_step=tokens_per_step)

    def init_params() -> Any:
        inputs = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:]), leaf.dtype), batches[-1]["inputs"])
        return model.init(rngs.root_key(0), inputs, method="touch")["params"]

    rules = {"steps_per_epoch": steps_per_pass, **config.optim.to_dict()}
    tx, schedule = optim.make_optimizer(total, jax.eval_shape(init_params), **rules)
    return Run(config, model, objective, source, batches, steps_per_pass, tokens_per_step, total, tx, schedule)


def make_mesh(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a config over all devices (or those given), checked against its batch.

    Raises:
      ConfigError: sizes that do not fit the devices, or a batch that does not divide over them.
    """
    known = ("data", "fsdp", "tensor")
    for name in config.mesh:
        if name not in known:
            raise ConfigError(f"config.mesh.{name} is no axis{configs.did_you_mean(name, known)}")
    mesh = sharding.make_mesh(**config.mesh, devices=devices)
    parts = config.accum_steps * sharding.row_shards(mesh)
    if config.batch_size % parts:
        raise ConfigError(
            f"config.batch_size={config.batch_size} is not a multiple of {parts}, which is config.accum_steps="
            f"{config.accum_steps} times the {sharding.row_shards(mesh)} devices along data and fsdp"
        )
    return mesh


def placed(run: Run, mesh: Mesh) -> tuple[TrainState, list[str]]:
    """The abstract state with the sharding of every leaf, and notes on rules that could not be followed."""
    rules = sharding.named_rules(optional(run.config, "rules", "default"))
    shardings, notes = sharding.state_shardings(mesh, run.abstract, rules)
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), run.abstract, shardings
    )
    return abstract, notes


def check_resume(run: Run, meta: Mapping[str, Any]) -> list[str]:
    """Compare a run with the checkpoint that it would continue.

    Returns:
      A sentence for every difference that is allowed: cadence, length, mesh, logging.

    Raises:
      ConfigError: data, tokenizer, seed, model, objective, optimiser or batch differ, by name and with both values.
    """
    ours, theirs = configs.leaves(configs.to_dict(run.config)), configs.leaves(meta["config"])
    refused, changed = [], []
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name, "absent"), theirs.get(name, "absent")
        if here != there:
            fixed = name.split(".")[0] in FIXED and name not in FREE
            (refused if fixed else changed).append(f"config.{name} is {here!r} here and {there!r} in the checkpoint")
    tokenizer = run.source.tokenizer.digest()
    if tokenizer != meta["tokenizer"]:
        refused.append(f"the tokenizer is {tokenizer} here and {meta['tokenizer']} in the checkpoint")
    ours, theirs = configs.leaves(run.source.fingerprint), configs.leaves(meta["data"])
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            refused.append(f"the data's {name} is {ours.get(name)} here and {theirs.get(name)} in the checkpoint")
    if refused:
        more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
        raise ConfigError(f"{'; '.join(refused[:3])}{more}: put it back, or start a new run in another --workdir")
    if any(line.startswith("config.total ") for line in changed):
        changed.append("the length of the run changes its learning-rate schedule from here on")
    return changed
