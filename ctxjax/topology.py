"""Compiling a train step for a TPU slice that is not there: bytes per chip and collectives, before anything is booked.

The compiler of `libtpu` runs on any Linux machine and needs a description of the slice only, such as `v5e:16x16`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ctxjax.config import ConfigError

# Memory of one chip in GiB by what JAX calls it, from the makers' data sheets. First match wins.
MEMORY = (("TPU v6 lite", 32), ("TPU v5 lite", 16), ("TPU v5p", 95), ("TPU v5", 95), ("TPU v4", 32))
EXAMPLES = "v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16"
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


# Or libtpu asks a cloud for the machine that it is on, complains that there is none, and locks the TPU.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Traffic(NamedTuple):
    """Collectives of one kind in one step."""

    count: int
    nbytes: int


class Compiled(NamedTuple):
    """What the compiler says of one step on one chip, in bytes.

    Attributes:
      arguments: the state and the batch as they are placed.
      outputs: the new state; `aliased` of it take the place of arguments.
      temporary: activations, gradients and buffers of collectives, at their largest.
      code: the program.
      collectives: by kind, loops multiplied by their trip counts; the size is that of the whole array as one chip
        sees it (gathered, or before it is scattered).
      refused: why the compiler gave up (it does not fit), or empty.
    """

    arguments: int = 0
    outputs: int = 0
    aliased: int = 0
    temporary: int = 0
    code: int = 0
    collectives: dict[str, Traffic] | None = None
    refused: str = ""

    @property
    def total(self) -> int:
        """Bytes of the chip's memory that the step needs."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.code


def slice_devices(topology: str) -> list[Any]:
    """The devices of a slice, which can be compiled for and not be used.

    Args:
      topology: `CHIP:AxB` or `CHIP:AxBxC`, as in `v5e:16x16`.

    Raises:
      ConfigError: libtpu is not installed, or knows no such slice.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import importlib.util

    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology needs the TPU compiler: pip install 'ctxjax[tpu]' (any Linux machine will do)")
    try:
        cores = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}  # both cores are one device
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **cores).devices)
    except Exception as error:  # whatever the plug-in raises, and it raises several kinds
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"--topology={topology!r} is no TPU slice, as {EXAMPLES} are: {reason}") from None


def chip_memory(kind: str) -> int | None:
    """Bytes of memory of a device kind, None where it is not known."""
    return next((size * 2**30 for name, size in MEMORY if name.lower() in kind.lower()), None)


def compile_step(run: Any, mesh: Any, abstract: Any) -> Compiled:
    """Compile the train step of a run for the devices of a mesh.

    Args:
      run: a `ctxjax.run.Run`.
      mesh: over `slice_devices`.
      abstract: the abstract state with its shardings, from `ctxjax.run.placed`.
    """
    import jax

    from ctxjax import rngs, sharding

    step = run.train_step()
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), run.batch)
    root = jax.eval_shape(lambda: rngs.root_key(0))
    root = jax.ShapeDtypeStruct(root.shape, root.dtype, sharding=whole)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    jitted = jax.jit(
        sharding.on(mesh, step),
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    try:
        with _as_on(mesh):
            compiled = jitted.lower(abstract, batch, root).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(refused=" ".join(str(error).split())[:300])
    memory = compiled.memory_analysis()
    assert memory is not None
    return Compiled(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        collectives(compiled.as_text() or ""),
    )


@contextlib.contextmanager
def _as_on(mesh: Any) -> Iterator[None]:
    """Trace and compile as on the slice.

    Chunk sizes depend on what kind of devices JAX says that there are, and how many. And what is compiled without a
    device can be written to the cache of compiled programs, but not read from it.
    """
    import jax

    before, cached = (jax.default_backend, jax.device_count), jax.config.jax_persistent_cache_min_compile_time_secs
    jax.default_backend, jax.device_count = lambda: "tpu", lambda *_: mesh.size
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    try:
        yield
    finally:
        jax.default_backend, jax.device_count = before
        jax.config.update("jax_persistent_cache_min_compile_time_secs", cached)


# --- reading a compiled module ---

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|[a-z]+[0-9]+(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def _size(shapes: str) -> int:
    total = 0
    for kind, axes in _SHAPE.findall(shapes):
        bits = 8 if kind == "pred" else int(re.sub(r"^[a-z]+", "", kind).split("e")[0])
        total += math.prod(int(axis) for axis in axes.split(",") if axis) * max(bits // 8, 1)
    return total


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of every computation by its name, and the name of the entry."""
    found: dict[str, list[_Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if opened := _COMPUTATION.match(line):
            current = opened[1]
            found[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (instruction := _INSTRUCTION.match(line)):
            found[current].append(_Instruction(*instruction.groups()))
    return found, entry


def _trips(loop: str, condition: list[_Instruction]) -> int:
    """How often a loop runs: as the compiler notes it, or the constant that its counter is compared with."""
    if known := re.search(r'known_trip_count[^0-9]*?"?n"?:"?(\d+)', loop):
        return int(known[1])
    constants = [re.match(r"(\d+)\)", line.rest) for line in condition if line.operation == "constant"]
    numbers = [int(constant[1]) for constant in constants if constant]
    return max(numbers) if numbers else 1


def collectives(text: str) -> dict[str, Traffic]:
    """Collectives of a compiled module by kind.

    A collective that the compiler splits into a start, a part that runs under a fusion and an end has one channel
    number, and counts once.
    """
    computations, entry = _computations(text)
    channels: dict[str, tuple[str, int, int]] = {}

    def visit(name: str, times: int) -> None:
        shapes = {line.name: line.shape for line in computations[name]}
        for index, line in enumerate(computations[name]):
            kind = line.operation.removesuffix("-start")
            if kind in COLLECTIVES:
                operands = line.rest.split("), ")[0]
                given = sum(_size(shapes.get(operand, "")) for operand in re.findall(r"%?([\w.\-]+)", operands))
                made = _size(line.shape) - (given if line.operation.endswith("-start") else 0)
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                channel = re.search(r"channel_id=(\d+)", line.rest)
                key = channel[1] if channel else f"{name} {index}"
                known = channels.get(key, (kind, 0, 0))
                channels[key] = (kind, max(known[1], times), max(known[2], given, made))
            inside = times
            if line.operation == "while" and (condition := re.search(r"condition=%?([\w.\-]+)", line.rest)):
                inside = times * _trips(line.rest, computations.get(condition[1], []))
            called = _CALLED.findall(line.rest)
            for branches in _BRANCHES.findall(line.rest):
                called += re.findall(r"[\w.\-]+", branches)
            for other in called:
                if other in computations and other != name:
                    visit(other, inside)

    visit(entry, 1)
    totals: dict[str, Traffic] = {}
    for kind, times, size in channels.values():
        count, nbytes = totals.get(kind, Traffic(0, 0))
        totals[kind] = Traffic(count + times, nbytes + times * size)
    return totals
