"""Compiling a train step for a TPU slice that is not there: bytes per chip and collectives, before anything is booked.

The compiler of `libtpu` runs on any Linux machine and needs a description of the slice only, such as `v5e:16x16`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ctxjax import metrics
from ctxjax.compiled import Traffic, bytes_accessed, collectives, sent
from ctxjax.config import ConfigError

# Memory of one chip in GiB by what JAX calls it, from the makers' data sheets. First match wins.
MEMORY = (("TPU v6 lite", 32), ("TPU v5 lite", 16), ("TPU v5p", 95), ("TPU v5", 95), ("TPU v4", 32))
# Bytes a second of one chip: its memory's, and what it sends over all of its links together, which is half of the
# "bidirectional inter-chip interconnect bandwidth" of cloud.google.com/tpu/docs/v5e and v5p; v4 and v6e from memory.
BANDWIDTHS = (
    ("TPU v6 lite", 1640e9, 400e9),
    ("TPU v5 lite", 819e9, 200e9),
    ("TPU v5p", 2765e9, 600e9),
    ("TPU v5", 2765e9, 600e9),
    ("TPU v4", 1200e9, 300e9),
)
EXAMPLES = "v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16"


# Or libtpu asks a cloud for the machine that it is on, complains that there is none, and locks the TPU.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Compiled(NamedTuple):
    """What the compiler says of one step on one chip, in bytes.

    Attributes:
      arguments: the state and the batch as they are placed.
      outputs: the new state; `aliased` of it take the place of arguments.
      temporary: activations, gradients and buffers of collectives, at their largest.
      code: the program.
      accessed: of the chip's memory, read and written in one step, loops as often as they run.
      collectives: by kind, loops multiplied by their trip counts; the size is that of the whole array as one chip
        sees it (gathered, or before it is scattered).
      refused: why the compiler gave up (it does not fit), or empty.
    """

    arguments: int = 0
    outputs: int = 0
    aliased: int = 0
    temporary: int = 0
    code: int = 0
    accessed: int = 0
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


class Roofline(NamedTuple):
    """The least seconds of one step that products, memory and links allow, each by itself."""

    products: float
    memory: float
    links: float

    @property
    def bound(self) -> str:
        """Which of them is the most."""
        return max(self._fields, key=lambda name: getattr(self, name))


def roofline(kind: str, flops: float, found: Compiled) -> Roofline | None:
    """Seconds of one step by the data sheet of a chip, None where that is not known.

    Args:
      kind: what JAX calls the chip.
      flops: of its products in one step, analytic; what is recomputed does not count.
      found: what was compiled for it.
    """
    known = next((rates for name, *rates in BANDWIDTHS if name.lower() in kind.lower()), None)
    peak = metrics.peak_flops(kind)
    if known is None or peak is None or found.refused:
        return None
    return Roofline(flops / peak, found.accessed / known[0], sent(found.collectives or {}) / known[1])


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
    memory, text = compiled.memory_analysis(), compiled.as_text() or ""
    assert memory is not None
    return Compiled(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        bytes_accessed(text),
        collectives(text),
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
