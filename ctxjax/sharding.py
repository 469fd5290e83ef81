"""Where arrays live: one mesh with the axes data, fsdp and tensor, and rules from path names to partitions.

Models carry no sharding code, but that what passes from layer to layer is said to be `rows`. A rule is
`(regular expression over the path name, partition)`; the first match decides.
A partition names a mesh axis (or None) for each array axis, or is `LARGEST`: split the largest array axis that fsdp
divides. A mesh axis that does not divide its array axis is left out there, and a note says so. Optimiser slots follow
the parameter whose path ends theirs; rows of the batch and of the carry are split over data and fsdp together.

The rules give tensor parallelism as in Megatron-LM (Shoeybi et al. 2019, section 3): the first matrix of a block is
split by columns and the second by rows, so that one reduction a block is enough. The two directions of a biLM never
talk to each other, so there tensor splits the direction axis and the recurrence needs no communication at all.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ctxjax import tree
from ctxjax.config import ConfigError

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")
LARGEST = "largest"
SMALL = 4096  # arrays with fewer elements are replicated: gathering them costs more than holding them
Partition = tuple[str | None, ...] | str
Rules = Sequence[tuple[str, Partition]]

DEFAULT_RULES: Rules = (
    (r"embed/tokens/embedding$", ("tensor", "fsdp")),
    (r"head/softmax/embedding$", ("tensor", "fsdp")),
    (r"(attention/(query|key|value)|mlp/in)/kernel$", ("fsdp", "tensor")),
    (r"(attention/(query|key|value)|mlp/in)/bias$", ("tensor",)),
    (r"(attention|mlp)/out/kernel$", ("tensor", "fsdp")),
    (r"lstm/(input_kernel|recurrent_kernel|projection)$", ("tensor", None, "fsdp")),
    (r"lstm/bias$", ("tensor", None)),
    (r"", LARGEST),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a run.

    Args:
      data: devices along which the batch alone is split; -1 takes what the other axes leave.
      fsdp: devices along which batch, parameters and optimiser state are split.
      tensor: devices along which the matrices of a layer are split.
      devices: all devices of all processes by default.

    Raises:
      ConfigError: sizes that do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
        raise ConfigError(f"config.mesh={sizes} needs sizes of at least 1, and -1 for one axis at the most")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if free:
        sizes[free[0]] = len(devices) // fixed
    if int(np.prod(list(sizes.values()))) != len(devices):
        raise ConfigError(f"config.mesh={sizes} does not multiply to the {len(devices)} devices there are")
    shape = tuple(sizes[name] for name in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def on(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, to be jitted, that sees the mesh while it is traced.

    The compiler splits everything over the mesh by itself but kernels (`models/layers/flash.py`), which look for it.
    """

    @functools.wraps(function)
    def seeing(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return seeing


def platform() -> str:
    """The device, "cpu", "gpu" or "tpu": that of the mesh that is traced for (`on`), or else what JAX has."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    found = jax.default_backend() if device is None else device.platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(found, found)


def row_shards(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return int(np.prod([mesh.shape[name] for name in ROWS]))


def process_rows(mesh: Mesh) -> tuple[int, int]:
    """`(index, count)`: this process feeds rows `[index, index + 1) * B / count` of every global batch.

    Processes that differ only along the tensor axis feed the same rows.
    """
    mine = {
        data * mesh.shape["fsdp"] + fsdp
        for (data, fsdp, _), device in np.ndenumerate(mesh.devices)
        if device.process_index == jax.process_index()
    }
    return min(mine) // len(mine), row_shards(mesh) // len(mine)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over data and fsdp."""
    return NamedSharding(mesh, P(ROWS))


def rows(x: Any) -> Any:
    """An array of which axis 0 are the rows of a batch: split over data and fsdp, and whole along every other axis.

    Left to itself the compiler may split features over fsdp, as parameters are, and then sums or regroups activations
    in every layer where it should have gathered the parameters. Nothing where no mesh is in sight (`on`), nor where
    rows do not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % row_shards(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, P(ROWS))


def put(batch: Any, where: Mesh | NamedSharding) -> Any:
    """This process's NumPy rows as global arrays: split over a mesh as batches are, or as it is said."""
    sharding = batch_sharding(where) if isinstance(where, Mesh) else where
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def named_rules(name: str) -> Rules:
    """`"default"`, `"replicated"`, or the `RULES` of a module by its dotted name."""
    if name == "default":
        return DEFAULT_RULES
    if name == "replicated":
        return ()
    if "." not in name:
        raise ConfigError(f"config.rules={name!r} is not 'default', 'replicated' or a dotted module that has RULES")
    import importlib

    return importlib.import_module(name).RULES


def partition(name: str, shape: Sequence[int], mesh: Mesh, rules: Rules) -> tuple[P, str | None]:
    """The partition of one array by its path name, and a note where a rule could not be followed."""
    wanted = next((where for pattern, where in rules if re.search(pattern, name)), ())
    if wanted == LARGEST:
        size = mesh.shape["fsdp"]
        if size == 1 or int(np.prod(shape)) < SMALL:
            return P(), None
        axes = [axis for axis in range(len(shape)) if shape[axis] % size == 0]
        if not axes:
            return P(), f"{name} {list(shape)} is replicated: fsdp={size} divides none of its axes"
        largest = max(axes, key=lambda axis: shape[axis])
        return P(*(("fsdp" if axis == largest else None) for axis in range(len(shape)))), None
    if len(wanted) > len(shape):
        return P(), f"{name} {list(shape)} is replicated: its rule {wanted} has more axes than the array"
    kept, refused = [], []
    for size, axis in zip(shape, wanted):
        if axis is None or mesh.shape[axis] == 1 or (axis == "fsdp" and int(np.prod(shape)) < SMALL):
            kept.append(None)
        elif size % mesh.shape[axis]:
            kept.append(None)
            refused.append(f"{axis}={mesh.shape[axis]} does not divide {size}")
        else:
            kept.append(axis)
    note = f"{name} {list(shape)} is replicated along {len(refused)} axis: {', '.join(refused)}" if refused else None
    return P(*kept), note


def state_shardings(mesh: Mesh, abstract_state: Any, rules: Rules = DEFAULT_RULES) -> tuple[Any, list[str]]:
    """A `NamedSharding` for every leaf of a train state.

    Args:
      mesh: from `make_mesh`.
      abstract_state: a `TrainState` of arrays or `ShapeDtypeStruct`s (or any tree with `params`, `opt_state`, `carry`).
      rules: `(pattern, partition)` pairs, the first match decides; what nothing matches is replicated.

    Returns:
      The tree of shardings, and one note for each parameter whose rule could not be followed.
    """
    notes: list[str] = []
    specs: dict[str, tuple[tuple[int, ...], P]] = {}
    for name, leaf in tree.flatten(abstract_state.params).items():
        spec, note = partition(name, leaf.shape, mesh, rules)
        specs[name] = (tuple(leaf.shape), spec)
        notes += [note] if note else []

    def of(name: str, leaf: Any) -> NamedSharding:
        group, _, rest = name.partition("/")
        if group == "params":
            return NamedSharding(mesh, specs[rest][1])
        if group == "carry" and leaf.ndim and leaf.shape[0] % row_shards(mesh) == 0:
            return batch_sharding(mesh)
        if group == "opt_state":
            return NamedSharding(mesh, _slot(rest, tuple(leaf.shape), specs))
        return replicated(mesh)

    return tree.map_named(of, abstract_state), notes


def _slot(name: str, shape: tuple[int, ...], specs: Mapping[str, tuple[tuple[int, ...], P]]) -> P:
    """The partition of an optimiser slot: its parameter's, found by the longest path that ends the slot's own."""
    parts = name.split("/")
    for start in range(len(parts)):
        found = specs.get("/".join(parts[start:]))
        if found is not None:
            return found[1] if found[0] == shape else P()
    return P()
