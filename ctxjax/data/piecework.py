"""What a worker does: encode a piece, write a shard. Each result is one atomic file.

A finished piece is a file of documents sorted by key, the key being the hash of the clean text. Shards are ranges of
keys, so a shard is one contiguous read from every piece, and the corpus depends on the set of documents alone: not on
file names, their order, the number of workers or what was killed when.
"""

from __future__ import annotations

import json
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from jaxtyping import Int, UInt64

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, duplicates, filters, parallel
from ctxjax.data.arrays import replace
from ctxjax.data.reading import DOCUMENT_BYTES, Chunk
from ctxjax.data.shards import SECTION_TOKENS, decode_section, encode_section, write_shard
from ctxjax.text.sentences import split_sentences
from ctxjax.text.tokenizer import Sentences, Tokenizer

KEYS = 1 << 64
_HEADER = struct.Struct("<8sIQ")  # magic, bytes of the report, documents
_MAGIC = b"CTXPIECE"
_TOGETHER = 1 << 18  # characters encoded at a time
_OPEN_FILES = 128
FIELDS = 50  # names of JSON fields that a report keeps


class Document(NamedTuple):
    """A clean document: its key, its text, and its sentences where they are given; a pair has two, apart."""

    key: int
    text: str
    lines: list[str] | None
    pair: bool = False


class Selection(NamedTuple):
    """Which documents are taken from the inputs: the field of records, the rules, and what becomes of duplicates."""

    field: str = "text"
    rules: filters.Filters = filters.Filters()
    duplicates: str = "keep"


def selected(chunk: Chunk, selection: Selection, counts: cleaning.Counts, seen: set[str]) -> Iterator[Document]:
    """The documents of a chunk that no rule rejects; others are counted."""
    found = documents(chunk, selection.field, counts, seen)
    if not selection.rules.given():
        yield from found
        return
    for document in found:
        if reason := selection.rules.rejects(document.text):
            cleaning.add(counts, reason)
        else:
            yield document


def documents(chunk: Chunk, field: str, counts: cleaning.Counts, seen: set[str]) -> Iterator[Document]:
    """The documents of a chunk, cleaned; empty ones are counted."""
    if chunk.format == parallel.FORMAT:
        sides = (parallel.clean(line, counts) for line in chunk.data if isinstance(line, bytes))
        for pair in zip(sides, sides):
            if all(pair):
                text = "\n".join(pair)
                yield Document(_key(text), text, list(pair), True)
            else:
                cleaning.add(counts, cleaning.EMPTY_PAIRS)
        return
    if chunk.format == "sentences":
        assert isinstance(chunk.data, bytes)
        whole = cleaning.clean(cleaning.decode(chunk.data, counts), counts)
        for lines in cleaning.line_documents(whole):
            text = "\n".join(lines)
            yield Document(_key(text), text, lines)
        if not whole:
            cleaning.add(counts, cleaning.EMPTY_DOCUMENTS)
        return
    texts: Iterator[str]
    if chunk.format == "jsonl":
        assert isinstance(chunk.data, bytes)
        texts = cleaning.json_documents(chunk.data, field, counts, seen)
    else:
        texts = (cleaning.decode(d, counts) for d in ([chunk.data] if isinstance(chunk.data, bytes) else chunk.data))
    for raw in texts:
        text = cleaning.clean(raw, counts)
        if not text:
            cleaning.add(counts, cleaning.EMPTY_DOCUMENTS)
        for part in cleaning.parts(text, DOCUMENT_BYTES, counts):
            yield Document(_key(part), part, None)


def _key(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


class Encoded(NamedTuple):
    """A piece, tokenised.

    Attributes:
      documents: (key, record) of every document, sorted.
      report: how many there are, and what was left out or repaired.
      bands: rows of key and bands of every document that has a token; None unless near duplicates are looked for.
    """

    documents: list[tuple[int, bytes]]
    report: dict[str, Any]
    bands: UInt64[np.ndarray, "n bands1"] | None


def encode_chunks(chunks: Sequence[Chunk], selection: Selection, tokenizer: Tokenizer) -> Encoded:
    """Tokenise the documents of a piece."""
    counts: dict[str, int] = {}
    seen: set[str] = set()
    made: list[tuple[int, bytes]] = []
    held: list[tuple[int, list[str]]] = []
    bands: dict[int, np.ndarray] = {}
    size = tokens = 0
    pairs = any(chunk.format == parallel.FORMAT for chunk in chunks)  # then all are
    for chunk in chunks:
        for document in selected(chunk, selection, counts, seen):
            held.append((document.key, _sentences(document, tokenizer.keeps_space)))
            if selection.duplicates == "near" and document.key not in bands:
                bands[document.key] = duplicates.bands(document.text)
            size += len(document.text)
            if size >= _TOGETHER:
                tokens += encode_documents(held, tokenizer, counts, made, pairs)
                held, size = [], 0
    tokens += encode_documents(held, tokenizer, counts, made, pairs)
    made.sort()
    report = {
        "documents": len(made),
        "tokens": tokens,
        "bytes": sum(len(record) for _, record in made),
        "first": made[0][0] if made else None,
        "last": made[-1][0] if made else None,
        "counts": counts,
        "fields": sorted(seen)[:FIELDS],
    }
    if selection.duplicates != "near":
        return Encoded(made, report, None)
    keys = np.unique(np.array([key for key, _ in made], np.uint64))
    rows = np.array([bands[key] for key in keys.tolist()], np.uint64).reshape(len(keys), duplicates.BANDS)
    return Encoded(made, report, np.concatenate([keys[:, None], rows], axis=1))


def encode_piece(
    chunks: Sequence[Chunk], path: pathlib.Path, selection: Selection, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Tokenise a piece into a file of documents sorted by key; returns its report."""
    made, report, bands = encode_chunks(chunks, selection, tokenizer)
    if bands is not None:
        np.save(bands_of(path), bands)  # before the piece, whose name says that all is there
    text = json.dumps(report).encode()
    keys = np.array([key for key, _ in made], "<u8")
    sizes = np.array([len(record) for _, record in made], "<u8")
    head = _HEADER.pack(_MAGIC, len(text), len(made))
    write_file(path, b"".join([head, text, keys.tobytes(), sizes.tobytes(), *(record for _, record in made)]))
    return report


def bands_of(path: pathlib.Path) -> pathlib.Path:
    """Where the bands of a piece lie."""
    return path.with_name(f"{path.name}.bands.npy")


def merge_reports(reports: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The report of several pieces together, in whatever order; of none, that of an empty one."""
    merged: dict[str, Any] = {"documents": 0, "tokens": 0, "bytes": 0, "first": None, "last": None}
    counts: dict[str, int] = {}
    fields: set[str] = set()
    for report in reports:
        for name in ("documents", "tokens", "bytes"):
            merged[name] += report.get(name, 0)
        for name, least in (("first", min), ("last", max)):
            known = [value for value in (merged[name], report.get(name)) if value is not None]
            merged[name] = least(known) if known else None
        for reason, number in report["counts"].items():
            cleaning.add(counts, reason, number)
        fields.update(report["fields"])
    return merged | {"counts": counts, "fields": sorted(fields)[:FIELDS]}


def _sentences(document: Document, whole: bool) -> list[str]:
    """The sentences of a document; with `whole` each has the white space before it: joined they are the text."""
    if document.pair and document.lines:
        return document.lines
    if document.lines is not None:
        return [f"\n{line}" if whole and number else line for number, line in enumerate(document.lines)]
    spans = split_sentences(document.text)
    if whole:
        ends = [end for _, end in spans[:-1]]
        spans = list(zip([0, *ends], [*ends, len(document.text)]))
    return [document.text[start:end] for start, end in spans]


def encode_documents(
    batch: Sequence[tuple[int, list[str]]],
    tokenizer: Tokenizer,
    counts: cleaning.Counts,
    made: list[tuple[int, bytes]],
    pairs: bool = False,
) -> int:
    """Add (key, record) of every document that has a token to `made`; of pairs those that have one on both sides.

    Returns:
      The number of tokens.
    """
    encoded = _encode_sentences([sentence for _, sentences in batch for sentence in sentences], tokenizer)
    cleaning.add(counts, cleaning.LONG_WORDS, encoded.long_words)
    unknown_at = np.cumsum(encoded.ids == tokenizer.unk_id) if encoded.unknown else None
    first = start = words = 0
    for key, sentences in batch:
        lengths = encoded.lengths[first : first + len(sentences)]
        first += len(sentences)
        stop = start + int(lengths.sum())
        if stop == start:
            cleaning.add(counts, cleaning.NO_TOKENS)
            continue
        upto = int(unknown_at[stop - 1]) if unknown_at is not None else 0
        if pairs and (lengths.min() == 0 or lengths.max() > SECTION_TOKENS):
            cleaning.add(counts, cleaning.LONG_PAIRS if lengths.min() else cleaning.EMPTY_PAIRS)
            start, words = stop, upto
            continue
        lengths = _cut_long(lengths[lengths > 0], counts)
        made.append((key, encode_section(0, lengths, encoded.ids[start:stop], encoded.unknown[words:upto])))
        start, words = stop, upto
    return len(encoded.ids)


def _encode_sentences(sentences: Sequence[str], tokenizer: Tokenizer) -> Sentences:
    """As the tokenizer's own, a quarter of a million characters at a time, so that memory does not grow with a book."""
    found: list[Sentences] = []
    first = size = 0
    for last, sentence in enumerate(sentences, 1):
        size += len(sentence)
        if size >= _TOGETHER or last == len(sentences):
            found.append(tokenizer.encode_sentences(sentences[first:last]))
            first, size = last, 0
    if len(found) == 1:
        return found[0]
    return Sentences(
        np.concatenate([part.ids for part in found] or [np.zeros(0, np.int32)]),
        np.concatenate([part.lengths for part in found] or [np.zeros(0, np.int64)]),
        [word for part in found for word in part.unknown],
        sum(part.long_words for part in found),
    )


def _cut_long(lengths: Int[np.ndarray, " s"], counts: cleaning.Counts) -> Int[np.ndarray, " _"]:
    """Sentences of more tokens than a section are cut, so that no record grows without bound."""
    if lengths.max() <= SECTION_TOKENS:
        return lengths
    out: list[int] = []
    for length in lengths.tolist():
        whole, rest = divmod(length, SECTION_TOKENS)
        if length > SECTION_TOKENS:
            out += [SECTION_TOKENS] * whole + [rest] * (rest > 0)
            cleaning.add(counts, cleaning.CUT_SENTENCES, whole - (rest == 0))
        else:
            out.append(length)
    return np.array(out, np.int64)


def write_file(path: pathlib.Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    replace(part, path)


def read_report(path: pathlib.Path) -> dict[str, Any] | None:
    """The report of a finished piece; None where there is none."""
    try:
        with open(path, "rb") as file:
            magic, size, _ = _HEADER.unpack(file.read(_HEADER.size))
            return json.loads(file.read(size)) if magic == _MAGIC else None
    except (FileNotFoundError, struct.error, ValueError):
        return None


class _Range(NamedTuple):
    """Where the documents of a piece lie whose keys are in a range."""

    keys: UInt64[np.ndarray, " n"]
    offsets: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, " n"]


def _read_range(path: pathlib.Path, low: int, high: int) -> _Range:
    with open(path, "rb") as file:
        _, report, count = _HEADER.unpack(file.read(_HEADER.size))
        file.seek(report, os.SEEK_CUR)
        keys = np.frombuffer(file.read(8 * count), "<u8")
        sizes = np.frombuffer(file.read(8 * count), "<u8").astype(np.int64)
        ends = file.tell() + np.cumsum(sizes)
    begin = int(np.searchsorted(keys, np.uint64(low)))
    end = count if high >= KEYS else int(np.searchsorted(keys, np.uint64(high)))
    return _Range(keys[begin:end], (ends - sizes)[begin:end], sizes[begin:end])


class Duplicates(NamedTuple):
    """How many documents of a shard are equal to one before, and how many were left out as near duplicates."""

    equal: int
    near: int


def write_range(
    pieces: Sequence[pathlib.Path],
    low: int,
    high: int,
    path: pathlib.Path,
    unk_id: int,
    once: bool = False,
    without: UInt64[np.ndarray, " n"] | None = None,
) -> Duplicates:
    """Write the shard of all documents with keys in [low, high), in order.

    Documents are read one by one where they lie; what is held is a few numbers for each.

    Args:
      pieces: of `encode_piece`.
      low, high: range of keys.
      path: of the shard.
      unk_id: of the tokenizer.
      once: write equal documents once.
      without: keys of documents that are left out, sorted.

    Raises:
      ConfigError: a piece is not as it was written.
    """
    near = 0
    try:
        found = [_read_range(piece, low, high) for piece in pieces]
        keys = np.concatenate([part.keys for part in found])
        owners = np.repeat(np.arange(len(found)), [len(part.keys) for part in found])
        offsets = np.concatenate([part.offsets for part in found])
        sizes = np.concatenate([part.sizes for part in found])
        order = np.argsort(keys, kind="stable")  # equal keys are equal documents, so their order is of no account
        if without is not None:
            kept = ~np.isin(keys[order], without)
            near, order = int((~kept).sum()), order[kept]
        again = np.flatnonzero(np.diff(keys[order]) == 0) + 1
        if once:
            order = np.delete(order, again)
        places = zip(owners[order].tolist(), offsets[order].tolist(), sizes[order].tolist())
        write_shard(path, records(_fetch(pieces, places), unk_id))
    except (struct.error, ValueError) as error:
        where = pieces[0].parent.parent
        raise ConfigError(f"the pieces in {where} are damaged ({error}); delete {where} and run again") from None
    return Duplicates(len(again), near)


def _fetch(pieces: Sequence[pathlib.Path], places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
    """The bytes at (piece, offset, size), with a bounded number of files open."""
    opened: dict[int, int] = {}
    try:
        for piece, offset, size in places:
            if piece not in opened:
                if len(opened) >= _OPEN_FILES:
                    os.close(opened.pop(next(iter(opened))))
                opened[piece] = os.open(pieces[piece], os.O_RDONLY)
            content = os.pread(opened[piece], size, offset)
            if len(content) != size:
                raise ValueError(f"{pieces[piece].name} is truncated")
            yield content
    finally:
        for file in opened.values():
            os.close(file)


def records(found: Iterable[bytes], unk_id: int) -> Iterator[bytes]:
    """Sections of documents in order, each closed once it holds SECTION_TOKENS."""
    for number, record in enumerate(found):
        whole = decode_section(record)
        if len(whole.tokens) <= SECTION_TOKENS:
            yield encode_section(number, whole.lengths, whole.tokens, whole.unknown)
            continue
        ends = np.cumsum(whole.lengths, dtype=np.int64)
        first = start = used = 0
        while first < len(ends):
            last = min(int(np.searchsorted(ends, start + SECTION_TOKENS)), len(ends) - 1)
            stop = int(ends[last])
            tokens = whole.tokens[start:stop]
            upto = used + int((tokens == unk_id).sum()) if whole.unknown else 0
            yield encode_section(number, whole.lengths[first : last + 1], tokens, whole.unknown[used:upto])
            first, start, used = last + 1, stop, upto


def heldout_below(fraction: float) -> int:
    """Documents with smaller keys are held out."""
    return int(fraction * KEYS)
