"""Measuring: sides that take turns, peaks of arithmetic and of memory, and what is said of them, for any work."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

OURS = "ctxjax"
PROCESSES = "peak PSS of its processes"
COMPILING = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Step:
    """What one call of a side did.

    Attributes:
      amount: of what is counted.
      seconds: where a side keeps time itself, since not all that it does is to be measured.
      loss: of a step of training, to see that both sides learn.
      memory: peak bytes of the processes that it started.
      also: other figures by name, with their units in it.
    """

    amount: float
    seconds: float | None = None
    loss: float | None = None
    memory: int | None = None
    also: Mapping[str, float] = dataclasses.field(default_factory=dict)


Side = Callable[[], Step]


@dataclasses.dataclass(frozen=True)
class Work:
    """What an item runs, and beside what.

    Attributes:
      counted: the unit of `Step.amount`, a plural.
      ours: builds our side.
      variants: build other ways of ours by name, which are timed too.
      peers: build other people's sides by name, which are timed with --compare.
      needs: modules that the peers import.
      flops: of one of what is counted, by the analytic count of the model; 0 where products are not the work.
      executed: of one, without those that are saved (repeats, padding); the fraction of peak is theirs. None: `flops`.
      dtype: of the products.
      steps: calls that are one turn.
      on: "device", that of JAX, or "host".
      notes: what else a reader of the record needs to know.
    """

    counted: str
    ours: Callable[[], Side]
    variants: Mapping[str, Callable[[], Side]] = dataclasses.field(default_factory=dict)
    peers: Mapping[str, Callable[[], Side]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    flops: float = 0.0
    executed: float | None = None
    dtype: str = "float32"
    steps: int = 1
    on: str = "device"
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a side; `processor` is None where the side kept time itself."""

    amount: float
    seconds: float
    processor: float | None
    last: Step


def take_turn(
    side: Side,
    steps: int,
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> Turn:
    """Call a side `steps` times and add up."""
    began, used = clock(), processor()
    done = [side() for _ in range(steps)]
    wall, spent = clock() - began, processor() - used
    own = [one.seconds for one in done if one.seconds is not None]
    amount = sum(one.amount for one in done)
    return Turn(amount, sum(own), None, done[-1]) if own else Turn(amount, wall, spent, done[-1])


def in_turns(sides: Mapping[str, Side], turns: int, steps: int, say: Callable[[str], None], **clocks: Any) -> dict:
    """Turns of every side, A B A B, so that a busy machine slows all of them: `{side: [Turn]}`."""
    taken: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(1, turns + 1):
        for name, side in sides.items():
            turn = take_turn(side, steps, **clocks)
            taken[name].append(turn)
            say(f"turn {number} of {turns}, {name}: {turn.amount / turn.seconds:,.1f} a second")
    return taken


def spread(values: list[float]) -> dict[str, float]:
    """Median and range, to five digits."""
    of = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.5g}") for name, value in of.items()}


def summary(turns: list[Turn], steps: int, cores: int) -> dict[str, Any]:
    """Rate, seconds of a step, what a second of all cores' processor time did, first and last loss, other figures."""
    made: dict[str, Any] = {"rate": spread([turn.amount / turn.seconds for turn in turns])}
    made["seconds"] = spread([turn.seconds / steps for turn in turns])["median"]
    busy = [turn.amount * cores / turn.processor for turn in turns if turn.processor]
    made["rate_of_processor"] = spread(busy)["median"] if busy else None
    losses = [turns[0].last.loss, turns[-1].last.loss]
    made["loss"] = None if None in losses else losses
    names = turns[-1].last.also
    made["also"] = {name: spread([turn.last.also[name] for turn in turns])["median"] for name in names}
    return made


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str = "rate") -> float | None:
    """Ours over theirs; None where one of them has no such figure."""
    of = [side[name]["median"] if isinstance(side[name], Mapping) else side[name] for side in (ours, theirs)]
    return None if None in of else round(of[0] / of[1], 3)


def matmul_peak(dtype: str, size: int, times: int = 5) -> float:
    """FLOP/s of the best of a few products of two square matrices on JAX's device."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        jax.block_until_ready(product(x))
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def resident(what: str = "VmRSS") -> int:
    """Bytes of this process that are in memory (`VmRSS`), or were at most (`VmHWM`)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {what}")


def memory_of(build: Callable[[], Side], warm: Callable[[Side], Turn], on: str) -> tuple[Side, dict[str, Any]]:
    """A side that has taken its first turn, and the most memory it held.

    On an accelerator the allocator knows. Elsewhere it is what the process grew by, from before the side was made to
    the peak of the turn; of a side that starts processes, what it says of them.
    """
    before = resident()
    side = build()
    with contextlib.suppress(OSError):  # without the right to, the peak is that of making the side too
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    told = warm(side).last.memory
    if told is not None:
        return side, {"kind": PROCESSES, "bytes": told}
    if on == "device":
        import jax

        if stats := jax.devices()[0].memory_stats():
            return side, {"kind": "peak bytes of the device's allocator", "bytes": stats["peak_bytes_in_use"]}
    return side, {"kind": "peak RSS growth", "bytes": max(0, resident("VmHWM") - before)}


@contextlib.contextmanager
def compile_seconds() -> Iterator[Callable[[], float]]:
    """What XLA spent on compiling since; tracing and lowering, whose events are nested, are left out."""
    from jax import monitoring

    spent = [0.0]

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == COMPILING:
            spent[0] += seconds

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: round(spent[0], 2)
    finally:
        monitoring.unregister_event_duration_listener(listen)


def measure(
    name: str,
    work: Work,
    turns: int,
    steps: int = 0,
    compare: bool = False,
    size: int = 0,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Run an item and say everything about it.

    Args:
      name: of the item.
      turns: of each side, after one to warm up.
      steps: of a turn; 0: as many as the work asks for.
      compare: take turns with the peers.
      size: of the matrices whose product is the peak; 0 chooses by device.

    Returns:
      The fields of docs/bench.md.
    """
    steps, cores, load = steps or work.steps, len(os.sched_getaffinity(0)), os.getloadavg()[0]
    device = device_of(work)
    peak = lambda: matmul_peak(work.dtype, size or (2048 if device["platform"] == "cpu" else 8192))
    peaks = [peak()] if work.flops else []
    warm = lambda side: take_turn(side, steps)
    say(f"{name}: making {OURS}")
    if work.on == "device":
        with compile_seconds() as compiling:
            side, memory = memory_of(work.ours, warm, work.on)
        compiled = None if memory["kind"] == PROCESSES else compiling()  # theirs is not seen from here
    else:
        (side, memory), compiled = memory_of(work.ours, warm, work.on), None
    sides = {OURS: side}
    for other, build in [*work.variants.items(), *(work.peers.items() if compare else ())]:
        say(f"{name}: making {other}")
        sides[other] = build()
        warm(sides[other])
    taken = in_turns(sides, turns, steps, say)
    peaks += [peak()] if work.flops else []
    found = {other: summary(one, steps, cores) for other, one in taken.items()}
    ours = found.pop(OURS)
    executed = work.flops if work.executed is None else work.executed
    share = round(executed * ours["rate"]["median"] / max(peaks), 4) if peaks else None
    return {
        "item": name,
        "device": device["name"],
        "dtype": work.dtype,
        "counted": work.counted,
        "turns": turns,
        "steps": steps,
        **ours,
        "fraction_of_peak": share,
        "peak_flops": [float(f"{value:.4g}") for value in peaks],
        "flops": work.flops,
        "flops_executed": executed,
        "memory": memory,
        "compile_seconds": compiled,
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "cores": cores,
        "variants": {other: found[other] for other in work.variants},
        "peers": {other: found[other] for other in work.peers if other in found},
        "ratio": {other: ratio(ours, found[other]) for other in work.peers if other in found},
        "ratio_of_processor": {
            other: ratio(ours, found[other], "rate_of_processor") for other in work.peers if other in found
        },
        "notes": dict(work.notes),
    }


def device_of(work: Work) -> dict[str, str]:
    """Kind of device and its platform."""
    if work.on == "host":
        return {"name": "cpu", "platform": "cpu"}
    import jax

    first = jax.devices()[0]
    return {"name": first.device_kind, "platform": first.platform}


def figures(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger shows of an item: rates, ratios, the fraction of peak, memory, compilation."""
    unit = f"{line['counted']}/s"
    where = f" at load {max(line['load_average']):.1f}"
    shown: dict[str, Any] = {f"{OURS}{where}": line["rate"] | {"unit": unit}}
    for group in ("variants", "peers"):
        shown |= {f"{name}{where}": side["rate"] | {"unit": unit} for name, side in line[group].items()}
    shown |= {f"ratio to {name}": value for name, value in line["ratio"].items()}
    if line["fraction_of_peak"] is not None:
        shown["fraction of peak"] = line["fraction_of_peak"]
    shown[line["memory"]["kind"]] = f"{line['memory']['bytes'] / 1e6:,.0f} MB"
    if line["compile_seconds"] is not None:
        shown["compile seconds"] = line["compile_seconds"]
    shown |= line["also"]
    for name, side in line["peers"].items():
        shown |= {f"{what}, {name}": value for what, value in side["also"].items()}
    return shown
