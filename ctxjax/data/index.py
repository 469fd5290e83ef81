"""Indexes: what a source needs beyond the corpus, built once per (corpus, options), memory-mapped, safe to share.

An index is a folder of `.npy` files named by the digest of its key. It is built beside the corpus (`DIR/index/`) or
else in the cache folder: `CTXJAX_CACHE`, `XDG_CACHE_HOME/ctxjax` or `~/.cache/ctxjax`, the first that is set.
A folder appears under its name only when it is complete; of processes that want the same one, one builds and the rest
wait; a damaged one is built again.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ctxjax.config import ConfigError, fingerprint
from ctxjax.data.arrays import file_digest

_KEY = "key.json"  # written last


def open_index(
    corpus_folder: str | os.PathLike[str], key: Mapping[str, Any], build: Callable[[pathlib.Path], None]
) -> dict[str, np.ndarray]:
    """Open an index, building it first where it does not exist.

    Args:
      corpus_folder: the corpus beside which the index is kept.
      key: JSON-able; everything that the content depends on (digests, never paths).
      build: writes the arrays as `NAME.npy` into the folder that it is given.

    Returns:
      NAME -> read-only memory-mapped array.

    Raises:
      ConfigError: neither the corpus folder nor the cache folder can be written.
    """
    if (there := find_index(corpus_folder, key)) is not None:
        return there
    digest, places = fingerprint(key), _places(corpus_folder)
    for place in places:
        try:
            with _locked(place / f".{digest}.lock"):
                if (found := _load(place / digest)) is None:
                    _build(place, digest, key, build)
                    found = _load(place / digest)
        except _ReadOnly:
            continue
        if found is None:
            raise ConfigError(f"index {place / digest} cannot be read back after it was written; check the disk")
        return found
    raise ConfigError(
        f"no index can be written to {places[0]} nor to {places[1]}; set CTXJAX_CACHE to a folder that can be written"
    )


def find_index(corpus_folder: str | os.PathLike[str], key: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """An index that was built before, or None."""
    for place in _places(corpus_folder):
        if (found := _load(place / fingerprint(key))) is not None:
            return found
    return None


def _places(corpus_folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    return [pathlib.Path(corpus_folder) / "index", cache_folder() / "index"]


def cache_folder() -> pathlib.Path:
    """Where things go that can be made again."""
    if folder := os.environ.get("CTXJAX_CACHE"):
        return pathlib.Path(folder)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ctxjax"


class _ReadOnly(Exception):
    """The place takes no new files."""


@contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock that the kernel gives back however the holder ends; file systems without locks go without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        raise _ReadOnly from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"index: {path.parent} has no file locks ({error.strerror}); building without", file=sys.stderr)
        yield


def _build(place: pathlib.Path, digest: str, key: Mapping[str, Any], build: Callable[[pathlib.Path], None]) -> None:
    for left in place.glob(f".{digest}.*.part"):  # of a builder that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    part = pathlib.Path(tempfile.mkdtemp(prefix=f".{digest}.", suffix=".part", dir=place))
    try:
        build(part)
        files = {path.name: file_digest(path) for path in sorted(part.glob("*.npy"))}
        (part / _KEY).write_text(json.dumps({"key": key, "files": files}, indent=1) + "\n")
        part.chmod(0o755)
        if (place / digest).exists():  # damaged, or else it would have been loaded
            shutil.rmtree(place / digest)
        os.rename(part, place / digest)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _load(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays of a complete and undamaged index, or None."""
    try:
        files = json.loads((folder / _KEY).read_text())["files"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError):
        files = None
    damaged = files is None or any(
        not (folder / name).is_file() or file_digest(folder / name) != digest for name, digest in files.items()
    )
    if damaged or files is None:
        print(f"index: {folder} is damaged; building it again", file=sys.stderr)
        return None
    return {
        name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        for name in files
    }
