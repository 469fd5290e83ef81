"""The commit of a folder: `digests.json`, written last and atomically, with the xxh3_128 of every other file.

A folder with a readable `digests.json` is complete; one without does not exist. Deleting takes the commit away first.
Nothing here imports JAX, so that checkpoints can be listed and verified anywhere. On an object store (`gs://...`) the
store has checksums of its own, so there the commit lists sizes alone.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import xxhash
from etils import epath

from ctxjax import paths

DIGESTS = "digests.json"
DAMAGED = "digests.json.damaged"
STEP = re.compile(r"[0-9]{8,}")
BLOCK = 1 << 22


def digest_file(path: epath.PathLike) -> str:
    """xxh3_128 of a file's bytes, as hexadecimal text."""
    digest = xxhash.xxh3_128()
    with epath.Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_of(folder: epath.PathLike) -> dict[str, epath.Path]:
    """Every file under a folder but the commit itself, by its path within it."""
    found: dict[str, epath.Path] = {}

    def walk(node: epath.Path, prefix: str) -> None:
        for child in sorted(node.iterdir(), key=lambda child: child.name):
            name = prefix + child.name
            if child.is_dir():
                walk(child, name + "/")
            elif name not in (DIGESTS, DAMAGED):
                found[name] = child

    walk(epath.Path(folder), "")
    return found


def commit(folder: epath.PathLike) -> None:
    """Digest every file of a folder and write `digests.json`: from this instant the folder is complete."""
    hashed = paths.is_local(folder)
    files = {
        name: {"bytes": path.stat().length, "xxh3_128": digest_file(path) if hashed else None}
        for name, path in files_of(folder).items()
    }
    paths.write_text(epath.Path(folder) / DIGESTS, json.dumps({"files": files, "self": _self_digest(files)}, indent=1))


def _self_digest(files: dict[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_commit(folder: epath.PathLike) -> dict[str, Any] | None:
    """The files named by a commit, or None where `digests.json` is not readable or not what was written."""
    try:
        content = json.loads((epath.Path(folder) / DIGESTS).read_text())
        return content["files"] if _self_digest(content["files"]) == content["self"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verify(folder: epath.PathLike) -> list[str]:
    """What is wrong with a committed folder, one sentence a file that names it; empty when every byte is as written."""
    folder = epath.Path(folder)
    files = read_commit(folder)
    if files is None:
        return [f"{folder / DIGESTS} is damaged or missing"]
    problems = []
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().length
            if size != expected["bytes"]:
                problems.append(f"{path} has {size} bytes where {expected['bytes']} were written")
            elif expected["xxh3_128"] and digest_file(path) != expected["xxh3_128"]:
                problems.append(f"{path} is not what was written: its digest differs")
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror or type(error).__name__})")
    return problems


def steps(folder: epath.PathLike) -> list[int]:
    """The committed steps under a checkpoint folder, rising; anything else in it is ignored."""
    folder = epath.Path(folder)
    if not folder.is_dir():
        return []
    names = [child.name for child in folder.iterdir() if STEP.fullmatch(child.name)]
    return sorted(int(name) for name in names if (folder / name / DIGESTS).is_file())


def step_folder(folder: epath.PathLike, step: int) -> epath.Path:
    """`00001000` within the checkpoint folder."""
    return epath.Path(folder) / f"{step:08d}"


def set_aside(folder: epath.PathLike) -> None:
    """Take the commit of a damaged folder away and leave its files for whoever wants to look."""
    with contextlib.suppress(OSError):
        (epath.Path(folder) / DIGESTS).rename(epath.Path(folder) / DAMAGED)


def delete(folder: epath.PathLike) -> None:
    """Delete a folder, its commit first, so that it never looks complete while it is not."""
    folder = epath.Path(folder)
    if not folder.exists():
        return
    (folder / DIGESTS).unlink(missing_ok=True)
    paths.sync_folder(folder)
    folder.rmtree(missing_ok=True)
