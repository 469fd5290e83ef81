r"""What a run will cost, before it is launched: parameters, memory, FLOPs, time; no corpus and no accelerator needed.

    python -m ctxjax.plan --config experiments/bert/pretrain.py:size=large --devices 8 --config.mesh.fsdp=8 \
        --peak-tflops 312 --mfu 0.45
    python -m ctxjax.plan --config experiments/bert/pretrain.py:size=large --topology v5e:16x16

The second compiles the train step for that TPU slice (no TPU needed, but the extra [tpu]) and reports bytes a chip and
collectives, and exits with 1 if the step does not fit. Lengths in passes or tokens need --config.source.corpus.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctxjax import cli

if TYPE_CHECKING:
    from ctxjax.run import Run

NOMINAL_STEPS = 1_000_000  # of a schedule whose length needs a corpus; nothing that is reported depends on it


def assemble(config: Any) -> tuple[Run, bool]:
    """The run of a config, with its corpus if that is prepared, else with rows of the same shapes from an example.

    Returns:
      The run, and whether lengths (passes, tokens of a row) are those of the real corpus.
    """
    import importlib

    import jax
    import numpy as np

    from ctxjax import config as configs
    from ctxjax import optim, rngs, transfer
    from ctxjax import run as runs
    from ctxjax.config import ConfigError, Duration
    from ctxjax.data import pipeline
    from ctxjax.data.corpus import MANIFEST
    from ctxjax.data.shuffled import Shuffled

    if "encoder" in config.model and config.init_from.path:
        transfer.resolve(config)
    given = runs.optional(config.source, "corpus", "")
    if given and (pathlib.Path(given) / MANIFEST).exists():
        return runs.assemble(config), True
    name = config.source.name
    module = importlib.import_module(name if "." in name else f"ctxjax.data.sources.{name}")
    if not hasattr(module, "example"):
        raise ConfigError(f"source {name!r} has no example(), so plan needs --config.source.corpus")
    if hasattr(module, "stand_in"):
        stand_in = module.stand_in(config.source)
    else:
        stand_in = {"corpus": str(module.example().corpus.folder)}
    replaced = {field: config.source[field] for field in stand_in}
    with config.unlocked():
        config.source.update(stand_in)
        runs.validate(config)
        source = configs.build("source", config.source)
        config.source.update(replaced)
    model, objective = configs.build("model", config.model), configs.build("objective", config.objective)
    wide = isinstance(source, Shuffled)  # rows of `length`, though those of the stand-in's text are shorter
    row = source.take(np.zeros(1, np.int64)) if wide else pipeline.batch_at(source, seed=0, batch_size=1, step=0)
    if "vectors_of" in config.source and config.model.features:  # which need not be stored yet
        layers = [size] if (size := runs.optional(config.model, "feature_layers", 0)) else []
        shape = (1, source.length, *layers, config.model.features)
        row["inputs"]["features"] = np.zeros(shape, np.float32)
    shapes = {rows: _with_rows(row, rows) for rows in (1, config.batch_size)}
    tokens = config.batch_size * source.length
    total = Duration.parse(config.total, "total")
    steps = NOMINAL_STEPS
    if total.unit in ("steps", "tokens"):
        steps = total.steps(steps_per_epoch=math.nan, tokens_per_step=tokens)
    params = jax.eval_shape(lambda: model.init(rngs.root_key(0), _zeros(shapes[1]["inputs"]), method="touch")["params"])
    rules = {"steps_per_epoch": steps / total.amount if total.unit == "epochs" else None, **config.optim.to_dict()}
    tx, schedule = optim.make_optimizer(steps, params, **rules)
    batches = [shapes[config.batch_size]]
    return runs.Run(config, model, objective, source, batches, 0, tokens, steps, tx, schedule), False


def _with_rows(row: Any, rows: int) -> Any:
    import jax

    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), row)


def _zeros(shapes: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def parts(params: Any) -> dict[str, int]:
    """Parameters by the first name of their path; layers together."""
    from ctxjax import tree

    totals: dict[str, int] = {}
    for name, leaf in tree.flatten(params).items():
        first = re.sub(r"^layer_\d+$", "layers", name.split("/")[0])
        totals[first] = totals.get(first, 0) + math.prod(leaf.shape)
    return totals


def shard_bytes(placed: Any) -> int:
    """Bytes on one device of a tree of `ShapeDtypeStruct`s with shardings."""
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(placed)
    )


def make_plan(config: Any, devices: Sequence[Any], peak: float = 0.0, mfu: float = 0.4, compiles: bool = False) -> dict:
    """The plan as JSON-able data.

    Args:
      config: a locked config.
      devices: of the mesh; those of a TPU slice that is not there will do.
      peak: FLOP/s of one device; 0 takes the data sheet's where it is known.
      mfu: assumed fraction of it that model FLOPs get.
      compiles: compile the step for the devices, which must be from `topology.slice_devices`.
    """
    import jax

    from ctxjax import compiled, metrics, sharding, topology, tree
    from ctxjax import run as runs
    from ctxjax.config import Duration

    alone = sharding.make_mesh(devices=devices[:1])  # what a model asks of its device is asked of these
    run, real = sharding.on(alone, assemble)(config)
    mesh = runs.make_mesh(config, devices)
    abstract, notes = runs.placed(run, mesh, held=True)
    rows = sharding.batch_sharding(mesh)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), run.batch)
    kind = devices[0].device_kind
    if not real and run.config.source.corpus:
        notes = [*notes, f"the corpus {run.config.source.corpus} is not prepared, so lengths in passes are not known"]
    memory = {
        "parameters": shard_bytes(abstract.params),
        "optimizer": shard_bytes(abstract.opt_state),
        "gradient": shard_bytes(abstract.params),
        "carry": shard_bytes(abstract.carry),
        "batch": shard_bytes(batch),
    }
    flops = run.flops_per_step()
    known = real or Duration.parse(config.total, "total").unit in ("steps", "tokens")
    plan: dict[str, Any] = {
        "devices": len(devices),
        "device": kind,
        "mesh": dict(mesh.shape),
        "parameters": {"total": tree.count(run.abstract.params), **parts(run.abstract.params)},
        "memory_bytes": memory | {"total": sum(memory.values())},
        "notes": notes,
        "tokens_per_step": run.tokens_per_step,
        "tokens_are_positions": not real,
        "flops_per_step": flops,
        "flops_per_token": flops / run.tokens_per_step,
        "total_steps": run.total_steps if known else None,
        "steps_per_pass": run.steps_per_pass if real else None,
        "tokens_per_pass": run.steps_per_pass * run.tokens_per_step if real else None,
    }
    peak = peak or metrics.peak_flops(kind) or 0.0
    if peak:
        step_seconds = flops / (peak * mfu * len(devices))
        plan |= {"peak_flops": peak, "mfu": mfu, "step_seconds": step_seconds}
        plan["run_seconds"] = step_seconds * run.total_steps if known else None
    if compiles:
        found = topology.compile_step(run, mesh, abstract)
        there = topology.chip_memory(kind)
        least = topology.roofline(kind, flops / len(devices), found)
        plan["compiled"] = found._asdict() | {
            "total": found.total,
            "sent": compiled.sent(found.collectives or {}),
            "roofline": least and {**least._asdict(), "bound": least.bound, "seconds": max(least)},
            "chip_memory": there,
            "fits": not found.refused and (there is None or found.total <= there),
            "collectives": {kind: traffic._asdict() for kind, traffic in (found.collectives or {}).items()},
        }
    return plan


# --- the page ---


def size(nbytes: int | float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GiB"


def duration(seconds: int | float) -> str:
    """`3.2 days`, `5.0 hours`, `40 s`."""
    for length, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"


def page(plan: dict) -> str:
    """The plan for reading."""
    lines = [f"mesh {plan['mesh']} of {plan['devices']} x {plan['device']}", "", "parameters"]
    lines += [f"  {name:<12} {count:>15,}" for name, count in plan["parameters"].items()]
    lines += ["", "memory of one device, without activations"]
    lines += [f"  {name:<12} {size(nbytes):>15}" for name, nbytes in plan["memory_bytes"].items()]
    lines += [f"  note: {note}" for note in plan["notes"]]
    what = "positions, padding included" if plan["tokens_are_positions"] else "tokens"
    lines += ["", "work"]
    lines.append(f"  {plan['tokens_per_step']:,} {what}, and {plan['flops_per_step']:.4g} FLOPs a step")
    lines.append(f"  {plan['flops_per_token']:.4g} FLOPs a token, forward and backward")
    if plan["steps_per_pass"] is None:
        lines.append("  a pass: not known without --config.source.corpus")
    else:
        lines.append(f"  a pass: {plan['steps_per_pass']:,} steps, {plan['tokens_per_pass']:,} tokens")
    if plan["total_steps"] is not None:
        total = plan["total_steps"] * plan["tokens_per_step"]
        lines.append(f"  the run: {plan['total_steps']:,} steps, {total:,} {what}")
    if "peak_flops" in plan:
        lines.append(
            f"  at {plan['mfu']:.0%} of {plan['peak_flops'] / 1e12:.4g} TFLOP/s a device: "
            f"{plan['step_seconds']:.3g} s a step"
            + (f", {duration(plan['run_seconds'])} in all" if plan["run_seconds"] is not None else "")
        )
    else:
        lines.append("  time: give --peak-tflops, the peak of one device")
    return "\n".join(lines + (_compiled(plan["compiled"]) if "compiled" in plan else []))


def _compiled(found: dict) -> list[str]:
    lines = ["", "compiled for one chip"]
    if found["refused"]:
        return [*lines, f"  does not fit: {found['refused']}"]
    names = ("arguments", "outputs", "aliased", "temporary", "code")
    lines += [f"  {name:<12} {size(found[name]):>15}" for name in names]
    there = f" of {size(found['chip_memory'])}" if found["chip_memory"] else ""
    lines.append(f"  {'total':<12} {size(found['total']):>15}{there}: {'fits' if found['fits'] else 'does not fit'}")
    lines += ["", "collectives of one step"]
    lines += [
        f"  {kind:<18} {traffic['count']:>6} x {size(traffic['nbytes'] / traffic['count']):>10} = "
        f"{size(traffic['nbytes'])}"
        for kind, traffic in found["collectives"].items()
    ] or ["  none"]
    if least := found["roofline"]:
        lines += ["", "the least time of a step by the data sheet, each alone"]
        lines += [
            f"  {'products':<18} {1e3 * least['products']:>10.3g} ms",
            f"  {'memory':<18} {1e3 * least['memory']:>10.3g} ms, {size(found['accessed'])} read and written",
            f"  {'links':<18} {1e3 * least['links']:>10.3g} ms, {size(found['sent'])} sent",
        ]
    return lines


def _devices(count: int) -> list[Any]:
    """Stand-ins for `count` devices: CPU ones, on which nothing is run."""
    import jax

    from ctxjax.config import ConfigError

    if len(jax.devices("cpu")) < count:
        raise ConfigError(f"--devices={count} is more than this process can stand in for; start plan by itself")
    return jax.devices("cpu")[:count]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ctxjax.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(parser)
    parser.add_argument("--devices", type=int, metavar="N", help="devices; without it as many as the mesh names")
    parser.add_argument("--topology", metavar="CHIP:AxB", help="a TPU slice to compile for, as in v5e:16x16")
    parser.add_argument("--peak-tflops", "--peak_tflops", type=float, default=0.0, help="peak of one device")
    parser.add_argument("--mfu", type=float, default=0.4, help="assumed fraction of the peak (default 0.4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a page")
    args, config = cli.parse(parser, argv)

    import jax

    from ctxjax import topology
    from ctxjax.config import ConfigError

    if not 0 < args.mfu <= 1:
        raise ConfigError(f"--mfu={args.mfu} is not between 0 and 1")
    named = math.prod(size for size in config.mesh.values() if size > 0)
    count = named if args.devices is None else args.devices
    if count < 1:
        raise ConfigError(f"--devices={count} must be at least 1")
    jax.config.update("jax_platforms", "cpu")
    if args.topology:
        devices = topology.slice_devices(args.topology)
        if args.devices not in (None, len(devices)):
            raise ConfigError(f"--devices={args.devices} is not the {len(devices)} chips of {args.topology}; leave it")
    else:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            pass  # JAX runs already, with as many as it has
        devices = _devices(count)
    plan = make_plan(config, devices, args.peak_tflops * 1e12, args.mfu, bool(args.topology))
    print(json.dumps(plan, indent=1) if args.json else page(plan))
    return 0 if plan.get("compiled", {}).get("fits", True) else 1


if __name__ == "__main__":
    cli.main_guard(main)
