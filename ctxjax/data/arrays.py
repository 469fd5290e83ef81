"""Files that are complete or do not exist: atomic names, `.npy` arrays written in pieces, digests."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import xxhash
from jaxtyping import Shaped


def replace(part: pathlib.Path, path: pathlib.Path) -> None:
    """Give a finished file its name: flushed to disk first, so that a name always stands for whole content."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


class ArrayWriter:
    """A 1-D `.npy` file of unknown length written in pieces, so memory stays bounded; complete when closed."""

    def __init__(self, path: str | os.PathLike[str], dtype: Any):
        self.path, self.dtype, self.length = pathlib.Path(path), np.dtype(dtype), 0
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._file = open(self._part, "wb")
        self._header(0)

    def append(self, values: Shaped[np.ndarray, " _"]) -> None:
        """Add values at the end."""
        self._file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.length += len(values)

    def close(self) -> None:
        """Write the length into the header and give the file its name."""
        self._file.seek(0)
        self._header(self.length)
        self._file.close()
        replace(self._part, self.path)

    def discard(self) -> None:
        """Drop an unfinished file."""
        self._file.close()
        self._part.unlink(missing_ok=True)

    def _header(self, length: int) -> None:
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, described)
        if self._file.tell() != 128:
            raise AssertionError("the header of a one-dimensional npy file is expected to take 128 bytes")


def file_digest(path: str | os.PathLike[str]) -> str:
    """xxh3_128 of a file, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
