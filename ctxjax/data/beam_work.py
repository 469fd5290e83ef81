"""What Apache Beam's workers do: the functions of `piecework.py` on elements of a pipeline.

Elements are tuples, texts and bytes, which every runner passes on without pickling. What is left out or repaired is a
report, as of a piece, and reports are merged in any order.
"""

from __future__ import annotations

import bisect
import collections
import functools
import json
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import xxhash
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from ctxjax.data import building, corpus, parallel, piecework, reading, tfds_text, word_counts
from ctxjax.data.arrays import replace
from ctxjax.text import open_tokenizer
from ctxjax.text.tokenizer import Tokenizer

_RESULTS = 64  # files of what a pipeline finds
_ROWS = 1 << 16  # of a dataset, read by one worker at a time
_REPORT, _BANDS = "report", "bands"


class Encoded(NamedTuple):
    """Documents as (key, record), one report of them all, and (band, key) of each where near ones are looked for."""

    documents: Any
    report: Any
    bands: Any


class Counted(NamedTuple):
    """The most frequent words as (word, count), and one report of what was left out."""

    words: Any
    report: Any


def digests(pipeline: Any, files: Sequence[str]) -> Any:
    """(file, digest) of every file."""
    spread = pipeline | beam.Create(list(files)) | beam.Reshuffle()
    return spread | "digest" >> beam.Map(lambda file: (file, reading.digest(file)))


def count(
    pipeline: Any,
    inputs: Sequence[reading.Input],
    selection: piecework.Selection,
    how: word_counts.Counting,
    limit: int,
) -> Counted:
    """The words of the training documents, the rarest left out until there are at most `limit`."""
    pieces, read = _pieces(pipeline, "input", inputs, selection.field)
    found = pieces | "count words" >> beam.ParDo(_Count(selection, how)).with_outputs(_REPORT, main="words")
    totals = found["words"] | beam.CombinePerKey(sum)
    sizes = totals | beam.Values() | beam.combiners.Count.PerElement() | beam.combiners.ToList()
    floor = sizes | "floor" >> beam.Map(word_counts.floor_of, limit)
    words = totals | "frequent" >> beam.Filter(lambda pair, floor: pair[1] > floor, beam.pvalue.AsSingleton(floor))
    return Counted(words, _merged("words", read, found[_REPORT]))


def encode(
    pipeline: Any,
    title: str,
    inputs: Sequence[reading.Input],
    selection: piecework.Selection,
    tokenizer: str,
    remote: bool,
) -> Encoded:
    """Every document of the inputs, tokenised."""
    pieces, read = _pieces(pipeline, title, inputs, selection.field)
    files = {path.name: path.read_bytes() for path in pathlib.Path(tokenizer).iterdir()} if remote else {}
    work = _Encode(selection, tokenizer, files)
    found = pieces | f"{title} tokenise" >> beam.ParDo(work).with_outputs(_REPORT, _BANDS, main="documents")
    bands = found[_BANDS] if selection.duplicates == "near" else None
    return Encoded(found["documents"], _merged(title, read, found[_REPORT]), bands)


def layout(report: dict[str, Any], heldout: float, apart: bool, shard_bytes: int) -> dict[str, list[list[Any]]]:
    """The shards of every split as lists [name, low, high]; none where there is no document."""
    if not report["documents"]:
        return {}
    made = building.make_layout(report, heldout, apart, shard_bytes)
    return {split: [list(shard) for shard in shards] for split, shards in made.items()}


def write(title: str, found: Encoded, layout: Any, output: str, folder: str, unk_id: int, once: bool) -> Any:
    """Write every document into its shard; gives what there is to say of each shard.

    Args:
      title: names the steps.
      found: of `encode`.
      layout: of this part of the corpus, one element.
      output: folder of the shards. folder: of what is counted in them.
      unk_id: of the tokenizer.
      once: write equal documents once.
    """
    ranges = beam.pvalue.AsSingleton(layout)
    parts = [found.documents | f"{title} place" >> beam.Map(_place, ranges)]
    parts.append(layout | f"{title} shards" >> beam.FlatMap(lambda splits: [(name, None) for name in _names(splits)]))
    if found.bands is not None:
        groups = found.bands | f"{title} bands" >> beam.GroupByKey()
        later = groups | f"{title} later" >> beam.FlatMap(_later) | f"{title} each once" >> beam.Distinct()
        marks = later | f"{title} marks" >> beam.Map(lambda key: (key, b""))  # no document is that short
        parts.append(marks | f"{title} mark" >> beam.Map(_place, ranges))
    grouped = parts | f"{title} join" >> beam.Flatten() | f"{title} gather" >> beam.GroupByKey()
    return grouped | f"{title} write" >> beam.Map(_write, output, folder, unk_id, once)


def _later(group: tuple[bytes, Iterable[bytes]]) -> Iterator[bytes]:
    """The keys of a band but for the smallest; they are gone through twice, never held."""
    least = min(group[1])
    return (key for key in group[1] if key != least)


def _names(splits: dict[str, list[list[Any]]]) -> Iterator[str]:
    return (name for shards in splits.values() for name, _, _ in shards)


def _place(document: tuple[bytes, bytes], splits: dict[str, list[list[Any]]]) -> tuple[str, tuple[bytes, bytes]]:
    key = int.from_bytes(document[0], "big")
    for shards in splits.values():
        if shards[0][1] <= key < shards[-1][2]:
            return shards[bisect.bisect_right(shards, key, key=lambda shard: shard[1]) - 1][0], document
    raise AssertionError("a key of no shard")


def _write(
    group: tuple[str, Iterable[tuple[bytes, bytes] | None]], output: str, folder: str, unk_id: int, once: bool
) -> dict[str, Any]:
    """One shard, its documents in the order of their keys; equal ones are held once."""
    name, documents = group
    numbers: collections.Counter[tuple[bytes, bytes]] = collections.Counter()
    numbers.update(document for document in documents if document is not None)
    marked = {key for key, record in numbers if not record}
    near = sum(number for (key, record), number in numbers.items() if record and key in marked)
    kept = sorted((document, number) for document, number in numbers.items() if document[0] not in marked)
    equal = sum(number for _, number in kept) - len({key for (key, _), _ in kept})
    found = (record for (_, record), number in kept for _ in range(1 if once else number))
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place, name)
        corpus.write_shard(path, piecework.records(found, unk_id))
        none = corpus.ShardCounts(*(np.zeros(0, np.int64) for _ in corpus.ShardCounts._fields))
        counts = next(corpus.count_shard(path, at_once=1 << 62), none)
        np.savez(path.with_suffix(".npz"), **counts._asdict())
        put(path.with_suffix(".npz"), f"{folder}/counts/{name}.npz")
        file = corpus.describe_file(path)
        put(path, f"{output}/{name}")
    return {"name": name, "file": file, "duplicates": piecework.Duplicates(equal, near)._asdict()}


def keep(found: Any, name: str, folder: str) -> None:
    """Write all elements into a folder, as lines of JSON in a few files."""
    spread = found | f"{name} as JSON" >> beam.Map(_line)
    _ = spread | f"{name} together" >> beam.GroupByKey() | f"{name} kept" >> beam.Map(_write_lines, folder)


def _line(element: Any) -> tuple[int, str]:
    text = json.dumps(element)
    return xxhash.xxh32_intdigest(text.encode()) % _RESULTS, text


def _write_lines(group: tuple[int, Iterable[str]], folder: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place, "lines")
        path.write_text("".join(f"{line}\n" for line in sorted(group[1])))
        put(path, f"{folder}/{group[0]:05d}.jsonl")


def put(path: pathlib.Path, target: str) -> None:
    """Copy a file to where all see it; the name appears when the file is complete, whoever else writes it too."""
    place = reading.located(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if "://" in target:
        with open(path, "rb") as file, place.open("wb") as out:
            shutil.copyfileobj(file, out)
    else:
        part = place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")
        shutil.copyfile(path, part)
        replace(part, place)


def _merged(title: str, *reports: Any) -> Any:
    together = reports | f"{title} reports" >> beam.Flatten()
    return together | f"{title} report" >> beam.CombineGlobally(piecework.merge_reports)


def _pieces(pipeline: Any, title: str, inputs: Sequence[reading.Input], field: str) -> tuple[Any, Any]:
    """The pieces of work of all inputs, spread over the workers whoever read them, and the readers' reports."""
    parts: list[tuple[Any, ...]] = []
    for item in inputs:
        rows = range(0, item.size, _ROWS) if item.format == "texts" else (0,)
        parts += [(tuple(item), first, min(first + _ROWS, item.size)) for first in rows]
    spread = pipeline | f"{title} inputs" >> beam.Create(parts) | f"{title} spread" >> beam.Reshuffle()
    read = spread | f"{title} read" >> beam.ParDo(_Read(field)).with_outputs(_REPORT, main="pieces")
    return read["pieces"] | f"{title} share" >> beam.Reshuffle(), read[_REPORT]


class _Read(beam.DoFn):
    """Inputs to pieces of work; small files together."""

    def __init__(self, field: str):
        self.field = field

    def start_bundle(self) -> None:
        self.held: list[tuple[Any, ...]] = []
        self.size = 0

    def process(self, part: tuple[Any, ...]) -> Iterator[Any]:
        item, first, last = reading.Input(*part[0]), part[1], part[2]
        counts: dict[str, int] = {}
        if item.format == parallel.FORMAT:
            for piece in parallel.read_pieces(item, 0, counts):
                yield [tuple(chunk) for chunk in piece.chunks]
        elif item.format == "texts":
            for piece in tfds_text.read_pieces(item, self.field, 0, counts, range(first, last)):
                yield [tuple(chunk) for chunk in piece.chunks]
        else:
            with reading.opened(item.path) as raw:
                for data in reading.blocks(item, raw, counts):
                    self.held.append((item.format, data))
                    self.size += len(data)
                    if self.size >= reading.PIECE_BYTES:
                        yield self._take()
        if counts:
            yield beam.pvalue.TaggedOutput(_REPORT, {"counts": counts, "fields": []})

    def finish_bundle(self) -> Iterator[Any]:
        if self.held:
            window = GlobalWindow()
            yield WindowedValue(self._take(), window.max_timestamp(), [window])

    def _take(self) -> list[tuple[Any, ...]]:
        held, self.held, self.size = self.held, [], 0
        return held


class _Count(beam.DoFn):
    """A piece of work to words and their counts."""

    def __init__(self, selection: piecework.Selection, how: word_counts.Counting):
        self.selection, self.how = selection, how

    def process(self, piece: list[tuple[Any, ...]]) -> Iterator[Any]:
        counts, report = word_counts.count_words([reading.Chunk(*chunk) for chunk in piece], self.selection, self.how)
        yield from counts.items()
        yield beam.pvalue.TaggedOutput(_REPORT, report)


class _Encode(beam.DoFn):
    """A piece of work to (key, record) of its documents."""

    def __init__(self, selection: piecework.Selection, tokenizer: str, files: dict[str, bytes]):
        self.selection, self.tokenizer, self.files = selection, tokenizer, tuple(sorted(files.items()))

    def process(self, piece: list[tuple[Any, ...]]) -> Iterator[Any]:
        opened = _open_once(self.tokenizer, self.files)
        made = piecework.encode_chunks([reading.Chunk(*chunk) for chunk in piece], self.selection, opened)
        for key, record in made.documents:
            yield key.to_bytes(8, "big"), record
        for key, *bands in made.bands.tolist() if made.bands is not None else ():
            for number, band in enumerate(bands):
                yield beam.pvalue.TaggedOutput(
                    _BANDS, (bytes([number]) + band.to_bytes(8, "big"), key.to_bytes(8, "big"))
                )
        yield beam.pvalue.TaggedOutput(_REPORT, made.report)


@functools.lru_cache(1)
def _open_once(folder: str, files: tuple[tuple[str, bytes], ...]) -> Tokenizer:
    """The tokenizer of a folder, or of files that came with the work where there is no such folder."""
    if not files:
        return open_tokenizer(folder)
    with tempfile.TemporaryDirectory() as place:
        for name, content in files:
            pathlib.Path(place, name).write_bytes(content)
        return open_tokenizer(place)
