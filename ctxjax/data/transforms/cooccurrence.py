"""How often words stand near one another: sums over a corpus in bounded memory, sorted runs on disk merged in order.

Reference: Pennington et al. 2014, "GloVe: Global Vectors for Word Representation", section 4.2; stanfordnlp/GloVe
src/cooccur.c.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ctxjax.data.arrays import ArrayWriter
from ctxjax.data.corpus import Corpus
from ctxjax.data.sorted_runs import SortedRuns

_MARKS = 3  # <S>, </S> and <UNK> are left out before distances are taken
_ENTRIES = 1 << 23  # pairs sorted together, and merged together


def write_cooccurrences(folder: pathlib.Path, *, corpus: Corpus, window: int) -> None:
    """Build `first`, `second` (words, first <= second) and `counts.npy`: each unordered pair once, equal words last.

    Two words d places apart, marks not counted, add 1 / d to their pair. Windows reach over sentences, not documents.
    """
    import tqdm

    size = corpus.manifest["tokenizer"]["pieces"]
    runs = SortedRuns(folder, _ENTRIES)
    with tqdm.tqdm(total=corpus.num_tokens, desc="co-occurrences", unit=" words", delay=3, disable=None) as bar:
        for words, documents, read in _stretches(corpus, max(1, _ENTRIES // window), window):
            keys, sums = pairs_of(words, documents, window, size)
            runs.add([keys], sums)
            bar.update(read)
    writers = {name: ArrayWriter(folder / f"{name}.npy", kind) for name, kind in KINDS.items()}
    equal: list[tuple[np.ndarray, np.ndarray]] = []
    for (keys,), sums in runs.merged():
        first, second = keys // size, keys % size
        same = first == second
        equal.append((first[same], sums[same]))
        for name, values in zip(KINDS, (first, second, sums)):
            writers[name].append(values[~same])
    for words, sums in equal:
        for name, values in zip(KINDS, (words, words, sums)):
            writers[name].append(values)
    for writer in writers.values():
        writer.close()
    runs.remove()


KINDS = {"first": "<i4", "second": "<i4", "counts": "<f4"}


def pairs_of(
    words: Int[np.ndarray, " N"], documents: Int[np.ndarray, " N"], window: int, size: int
) -> tuple[Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Keys `first * size + second` of the pairs of a stretch and what each adds; equal words count from both sides.

    Places of which the document is negative stand in front of the stretch: they pair with what is in it alone.
    """
    keys, sums = [np.zeros(0, np.int64)], [np.zeros(0, np.float64)]
    for distance in range(1, min(window, len(words) - 1) + 1):
        left, right = words[:-distance].astype(np.int64), words[distance:].astype(np.int64)
        there = (documents[distance:] >= 0) & (np.abs(documents[:-distance] + 0.5) == documents[distance:] + 0.5)
        left, right = left[there], right[there]
        keys.append(np.minimum(left, right) * size + np.maximum(left, right))
        sums.append(np.where(left == right, 2.0, 1.0) / distance)
    return np.concatenate(keys), np.concatenate(sums)


def _stretches(corpus: Corpus, length: int, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Words without marks, their documents, and the tokens read; the last words before a stretch stand in front."""
    starts = corpus.sentence_tokens[corpus.document_sentences]
    before = np.zeros(0, np.int32), np.zeros(0, np.int64)
    for start in range(0, corpus.num_tokens, length):
        stop = min(start + length, corpus.num_tokens)
        tokens, _ = corpus.read_tokens(start, stop)
        at = np.flatnonzero(tokens >= _MARKS)
        words, documents = tokens[at], starts.searchsorted(at + start, "right") - 1
        yield np.concatenate([before[0], words]), np.concatenate([-1 - before[1], documents]), stop - start
        kept = np.concatenate([before[0], words])[-window:], np.concatenate([before[1], documents])[-window:]
        before = kept
