"""Words and how often they stand in the training documents: counted by piece, added up in parts, the frequent ones.

The sums are exact and in no order, so a vocabulary depends on the set of documents alone. What is held at a time is a
part of the words, by their hash.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import xxhash

from ctxjax.data import piecework
from ctxjax.data.piecework import Selection, heldout_below, selected
from ctxjax.data.reading import Chunk
from ctxjax.data.workers import Pool

BUCKETS = 256  # of words, by their hash
COUNTED_WORDS = 1 << 19  # distinct words that a vocabulary is learned from, or four times the vocabulary
MERGED_WORDS = 1 << 20  # words of all pieces added up at a time


class Counting(NamedTuple):
    """How words are counted to learn a vocabulary: the kind of tokenizer, its options, and the share held out."""

    kind: str
    lowercase: bool
    split: str
    heldout: float
    marked: str = ""


def count_words(chunks: Sequence[Chunk], selection: Selection, how: Counting) -> tuple[dict[str, int], dict[str, Any]]:
    """The words of the training documents of a piece with their counts, and the report of what was left out."""
    from ctxjax.text import learning, words

    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    seen: set[str] = set()
    threshold = heldout_below(how.heldout)
    for chunk in chunks:
        for document in selected(chunk, selection, reasons, seen):
            if document.key < threshold:
                continue
            if how.kind == "words":
                words.count_words(document.text, how.lowercase, how.split, counts, how.marked)
            elif how.kind == "bpe":
                from ctxjax.text import bpe

                learning.count_words(bpe.plain(document.text), how.lowercase, counts)
            elif how.kind == "byte_bpe":
                from ctxjax.text import byte_learning

                byte_learning.count_pretokens(document.text, how.lowercase, counts)
            else:
                learning.count_words(document.text, how.lowercase, counts)
    return counts, {"counts": reasons, "fields": sorted(seen)[: piecework.FIELDS]}


def count_piece(chunks: Sequence[Chunk], path: pathlib.Path, selection: Selection, how: Counting) -> None:
    """Write the words of a piece's training documents with their counts."""
    counts, report = count_words(chunks, selection, how)
    write_counts(path, counts, report)


def write_counts(path: pathlib.Path, counts: dict[str, int], report: dict[str, Any]) -> None:
    """A line of JSON with the report, then `word<TAB>count` lines, those of a bucket of words together."""
    buckets: list[list[str]] = [[] for _ in range(BUCKETS)]
    for word in sorted(counts):
        line = f"{word}\t{counts[word]}\n"
        buckets[xxhash.xxh32_intdigest(word.encode("utf-8", "surrogatepass")) % BUCKETS].append(line)
    parts = ["".join(lines).encode("utf-8", "surrogatepass") for lines in buckets]
    report = report | {"words": len(counts), "sizes": [len(part) for part in parts]}
    piecework.write_file(path, b"".join([json.dumps(report).encode(), b"\n", *parts]))


def read_counts(
    path: pathlib.Path, first: int = 0, last: int | None = None
) -> tuple[dict[str, Any], Iterator[tuple[str, int]]]:
    """What `write_counts` wrote: the report, and the words of the buckets first, ..., last - 1 with their counts."""
    with open(path, "rb") as file:
        report = json.loads(file.readline())
        file.seek(sum(report["sizes"][:first]), os.SEEK_CUR)
        lines = file.read(sum(report["sizes"][first:last])).decode("utf-8", "surrogatepass").split("\n")
    pairs = (line.rpartition("\t") for line in lines if line)
    return report, ((word, int(count)) for word, _, count in pairs)


def merge_counts(paths: Sequence[pathlib.Path], first: int, last: int, path: pathlib.Path) -> None:
    """Write the sums over pieces of the words of some buckets; the report says how many words have which count."""
    counts: dict[str, int] = {}
    for piece in paths:
        for word, count in read_counts(piece, first, last)[1]:
            counts[word] = counts.get(word, 0) + count
    write_counts(path, counts, {"numbers": sorted(collections.Counter(counts.values()).items())})


def floor_of(sizes: Iterable[tuple[int, int]], limit: int) -> int:
    """The count at or below which words are left out, so that at most `limit` are kept.

    Args:
      sizes: (count, number of words that have it).
      limit: of distinct words.
    """
    ordered = sorted(sizes)
    left, floor = sum(number for _, number in ordered), 0
    for count, number in ordered:
        if left <= limit:
            break
        left, floor = left - number, count
    return floor


def frequent(paths: Sequence[pathlib.Path], words: int, limit: int, folder: pathlib.Path, pool: Pool) -> dict[str, int]:
    """Words with their counts over all pieces; where there are more than `limit`, those of the smallest counts go.

    Args:
      paths: of `count_piece`. words: how many they hold together, a word once for each piece.
      limit: of distinct words. folder: of sums of parts.
      pool: adds up the parts.
    """
    parts = min(BUCKETS, -(-words // max(limit, MERGED_WORDS)))
    edges = [BUCKETS * part // parts for part in range(parts + 1)] if parts else []
    made = [folder / f"sums-{part:03d}-of-{parts:03d}" for part in range(parts)]
    for first, last, path in zip(edges, edges[1:], made):
        if not path.exists():
            pool.submit(merge_counts, (paths, first, last, path), lambda _: None)
    pool.drain()
    numbers: dict[int, int] = {}
    for path in made:
        for count, number in read_counts(path, BUCKETS)[0]["numbers"]:
            numbers[count] = numbers.get(count, 0) + number
    floor = floor_of(numbers.items(), limit)
    return {word: count for path in made for word, count in read_counts(path)[1] if count > floor}


def counting(plan: dict[str, Any], heldout: float) -> Counting:
    """How the words are counted of which the vocabulary of a plan is learned."""
    split, marked = plan.get("word_split", "rules"), plan.get("marked", "")
    return Counting(plan["tokenizer"], plan["lowercase"], split, heldout, marked)


def most_words(plan: dict[str, Any]) -> int:
    """Distinct words that a vocabulary is learned from at most."""
    return max(COUNTED_WORDS, 4 * plan["vocab_size"])
