"""From inputs to a prepared corpus: learn a vocabulary, tokenise in pieces, gather the pieces into shards.

Every step leaves atomic files under `OUTPUT/.prepare`, so the same command continues after a kill, and the corpus does
not depend on the number of workers. Memory is bounded by the size of a piece, a shard and the vocabulary's word counts.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, corpus, duplicates, parallel, piecework, preparation, reading, tfds_text, word_counts
from ctxjax.data.arrays import replace
from ctxjax.data.preparation import Settings
from ctxjax.data.workers import Pool
from ctxjax.text import open_tokenizer
from ctxjax.text.tokenizer import SETTINGS, Tokenizer

SHARD_BYTES = 1 << 25
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class Shard(NamedTuple):
    """A shard's file, and the range [low, high) of the keys of its documents."""

    name: str
    low: int
    high: int


class NothingUsableError(ConfigError):
    """Inputs of which nothing is left."""


def prepare(settings: Settings) -> dict[str, Any]:
    """Prepare a corpus, or go on preparing it; returns the manifest.

    Raises:
      ConfigError: inputs that are missing, broken or hold nothing usable, a folder in use for something else, no room.
    """
    output = pathlib.Path(settings.output)
    given = preparation.given_tokenizer(settings)
    if settings.pairs:
        inputs = preparation.find_pairs(settings)
    else:
        inputs = preparation.find_inputs(settings, settings.input)
    apart = preparation.find_inputs(settings, settings.heldout_input)
    plan = preparation.make_plan(settings, inputs, given, apart)
    if apart:
        settings = dataclasses.replace(settings, heldout=0.0)
    work = output / preparation.WORK
    try:
        manifest = preparation.finished(output, plan)
        if manifest is None:
            work.mkdir(parents=True, exist_ok=True)
            with preparation.lock(output, work):
                if preparation.start_or_continue(output, work, plan):
                    _say(f"going on with the unfinished corpus in {output}")
                with Pool(settings.workers or len(os.sched_getaffinity(0))) as pool:
                    manifest = _build(settings, inputs, apart, plan, given, work, pool)
        shutil.rmtree(work, ignore_errors=True)
        return manifest
    except NothingUsableError:
        shutil.rmtree(work, ignore_errors=True)
        if not any(output.iterdir()):
            output.rmdir()
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ConfigError(f"cannot write under {output} ({error.strerror}); the same command continues") from None


def _build(
    settings: Settings,
    inputs: Sequence[reading.Input],
    apart: Sequence[reading.Input],
    plan: dict[str, Any],
    given: Tokenizer | None,
    work: pathlib.Path,
    pool: Pool,
) -> dict[str, Any]:
    tokenizer, folder = _tokenizer(settings, inputs, plan["settings"], given, work, pool)
    counts: dict[str, int] = {}
    stats, output = work / "shards", work.parent
    stats.mkdir(exist_ok=True)
    splits: dict[str, list[str]] = {}
    tasks: list[tuple[Any, ...]] = []
    total, once = 0, settings.duplicates != "keep"
    for title, read in (("pieces", inputs), ("pieces-heldout", apart)):
        if read:
            paths, report = _encode(settings, read, folder, work / title, counts, pool)
            layout = make_layout(report, settings.heldout, read is apart, SHARD_BYTES)
            size = report["bytes"]
            total += size
            without = _near_duplicates(paths, work / f"{title}.later.npy") if settings.duplicates == "near" else None
            for split, shards in layout.items():
                splits[split] = [name for name, _, _ in shards]
                for shard in shards:
                    share = size * (shard.high - shard.low) // piecework.KEYS
                    places = (output / shard.name, stats / f"{shard.name}.json")
                    tasks.append((share, (paths, shard, *places, tokenizer.unk_id, once, without)))
    with _bar(total, "shards", "B") as bar:
        for share, arguments in tasks:
            if not arguments[3].exists():
                pool.submit(write_range, arguments, functools.partial(_advance, bar, share))
        pool.drain()
    for _, arguments in tasks:
        count_duplicates(counts, piecework.Duplicates(**json.loads(arguments[3].read_text())), once)
    return corpus.finish(
        output,
        tokenizer,
        splits,
        {reason: counts[reason] for reason in cleaning.DROPPED if reason in counts},
        repaired={reason: counts[reason] for reason in cleaning.REPAIRED if reason in counts},
        **plan,
    )


def _near_duplicates(pieces: Sequence[pathlib.Path], path: pathlib.Path) -> pathlib.Path:
    """The file of the keys of documents that are left out."""
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, duplicates.later([piecework.bands_of(piece) for piece in pieces]))
        replace(part, path)
    return path


def count_duplicates(counts: cleaning.Counts, found: piecework.Duplicates, once: bool) -> None:
    """Add those of a shard to what was left out or, where they were kept, to what was repaired."""
    cleaning.add(counts, cleaning.EQUAL if once else cleaning.DUPLICATES, found.equal)
    cleaning.add(counts, cleaning.NEAR, found.near)


def _encode(
    settings: Settings,
    inputs: Sequence[reading.Input],
    tokenizer: pathlib.Path,
    folder: pathlib.Path,
    counts: dict[str, int],
    pool: Pool,
) -> tuple[list[pathlib.Path], dict[str, Any]]:
    """The files of all pieces, tokenised, and the report of them together."""
    folder.mkdir(exist_ok=True)
    arguments = (settings.selection, str(tokenizer))
    paths = _each_piece(inputs, settings.field, pool, "tokenise", folder, counts, encode_piece, arguments)
    report = piecework.merge_reports(report for path in paths if (report := piecework.read_report(path)))
    for reason, number in report["counts"].items():
        cleaning.add(counts, reason, number)
    if not report["documents"]:
        raise nothing_left(counts, report["fields"], settings.field)
    return paths, report


def _tokenizer(
    settings: Settings,
    inputs: Sequence[reading.Input],
    plan: dict[str, Any],
    given: Tokenizer | None,
    work: pathlib.Path,
    pool: Pool,
) -> tuple[Tokenizer, pathlib.Path]:
    """The tokenizer and the folder that workers open it from; learned unless it is given."""
    folder = work / "tokenizer"
    if (folder / SETTINGS).exists():
        return open_tokenizer(folder), folder
    if given is None:
        given = _learn(settings, inputs, plan, settings.heldout, work, pool)
    given.save(folder)
    return given, folder


def _learn(
    settings: Settings,
    inputs: Sequence[reading.Input],
    plan: dict[str, Any],
    heldout: float,
    work: pathlib.Path,
    pool: Pool,
) -> Tokenizer:
    """A vocabulary of the training documents."""
    folder = work / f"words-{heldout}"
    folder.mkdir(exist_ok=True)
    reasons: dict[str, int] = {}
    arguments = (settings.selection, word_counts.counting(plan, heldout))
    paths = _each_piece(inputs, settings.field, pool, "count words", folder, reasons, count_piece, arguments)
    fields: set[str] = set()
    words = 0
    for path in paths:
        report, _ = word_counts.read_counts(path, word_counts.BUCKETS)
        words += report["words"]
        fields.update(report["fields"])
        for reason, number in report["counts"].items():
            cleaning.add(reasons, reason, number)
    counts = word_counts.frequent(paths, words, word_counts.most_words(plan), folder, pool)
    if not counts and heldout:
        return _learn(settings, inputs, plan, 0.0, work, pool)  # so few documents that all of them fell on that side
    if not counts:
        raise nothing_left(reasons, fields, settings.field)
    made = learn(counts, plan)
    shutil.rmtree(folder)
    return made


def learn(counts: dict[str, int], plan: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a plan, learned from words and their counts."""
    from ctxjax.text import learning, words
    from ctxjax.text.wordpiece import WordPiece

    kind, size, lowercase = plan["tokenizer"], plan["vocab_size"], plan["lowercase"]
    _say(f"learning {kind} vocabulary from {sum(counts.values()):,} words, {len(counts):,} distinct")
    if kind == "words":
        pieces = words.learn_pieces(counts, size, plan["min_count"])
        return words.Words(pieces, lowercase, plan["word_split"], marked=plan.get("marked", ""))
    if kind == "bpe":
        from ctxjax.text import bpe, bpe_learning

        return bpe.BPE(*bpe_learning.learn_pieces(counts, size), lowercase)
    if kind == "byte_bpe":
        from ctxjax.text import byte_bpe, byte_learning

        return byte_bpe.ByteBPE(*byte_learning.learn_pieces(counts, size), lowercase)
    return WordPiece(learning.learn_pieces(counts, size), lowercase)


def nothing_left(counts: dict[str, int], fields: Collection[str], field: str) -> NothingUsableError:
    """What is said of inputs of which nothing is left."""
    reasons = ", ".join(f"{counts[reason]} {reason}" for reason in cleaning.DROPPED if counts.get(reason))
    hint = ""
    if fields and counts.get(cleaning.NO_FIELD):
        hint = f"; --field {field} is none of the fields that were seen: {', '.join(sorted(fields))}"
    return NothingUsableError(f"nothing usable is left of the inputs ({reasons or 'no words'}){hint}")


def make_layout(report: dict[str, Any], heldout: float, apart: bool, shard_bytes: int) -> dict[str, list[Shard]]:
    """Shard names and ranges of keys of each split. With two documents or more neither split is empty.

    Args:
      report: of all pieces together.
      heldout: share of the documents that is held out.
      apart: the documents are those of `--heldout_input`, all of them held out.
      shard_bytes: of records in a shard, about.
    """
    first, last = report["first"], report["last"]
    border = piecework.heldout_below(heldout)
    if heldout and first < last:
        border = min(max(border, first + 1), last)
    elif first == last:
        border = 0
    made = {}
    for split, low, high in (("heldout" if apart else "train", border, piecework.KEYS), ("heldout", 0, border)):
        number = max(1, math.ceil(report["bytes"] * (high - low) / piecework.KEYS / shard_bytes))
        edges = [low + (high - low) * i // number for i in range(number + 1)]
        if high > low:
            made[split] = [Shard(corpus.shard_name(split, i, number), edges[i], edges[i + 1]) for i in range(number)]
    return made


def _each_piece(
    inputs: Sequence[reading.Input],
    field: str,
    pool: Pool,
    title: str,
    folder: pathlib.Path,
    counts: dict[str, int],
    task: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> list[pathlib.Path]:
    """Run a task on every piece whose file is not there yet; returns the files of all pieces, in order."""
    paths: list[pathlib.Path] = []
    read = 0
    with _bar(sum(item.size for item in inputs), title, "B") as bar:
        for piece in _pieces(inputs, field, counts):
            path = folder / f"{piece.number:06d}"
            paths.append(path)
            done = functools.partial(_advance, bar, piece.read - read)
            read = piece.read
            if path.exists():
                done(None)
            else:
                pool.submit(task, (piece.chunks, path, *arguments), done)
        pool.drain()
    return paths


def _pieces(inputs: Sequence[reading.Input], field: str, counts: dict[str, int]) -> Iterator[reading.Piece]:
    files = [item for item in inputs if item.format not in ("texts", parallel.FORMAT)]
    number = read = 0
    for piece in reading.read_pieces(files, counts):
        number, read = piece.number + 1, piece.read
        yield piece
    for item in inputs:
        if item.format == parallel.FORMAT:
            yield from parallel.read_pieces(item, number, counts)
        if item.format == "texts":
            base = read
            for piece in tfds_text.read_pieces(item, field, number, counts):
                number, read = piece.number + 1, base + piece.read
                yield piece._replace(read=read)


def count_piece(*arguments: Any) -> None:
    word_counts.count_piece(*arguments)


def encode_piece(
    chunks: Sequence[reading.Chunk], path: pathlib.Path, selection: piecework.Selection, folder: str
) -> int:
    """Returns the number of tokens."""
    return piecework.encode_piece(chunks, path, selection, _open_once(folder))["tokens"]


@functools.lru_cache(1)
def _open_once(folder: str) -> Tokenizer:
    return open_tokenizer(folder)


def write_range(
    pieces: Sequence[pathlib.Path],
    shard: Shard,
    path: pathlib.Path,
    stat: pathlib.Path,
    unk_id: int,
    once: bool,
    without: pathlib.Path | None,
) -> None:
    keys = None
    if without is not None:
        keys = np.load(without, mmap_mode="r").view(np.ndarray)
        low, high = (int(np.searchsorted(keys, np.uint64(min(edge, piecework.KEYS - 1)))) for edge in shard[1:])
        keys = np.array(keys[low : high + 1])
    found = piecework.write_range(pieces, shard.low, shard.high, path, unk_id, once, keys)
    part = stat.with_suffix(".part")
    part.write_text(json.dumps(found._asdict()))
    replace(part, stat)


def _advance(bar: Any, amount: int, tokens: int | None) -> None:
    if tokens:
        bar.tokens += tokens
        bar.set_postfix_str(f"{bar.tokens / (time.monotonic() - bar.began) / 1e3:,.0f}k tokens/s", refresh=False)
    bar.update(amount)


def _bar(total: int, title: str, unit: str) -> Any:
    from tqdm import tqdm

    bar = tqdm(total=total, desc=title, unit=unit, unit_scale=True, file=sys.stderr, disable=None, dynamic_ncols=True)
    bar.tokens, bar.began = 0, time.monotonic()
    return bar


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
