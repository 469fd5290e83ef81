"""Parallel text: two files of which line n of one translates line n of the other, to pieces of work.

A pair becomes a document of two sentences, so all that prepares and keeps a corpus holds for pairs too.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator

from ctxjax.config import ConfigError, fingerprint
from ctxjax.data import cleaning, reading

FORMAT = "pairs"
_BLOCK = 1 << 20


def describe(source: str, target: str) -> reading.Input:
    """Digest both files and count their lines.

    Raises:
      ConfigError: a file that is missing or cannot be read, or files of unequal numbers of lines.
    """
    files = [reading.located(path) for path in (source, target)]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--pairs: {file} is not a file")
    found = reading.describe(files, "sentences")
    numbers = [count_lines(item.path) for item in found]
    if numbers[0] != numbers[1]:
        raise ConfigError(
            f"--pairs: {source} has {numbers[0]:,} lines and {target} has {numbers[1]:,}; "
            "line n of one must be the translation of line n of the other"
        )
    digest = fingerprint([item.digest for item in found])
    return reading.Input(found[0].path, FORMAT, found[0].size + found[1].size, digest, found[1].path)


def count_lines(path: str | os.PathLike[str]) -> int:
    """Lines of a file, compressed or not; a last one without a line break counts."""
    with reading.opened(str(path)) as raw:
        return sum(1 for _ in lines(path, raw))


def lines(path: str | os.PathLike[str], raw: io.BufferedIOBase) -> Iterator[bytes | None]:
    """The lines of an open file without their breaks; None for one over `reading.LINE_BYTES`."""
    stream = reading.open_stream(path, raw)
    held, long = b"", False
    while block := reading.read_bytes(stream, _BLOCK, path):
        whole = (held + block).split(b"\n")
        held = whole.pop()
        for line in whole:
            yield None if long or len(line) > reading.LINE_BYTES else line
            long = False
        if len(held) > reading.LINE_BYTES:
            held, long = b"", True
    if held or long:
        yield None if long else held


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """All lines of a file as clean text, each one line, empty ones too.

    Raises:
      ConfigError: the file is missing or cannot be read.
    """
    try:
        with reading.opened(str(path)) as raw:
            return [clean(line or b"", {}) for line in lines(path, raw)]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None


def clean(line: bytes, counts: cleaning.Counts) -> str:
    """One line of clean text: what reads as a line break within it becomes a blank."""
    return " ".join(cleaning.clean(cleaning.decode(line, counts), counts).split("\n")).strip()


def read_pieces(item: reading.Input, number: int, counts: cleaning.Counts) -> Iterator[reading.Piece]:
    """The pieces of work of two files, in order: lists of source, target, source, target, ...

    Args:
      item: from `describe`.
      number: of the first piece.
      counts: what the reader itself leaves out, added to.
    """
    assert item.target is not None
    held: list[bytes] = []
    size = 0
    with reading.opened(item.path) as raw, reading.opened(item.target) as other:
        for source, target in itertools.zip_longest(lines(item.path, raw), lines(item.target, other)):
            if source is None or target is None:
                cleaning.add(counts, cleaning.LONG_LINES)
                continue
            held += [source, target]
            size += len(source) + len(target)
            if size >= reading.PIECE_BYTES:
                yield reading.Piece(number, [reading.Chunk(FORMAT, held)], min(raw.tell() + other.tell(), item.size))
                number, size, held = number + 1, 0, []
    if held:
        yield reading.Piece(number, [reading.Chunk(FORMAT, held)], item.size)
