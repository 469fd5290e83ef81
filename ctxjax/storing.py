"""What a frozen model makes of the words of a source, run once and written for `ctxjax/data/stored.py` to open."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ctxjax.config import ConfigError
from ctxjax.data import stored


def store(source: Any, number: int, model: Any) -> Any:
    """Store the vectors of all words of a source by one of its models; returns them, `[words, layers, width]`.

    Args:
      source: a `ctxjax.data.sources.tagged.Source`, or what has its `sentences`, `kind` and `open_store`.
      number: of the model among `source.vectors_of`.
      model: it, as `ctxjax.load` opens it, or a function that does so, called where there is something to do.

    Raises:
      ConfigError: the model gives a text other words than it was given.
    """

    def build(folder: Any) -> None:
        opened = model() if callable(model) else model
        if "embed" not in opened.can:
            raise ConfigError(f"config.source.vectors_of: {source.vectors_of[number]} gives no vectors")
        sentences, where = source.sentences, f"{source.file(source.split)} by {source.vectors_of[number]}"
        with tqdm(desc=where, total=len(sentences), disable=None, dynamic_ncols=True) as bar:
            _write(folder, _vectors(opened, sentences, source.kind, where), sentences, bar.update)

    return source.open_store(number, build)


def _vectors(opened: Any, sentences: Sequence[Any], kind: Any, where: str) -> Iterator[np.ndarray]:
    """`[layers, words, width]` of each sentence."""
    counts: Any = ()
    if kind.context:
        reader, longest = opened.need("embed"), opened.runner.longest
        if longest and kind.context + reader.marks > longest:
            raise ConfigError(
                f"config.source.context={kind.context} is more than the {longest - reader.marks} pieces "
                f"that {where.rpartition(' by ')[2]} reads at once beside its marks"
            )
        counts = (int(n) for one in sentences for n in _pieces(reader.encode(list(one.words)), len(one.words)))
    ours, theirs = itertools.tee(stored.texts_of(sentences, counts, kind.context))
    layers = "top" if kind.layers in ("top", "-1") else "all"
    told = opened.stream((words for words, _ in ours), layers=layers, pool=kind.pool)
    for one, (words, first), found in zip(sentences, theirs, told):
        if found.layers.shape[1] != len(words):
            raise ConfigError(
                f"{where}: {found.layers.shape[1]} vectors of the {len(words)} words round line {one.line}"
            )
        chosen = kind.choose(found.layers.shape[0]) if layers == "all" else [0]
        yield found.layers[chosen[0] : chosen[-1] + 1, first : first + len(one.words)]


def _pieces(encoded: Any, words: int) -> np.ndarray:
    """How many pieces every word has."""
    return np.bincount(encoded.owners, minlength=words)


def _write(folder: Any, made: Iterator[np.ndarray], sentences: Sequence[Any], progress: Callable[[], Any]) -> None:
    """vectors.npy `[words, layers, width]` of all sentences one behind the other."""
    words, rows, filled = sum(len(one.words) for one in sentences), None, 0
    for vectors in made:
        if rows is None:
            shape = (words, len(vectors), vectors.shape[2])
            rows = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
        rows[filled : filled + vectors.shape[1]] = vectors.swapaxes(0, 1)
        filled += vectors.shape[1]
        progress()
    assert rows is not None and filled == words
    rows.flush()
