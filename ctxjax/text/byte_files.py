"""The files of a byte-level BPE vocabulary: pieces as JSON, merges one a line.

OpenAI calls them `encoder.json` and `vocab.bpe`, Hugging Face `vocab.json` and `merges.txt`; the contents are the same.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

from ctxjax.config import ConfigError

MERGES = "merges.txt"
PUBLISHED = {"encoder.json": "vocab.bpe", "vocab.json": MERGES}  # the merges that belong to the pieces


def read_published(path: str | os.PathLike[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces by id and merges by rank, from the JSON file and the merges beside it.

    Raises:
      ConfigError: a file of another name, no merges beside it, or contents that are no vocabulary.
    """
    path = pathlib.Path(path)
    if path.name not in PUBLISHED:
        raise ConfigError(f"vocabulary {path} is JSON, but is called neither encoder.json nor vocab.json")
    try:
        ids = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"vocabulary {path} is not JSON ({error})") from None
    if not isinstance(ids, dict) or not ids or not all(type(number) is int for number in ids.values()):
        raise ConfigError(f"vocabulary {path} is not a table of pieces and their ids")
    pieces = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ConfigError(f"vocabulary {path}: the ids are not 0, 1, 2, ... {len(pieces) - 1}, each once")
    return pieces, read_merges(path.with_name(PUBLISHED[path.name]))


def write_published(folder: str | os.PathLike[str], pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
    """Write `vocab.json` and `merges.txt`."""
    folder = pathlib.Path(folder)
    ids = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / MERGES).write_text(merges_text(merges), encoding="utf-8")


def merges_text(merges: Sequence[tuple[str, str]]) -> str:
    """The content of `merges.txt`."""
    return "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)


def read_merges(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Two pieces a line with a blank between them, below a line that names the version.

    Raises:
      ConfigError: no such file, or a line is otherwise.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"merges {path} do not exist; a byte-level BPE vocabulary needs them beside its pieces")
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"merges {path} are not UTF-8 ({error.reason} at byte {error.start})") from None
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines):
        line = line.rstrip("\r")
        if not line or (number == 0 and line.startswith("#version")):
            continue
        left, blank, right = line.partition(" ")
        if not (left and blank and right) or " " in right:
            raise ConfigError(f"merges {path}, line {number + 1}: {line[:50]!r} is not two pieces and a blank between")
        merges.append((left, right))
    return merges
