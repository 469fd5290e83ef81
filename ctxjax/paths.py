"""Paths on a file system or in an object store (`gs://...`) as one type, and all that tells the two apart.

An object appears whole or not at all, cannot be appended to, and has a checksum that its store keeps.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import tempfile

from etils import epath

from ctxjax.config import ConfigError

GROWING = ("train.log", "metrics.jsonl", "wandb_id")  # what a run that is continued goes on with


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on a file system and not in an object store."""
    return "://" not in os.fspath(path)


def at(path: str | os.PathLike[str]) -> epath.Path:
    """A path to open, list and write: absolute on a file system, as it is in an object store.

    Raises:
      ConfigError: a store that is not known or whose client is not installed, or a bucket that cannot be read.
    """
    if is_local(path):
        return epath.Path(os.path.abspath(path))
    scheme, _, place = os.fspath(path).partition("://")
    if scheme != "gs":
        raise ConfigError(f"{os.fspath(path)}: {scheme}:// is not known; name a folder, or gs://BUCKET/FOLDER")
    _check_bucket(place.partition("/")[0])
    return epath.Path(path)


@functools.cache
def _check_bucket(name: str) -> None:
    """A bucket must be there: the client would make one of a misspelt name.

    Listings are asked for anew each time, since Orbax writes beside epath, and other processes do.
    """
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise ConfigError("gs:// needs the package gcsfs: pip install ctxjax[gcs]")
    import fsspec

    fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False
    if not name or not epath.Path(f"gs://{name}").exists():
        raise ConfigError(f"the bucket gs://{name} does not exist, or may not be read from here")


def local(path: str | os.PathLike[str], name: str) -> pathlib.Path:
    """A path that must be on a file system.

    Raises:
      ConfigError: it is in an object store; the message begins with `name`.
    """
    if not is_local(path):
        raise ConfigError(f"{name} {os.fspath(path)} must be on a file system: write it there, and copy it")
    return pathlib.Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that it is the old one or the whole new one, on the disk, whatever happens in between."""
    path, content = at(path), text.encode("utf-8")
    if not is_local(path):
        path.write_bytes(content)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames within a folder last through a power cut."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Mirror:
    """A local folder for the files of a run that are appended to.

    That is the run folder itself on a file system. In an object store nothing can be appended to: there it is a
    temporary folder, which begins with the `GROWING` files of the run, and whose files `upload` writes beside them.

    Args:
      folder: of the run; None in a process that appends to nothing.
    """

    def __init__(self, folder: str | os.PathLike[str] | None):
        self.run = at(folder) if folder else None
        self.folder = pathlib.Path(self.run) if self.run else None
        self._made: tempfile.TemporaryDirectory[str] | None = None
        self._uploaded: dict[pathlib.Path, int] = {}
        if self.run and not is_local(self.run):
            self._made = tempfile.TemporaryDirectory(prefix="ctxjax-")
            self.folder = pathlib.Path(self._made.name)
            for name in GROWING:
                if (self.run / name).exists():
                    (self.folder / name).write_bytes((self.run / name).read_bytes())

    def file(self, name: str) -> pathlib.Path:
        """Where a file or folder of the run is written first."""
        if self.folder is None:
            raise ValueError("this process appends to nothing")
        return self.folder / name

    def upload(self) -> None:
        """Write what has grown since the last time."""
        if self._made is None or self.folder is None or self.run is None:
            return
        for file in sorted(self.folder.rglob("*")):
            changed = file.stat().st_mtime_ns if file.is_file() else None
            if changed != self._uploaded.get(file):
                (self.run / file.relative_to(self.folder)).write_bytes(file.read_bytes())
                self._uploaded[file] = changed

    def close(self) -> None:
        """Upload for the last time, and remove the temporary folder."""
        try:
            self.upload()
        finally:
            if self._made is not None:
                self._made.cleanup()
                self._made = None
