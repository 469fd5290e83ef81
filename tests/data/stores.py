"""An object store in memory, behind the paths that name one."""

import fsspec.implementations.memory
from etils.epath import backend


def stored(monkeypatch):
    """A file system that `s3://` names while the test runs."""

    class Store(fsspec.implementations.memory.MemoryFileSystem):
        cachable = False
        store = {}  # noqa: RUF012 - as in the class above it
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            path = str(path).removeprefix("s3://").strip("/")
            return f"/{path}" if path else ""

    store = Store()
    monkeypatch.setattr(backend._FileSystemSpecBackend, "fs", lambda self, path: store)
    return store
