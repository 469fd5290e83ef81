"""Sections, the records of a corpus, and the ArrayRecord shards that hold them.

A section is whole consecutive sentences of one document, closed once it holds `SECTION_TOKENS`, so reading a span never
means reading a book. It is a fixed little-endian header and raw arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from ctxjax.config import ConfigError
from ctxjax.data.arrays import replace

SECTION_TOKENS = 4096
SUFFIX = ".array_record"
_MAGIC = b"CTX1"
_HEADER = struct.Struct("<4sIQIII")  # magic, bytes a token, document, sentences, tokens, unknown words
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class CorpusError(ConfigError):
    """A file of a prepared corpus that is missing, truncated or corrupt; the message names the file."""


class Section(NamedTuple):
    """Whole consecutive sentences of one document.

    Attributes:
      document: number of the document; consecutive sections of one document have the same one.
      lengths: tokens of each sentence.
      tokens: the sentences, concatenated (uint16 or uint32, as stored).
      unknown: the surface form of every unknown token in order; empty for tokenizers that keep none.
    """

    document: int
    lengths: Integer[np.ndarray, " sentences"]
    tokens: Integer[np.ndarray, " tokens"]
    unknown: list[str]


def encode_section(
    document: int,
    lengths: Integer[np.ndarray, " sentences"] | Sequence[int],
    tokens: Integer[np.ndarray, " tokens"] | Sequence[int],
    unknown: Sequence[str] = (),
) -> bytes:
    """The bytes of one record.

    Args:
      document: number of the document in its shard or split; what counts is where it changes.
      lengths: tokens of each sentence, all positive.
      tokens: ids of all sentences in a row.
      unknown: surface forms of the unknown tokens in order, where the tokenizer is of kind "words".

    Raises:
      ValueError: an empty section or sentence, or lengths that do not add up to the tokens.
    """
    lengths, tokens = np.asarray(lengths, np.int64), np.asarray(tokens, np.int64)
    if not len(lengths) or lengths.min() <= 0 or lengths.sum() != len(tokens):
        raise ValueError("a section needs sentences of positive lengths that add up to its tokens")
    if tokens.min() < 0 or tokens.max() >= 2**32:
        raise ValueError("token ids have to fit 32 bits")
    width = 2 if tokens.max() < 2**16 else 4
    words = [word.encode("utf-8", "surrogatepass") for word in unknown]
    parts = [
        _HEADER.pack(_MAGIC, width, document, len(lengths), len(tokens), len(words)),
        lengths.astype("<u4").tobytes(),
        tokens.astype(f"<u{width}").tobytes(),
        np.array([len(word) for word in words], "<u4").tobytes(),
        *words,
    ]
    return b"".join(parts)


def decode_section(record: bytes) -> Section:
    """The inverse of `encode_section`.

    Raises:
      ValueError: the bytes are not a section.
    """
    if len(record) < _HEADER.size or record[:4] != _MAGIC:
        raise ValueError("the record is not a section of a corpus")
    _, width, document, sentences, count, unknown = _HEADER.unpack_from(record)
    ends = np.cumsum([_HEADER.size, 4 * sentences, width * count, 4 * unknown])
    if width not in (2, 4) or len(record) < ends[-1]:
        raise ValueError("the section is truncated")
    lengths = np.frombuffer(record, "<u4", sentences, ends[0])
    tokens = np.frombuffer(record, f"<u{width}", count, ends[1])
    words, start = [], int(ends[3])
    for size in np.frombuffer(record, "<u4", unknown, ends[2]).tolist():
        words.append(record[start : start + size].decode("utf-8", "surrogatepass"))
        start += size
    if len(record) != start or int(lengths.sum()) != count:
        raise ValueError("the section is truncated")
    return Section(document, lengths, tokens, words)


def sections(
    document: int, sentences: Iterable[Integer[np.ndarray, " _"] | Sequence[int]], unknown: Iterable[Sequence[str]] = ()
) -> Iterator[bytes]:
    """The records of one document, each closed once it holds `SECTION_TOKENS`; empty sentences are skipped.

    Args:
      document: number of the document in its shard or split.
      sentences: token ids of each sentence.
      unknown: surface forms of the unknown words of each sentence, where the tokenizer keeps them.
    """
    held: list[np.ndarray] = []
    words: list[str] = []
    count, surfaces = 0, iter(unknown)
    for sentence in sentences:
        words.extend(next(surfaces, ()))
        if len(sentence):
            held.append(np.asarray(sentence, np.int64))
            count += len(sentence)
        if count >= SECTION_TOKENS:
            yield encode_section(document, [len(s) for s in held], np.concatenate(held), words)
            held, words, count = [], [], 0
    if held:
        yield encode_section(document, [len(s) for s in held], np.concatenate(held), words)


def write_shard(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Write one ArrayRecord file from a stream of records, atomically: the name appears when the file is complete.

    Returns:
      The number of records. The same records give the same bytes.
    """
    from array_record.python import array_record_module

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = array_record_module.ArrayRecordWriter(str(part), _WRITER_OPTIONS)
    count = 0
    try:
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return count


def shard_name(split: str, number: int, count: int) -> str:
    """`train-00000-of-00004.array_record`."""
    return f"{split}-{number:05d}-of-{count:05d}{SUFFIX}"


def read_shard(path: str | os.PathLike[str]) -> Iterator[Section]:
    """Every section of a shard, in order, in bounded memory.

    Raises:
      CorpusError: the file is missing, truncated or corrupt.
    """
    reader = open_shard(pathlib.Path(path), options="")
    try:
        for _ in range(reader.num_records()):
            try:
                section = decode_section(reader.read())
            except (RuntimeError, ValueError) as error:
                raise corrupt_shard(path, error) from error
            yield section
    finally:
        reader.close()


def open_shard(path: pathlib.Path, options: str = _READER_OPTIONS) -> Any:
    from array_record.python import array_record_module

    if not path.is_file():
        raise CorpusError(f"shard {path} is missing; run python -m ctxjax.prepare again")
    try:
        reader = array_record_module.ArrayRecordReader(str(path), options=options, file_reader_buffer_size=1 << 16)
        readable = reader.ok()
        reader.num_records()  # reads the footer, which a truncated file lacks
    except (RuntimeError, ValueError) as error:
        raise corrupt_shard(path, error) from error
    if not readable:
        raise corrupt_shard(path, "not an ArrayRecord file")
    return reader


def corrupt_shard(path: str | os.PathLike[str], reason: object) -> CorpusError:
    detail = str(reason).strip().splitlines()
    return CorpusError(
        f"shard {path} is truncated or corrupt ({detail[0][:200] if detail else 'unreadable'}); "
        "run python -m ctxjax.prepare again"
    )
