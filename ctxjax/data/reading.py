"""Raw inputs to pieces of work: files of text, compressed or not, cut at document boundaries into a few megabytes.

One process reads (that is cheap), many tokenise. The pieces are a function of the inputs alone, so a piece finished
before a kill is the same piece afterwards, whatever the number of workers.
"""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import xxhash
import zstandard

from ctxjax.config import ConfigError
from ctxjax.data import cleaning

FORMATS = ("auto", "documents", "sentences", "jsonl")
PIECE_BYTES = 1 << 22  # of raw text in a piece of work
DOCUMENT_BYTES = 1 << 23  # a longer document of plain text is cut
LINE_BYTES = 1 << 26  # a longer line of JSON is left out
_BLOCK = 1 << 20
_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".zst": lambda raw: _Zstd(raw),
}
_OTHER_ENCODINGS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # first, since it begins as UTF-16 does
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error, ValueError, zstandard.ZstdError)
_JSON = (".jsonl", ".ndjson", ".json")
_TEXT = (".txt", ".text", ".md")
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


class Input(NamedTuple):
    """One source of text: where it is, of which format, how many bytes on disk, the digest of its content, and of
    parallel text where the other side is."""

    path: str
    format: str
    size: int
    digest: str
    target: str | None = None


class Chunk(NamedTuple):
    """Bytes that hold whole documents; for the format "texts" one document each, for "pairs" a side of a pair each."""

    format: str
    data: bytes | list[bytes]


class Piece(NamedTuple):
    """A piece of work, and how much of the inputs (in their own units) has been read once it is cut."""

    number: int
    chunks: list[Chunk]
    read: int


def located(path: str) -> Any:
    """A path on this machine, or in the store that it names (`gs://BUCKET/...`)."""
    if "://" not in path:
        return pathlib.Path(path)
    from etils import epath

    return epath.Path(path)


def opened(path: str) -> io.BufferedIOBase:
    """A file's bytes, wherever it lies."""
    return open(path, "rb") if "://" not in path else io.BufferedReader(located(path).open("rb"), _BLOCK)


def size_of(path: Any) -> int:
    """Bytes of a file, wherever it lies."""
    stat = path.stat()
    return stat.st_size if hasattr(stat, "st_size") else stat.length


def find_files(inputs: Sequence[str]) -> list[Any]:
    """The files behind paths, folders (all files below, hidden ones left out) and globs, sorted, each once.

    Raises:
      ConfigError: a path that is not there, or a folder or glob without a file.
    """
    found: dict[str, Any] = {}
    for item in inputs:
        path = located(item)
        if path.is_dir():
            files = [file for file in _below(path) if not _hidden(file.relative_to(path))]
        elif path.exists():
            files = [path]
        elif glob.has_magic(item):
            files = [p for p in _matches(item) if p.is_file()]
        else:
            raise ConfigError(f"input {item} does not exist")
        if not files:
            raise ConfigError(f"input {item} holds no file")
        for file in files:
            found.setdefault(str(file) if "://" in item else os.path.realpath(file), file)
    return sorted(found.values(), key=lambda p: p.as_posix())


def _below(folder: Any) -> Iterator[Any]:
    if isinstance(folder, pathlib.Path):
        yield from (path for path in folder.rglob("*") if path.is_file())
        return
    for path in folder.iterdir():  # a store's path has no recursive glob
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def _matches(pattern: str) -> Iterator[Any]:
    if "://" not in pattern:
        return map(pathlib.Path, glob.iglob(pattern, recursive=True))
    folder, rest = located(pattern), []
    while glob.has_magic(str(folder)):
        folder, rest = folder.parent, [folder.name, *rest]
    return iter(folder.glob("/".join(rest)))


def _hidden(path: pathlib.PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def describe(
    files: Sequence[Any], format: str, digests: Callable[[Sequence[str]], Mapping[str, str]] | None = None
) -> list[Input]:
    """Digest every file and settle its format; "auto" looks at the names, then at the beginnings.

    Args:
      files: from `find_files`.
      format: one of `FORMATS`.
      digests: what gives `digest` of all files; else they are read here.

    Raises:
      ConfigError: a file that cannot be read.
    """
    settled = {file: format for file in files}
    if format == "auto":
        plain: list[Any] = []
        for file in files:
            settled[file] = "jsonl" if _is_json(file) else "text"
            if settled[file] == "text":
                plain.append(file)
        verdict = "sentences" if plain and _one_sentence_a_line(plain) else "documents"
        settled |= {file: verdict for file in plain}
    known = digests([str(file) for file in files]) if digests else {str(file): digest(str(file)) for file in files}
    return [Input(str(file), settled[file], size_of(file), known[str(file)]) for file in files]


def digest(file: str) -> str:
    """xxh3_128 of a file, wherever it lies, in hexadecimal.

    Raises:
      ConfigError: it cannot be read.
    """
    made = xxhash.xxh3_128()
    try:
        with opened(file) as raw:
            while block := raw.read(_BLOCK):
                made.update(block)
    except OSError as error:
        raise ConfigError(f"input {file} cannot be read ({error.strerror})") from None
    return made.hexdigest()


def _head(file: Any, size: int) -> str:
    try:
        with opened(str(file)) as raw:
            return read_bytes(open_stream(file, raw), size, file).decode("utf-8", "replace").lstrip("\ufeff")
    except OSError as error:
        raise ConfigError(f"input {file} cannot be read ({error.strerror})") from None


def _is_json(file: Any) -> bool:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in _OPENERS]
    if suffixes and suffixes[-1] in _JSON + _TEXT:
        return suffixes[-1] in _JSON
    head = _head(file, 1 << 16)
    first = head.strip().split("\n", 1)
    if not first[0].startswith("{"):
        return False
    try:
        return isinstance(json.loads(first[0]), dict)
    except (ValueError, RecursionError):
        return len(first) == 1 and len(head) >= 1 << 15  # one object, longer than what was read


def _one_sentence_a_line(files: Sequence[Any]) -> bool:
    """Blank lines between runs of lines, nearly every line being one whole sentence, in the first files together."""
    from ctxjax.text.sentences import split_sentences

    blocks = lines = sentences = 0
    for file in files[:8]:
        documents = list(cleaning.line_documents(cleaning.clean(_head(file, 1 << 16), {})))
        blocks += len(documents) > 1 and len(documents)
        for line in (line for document in documents for line in document):
            lines += 1
            sentences += line[-1] in ".!?\"')\u201d\u2026\u3002\uff01\uff1f" and len(split_sentences(line)) == 1
    return blocks > 1 and lines >= 2 * blocks and sentences * 10 >= lines * 9


def open_stream(path: str | os.PathLike[str], raw: io.BufferedIOBase) -> Any:
    """The uncompressed bytes of an open file, as UTF-8 where it begins with the mark of another Unicode encoding."""
    opener = _OPENERS.get(pathlib.Path(path).suffix.lower())
    stream = io.BufferedReader(opener(raw), _BLOCK) if opener else raw
    try:
        start = stream.peek(4)[:4]
    except _BROKEN as error:
        raise _broken(path, error) from None
    for encoding, marks in _OTHER_ENCODINGS.items():
        if start.startswith(marks):
            return _Recoded(stream, encoding)
    return stream


class _Recoded:
    """A stream in another encoding, read as UTF-8."""

    def __init__(self, stream: Any, encoding: str):
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(encoding)("replace")

    def read(self, size: int) -> bytes:
        while True:
            block = self._stream.read(max(4, size // 4))
            text = self._decoder.decode(block, not block)
            if text or not block:
                return text.encode("utf-8", "surrogatepass")


class _Zstd(io.RawIOBase):
    """Frames of Zstandard; the library's own reader takes a truncated file for a short one."""

    def __init__(self, raw: io.BufferedIOBase):
        self._raw, self._frame, self._held = raw, None, b""
        self._maker = zstandard.ZstdDecompressor(max_window_size=1 << 31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            block = self._raw.read(1024)  # little, since even that may become megabytes
            if not block:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            while block:
                self._frame = self._frame or self._maker.decompressobj()
                self._held += self._frame.decompress(block)
                block = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        taken = min(len(buffer), len(self._held))
        buffer[:taken], self._held = self._held[:taken], self._held[taken:]
        return taken


def _broken(path: object, error: Exception) -> ConfigError:
    return ConfigError(f"input {path} is truncated or corrupt ({error}); fetch or compress it again")


def read_bytes(stream: Any, size: int, path: object) -> bytes:
    """Up to `size` bytes; fewer only at the end."""
    held: list[bytes] = []
    left = size
    try:
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            held.append(block)
            left -= len(block)
    except _BROKEN as error:
        raise _broken(path, error) from None
    return b"".join(held)


def read_pieces(inputs: Sequence[Input], counts: cleaning.Counts) -> Iterator[Piece]:
    """The pieces of work, in order.

    Args:
      inputs: from `describe`.
      counts: what the reader itself leaves out or cuts, added to.
    """
    number = size = before = 0
    chunks: list[Chunk] = []
    for item in inputs:
        with opened(item.path) as raw:
            for data in blocks(item, raw, counts):
                chunks.append(Chunk(item.format, data))
                size += len(data)
                if size >= PIECE_BYTES or len(chunks) >= 4096:
                    yield Piece(number, chunks, before + min(raw.tell(), item.size))
                    number, size, chunks = number + 1, 0, []
        before += item.size
    if chunks:
        yield Piece(number, chunks, before)


def blocks(item: Input, raw: io.BufferedIOBase, counts: cleaning.Counts) -> Iterator[bytes]:
    """The bytes of a file, cut where its format allows it."""
    whole = item.format == "documents"
    limit = LINE_BYTES if item.format == "jsonl" else DOCUMENT_BYTES
    usual = DOCUMENT_BYTES if whole else PIECE_BYTES
    held, want = b"", usual
    stream = open_stream(item.path, raw)
    block = read_bytes(stream, want, item.path)
    if not block:
        cleaning.add(counts, cleaning.EMPTY_FILES)
    while block:
        held += block
        if whole and len(held) == want:
            held += read_bytes(stream, 1, item.path)  # is there any more?
        if len(held) < want or (whole and len(held) == want):
            break  # the end: fewer bytes than were asked for
        at = _boundary(held, item.format)
        if at == 0 and len(held) < limit:
            want = min(2 * want, limit)  # not one whole document: read more of it
        elif at == 0 and item.format == "jsonl":
            cleaning.add(counts, cleaning.LONG_LINES)
            held, want = _skip_line(stream, item.path), usual
        else:
            if at == 0:
                at = _cut(held)
                cleaning.add(counts, cleaning.CUT_DOCUMENTS)
            yield held[:at]
            held, want = held[at:], usual
        block = read_bytes(stream, max(_BLOCK, want - len(held)), item.path)
    if held:
        yield held


def _boundary(held: bytes, format: str) -> int:
    """Where the last whole document ends; 0 where none does."""
    if format == "documents":
        return 0
    if format == "jsonl":
        return held.rfind(b"\n") + 1
    last = 0
    for match in _BLANK_LINE.finditer(held):
        last = match.end()
    return last


def _cut(held: bytes) -> int:
    """A place within one long document to cut it: a blank line, a line, a blank, or at least between two characters."""
    middle, last = len(held) // 2, len(held) - 1
    for mark in (b"\n\n", b"\n", b" "):
        at = held.rfind(mark, middle, last)
        if at >= 0:
            return at + len(mark)
    at = last
    while at > middle and held[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _skip_line(stream: Any, path: object) -> bytes:
    while block := read_bytes(stream, _BLOCK, path):
        at = block.find(b"\n")
        if at >= 0:
            return block[at + 1 :]
    return b""
