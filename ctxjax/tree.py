"""Pytrees with named paths: `head/mlm/kernel` is how rules, checkpoints, probes and messages speak of a parameter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def path_name(path: tuple[Any, ...]) -> str:
    """`(DictKey('a'), SequenceKey(0), GetAttrKey('b'))` -> `a/0/b`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of any pytree by path name, in the tree's own order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose `flatten` is `leaves`; inverse of `flatten` for trees of dicts."""
    root: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return root


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function is given the path name first."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(path_name(path), *leaves), tree, *rest)


def select(tree: Any, pattern: str) -> dict[str, Any]:
    """The leaves whose path name holds a match of the regular expression."""
    regex = re.compile(pattern)
    return {name: leaf for name, leaf in flatten(tree).items() if regex.search(name)}


def merge(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """`tree` with the named leaves replaced.

    Raises:
      KeyError: a name that is not in the tree.
    """
    unknown = sorted(set(leaves) - set(flatten(tree)))
    if unknown:
        raise KeyError(f"no such path in the tree: {', '.join(unknown)}")
    return map_named(lambda name, leaf: leaves.get(name, leaf), tree)


def count(tree: Any) -> int:
    """Number of array elements in all leaves (arrays or `ShapeDtypeStruct`s)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Bytes of all leaves (arrays or `ShapeDtypeStruct`s)."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def diff(expected: Any, actual: Any) -> list[str]:
    """What differs in paths, shapes and dtypes, one sentence a leaf; empty when the two trees agree."""
    ours, theirs = flatten(expected), flatten(actual)
    lines = [f"{name} is missing" for name in ours if name not in theirs]
    lines += [f"{name} is not expected" for name in theirs if name not in ours]
    for name in ours:
        if name in theirs:
            want, have = ours[name], theirs[name]
            if tuple(want.shape) != tuple(have.shape) or want.dtype != have.dtype:
                lines.append(
                    f"{name} is {have.dtype}{list(have.shape)} where {want.dtype}{list(want.shape)} is expected"
                )
    return lines
