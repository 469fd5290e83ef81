"""HDF5 arrays read without trust: hard links alone, inside one file, of the shape that is expected."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ctxjax.config import ConfigError

EXPANSION = 1000  # times that a compressed array may be larger than what is stored of it


class Arrays:
    """The arrays of an HDF5 file by path name; a context manager.

    HDF5 can point into other files (external links, external storage, virtual arrays) and can claim arrays of any size
    that are not stored: both are refused.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Raises ConfigError: no such file, or not HDF5."""
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise ConfigError(f"{self.path} does not exist")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise ConfigError(f"{self.path} is not an HDF5 file ({str(error)[:80]})") from None

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _node(self, name: str) -> Any:
        """A group or array, or None; every step on the way must be a hard link."""
        node: Any = self._file
        for part in name.split("/"):
            if not isinstance(node, h5py.Group):
                return None
            link = node.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise ConfigError(f"{self.path}: {name!r} is a link to elsewhere, which is not followed")
            node = node[part]
        return node

    def __contains__(self, name: str) -> bool:
        return self._node(name) is not None

    def names(self) -> Iterator[str]:
        """Path names of all arrays that hard links reach."""
        stack: list[tuple[str, Any]] = [("", self._file)]
        seen: set[Any] = set()
        while stack:
            prefix, group = stack.pop()
            if group.id.__hash__() in seen:
                continue
            seen.add(group.id.__hash__())
            for part in group:
                if isinstance(group.get(part, getlink=True), h5py.HardLink):
                    node = group[part]
                    if isinstance(node, h5py.Dataset):
                        yield prefix + part
                    else:
                        stack.append((f"{prefix}{part}/", node))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that an array claims.

        Raises:
          ConfigError: there is no such array.
        """
        node = self._node(name)
        if not isinstance(node, h5py.Dataset):
            raise ConfigError(f"{self.path} has no array {name!r}")
        return tuple(int(length) for length in node.shape or ())

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One array as float32.

        Raises:
          ConfigError: it is missing, of another shape, not stored in this file, or not finite numbers.
        """
        found = self.shape(name)
        if found != shape:
            raise ConfigError(f"{self.path}: {name} has shape {list(found)} where {list(shape)} is expected")
        node = self._node(name)
        if node.is_virtual or node.external:
            raise ConfigError(f"{self.path}: {name} is stored in another file, which is not opened")
        if node.dtype.kind != "f":
            raise ConfigError(f"{self.path}: {name} holds {node.dtype}, not floating-point numbers")
        stored = node.id.get_storage_size()
        if stored * EXPANSION < node.nbytes:
            raise ConfigError(f"{self.path}: {name} claims {node.nbytes} bytes, of which {stored} are stored")
        array = np.asarray(node[()], np.float32)
        if not np.isfinite(array).all():
            raise ConfigError(f"{self.path}: {name} holds numbers that are not finite")
        return array
