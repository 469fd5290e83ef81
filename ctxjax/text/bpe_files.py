"""The files of a BPE vocabulary, of bytes or of characters: pieces as JSON, merges one a line.

OpenAI calls them `encoder.json` and `vocab.bpe` (GPT-2) or `encoder_bpe_40000.json` and `vocab_40000.bpe` (GPT),
Hugging Face `vocab.json` and `merges.txt`; the layout is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from ctxjax import paths
from ctxjax.config import ConfigError

PIECES, MERGES = "vocab.json", "merges.txt"
# The merges that belong to the pieces.
PUBLISHED = {"encoder.json": "vocab.bpe", "encoder_bpe_40000.json": "vocab_40000.bpe", PIECES: MERGES}


def read_published(path: str | os.PathLike[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces by id and merges by rank, from the JSON file and the merges beside it.

    Raises:
      ConfigError: a file of another name, no merges beside it, or contents that are no vocabulary.
    """
    path = paths.at(path)
    if path.name not in PUBLISHED:
        raise ConfigError(f"vocabulary {path} is JSON, but is called none of {', '.join(PUBLISHED)}")
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


def is_of_characters(pieces: Sequence[str]) -> bool:
    """Whether the pieces are GPT's, many of which end in its mark, and not GPT-2's."""
    return 10 * sum(piece.endswith("</w>") for piece in pieces) > len(pieces)


def write_published(folder: str | os.PathLike[str], pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
    """Write `vocab.json` and `merges.txt`."""
    folder = paths.at(folder)
    paths.write_text(folder / PIECES, pieces_text(pieces))
    paths.write_text(folder / MERGES, merges_text(merges))


def pieces_text(pieces: Sequence[str]) -> str:
    """The content of `vocab.json`."""
    return json.dumps({piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False)


def merges_text(merges: Sequence[tuple[str, str]]) -> str:
    """The content of `merges.txt`."""
    return "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)


def read_merges(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Two pieces a line with a blank between them, below a line that names the version.

    Raises:
      ConfigError: no such file, or a line is otherwise.
    """
    path = paths.at(path)
    if not path.is_file():
        raise ConfigError(f"merges {path} do not exist; a BPE vocabulary needs them beside its pieces")
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
