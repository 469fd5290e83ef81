"""Vectors that frozen models give words: stored once beside the text, any layers, and mapped into memory.

A store is an array `[words, layers, width]` under the digests of the model and of the words, the layers, how the pieces
of a word become one vector, and how much text stood round a sentence. What was stored of all layers serves for some.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ctxjax import digests, folders
from ctxjax.config import ConfigError, fingerprint
from ctxjax.data.arrays import file_digest
from ctxjax.data.index import find_index, open_index
from ctxjax.data.tagging import Sentence
from ctxjax.data.transforms.windows import around

_VERSION = 2  # of the stores; part of their key
_NAMES = {"top": "-1", "all": ":"}
_LAYERS = re.compile(r"(-?[0-9]+)|(-?[0-9]+)?:(-?[0-9]+)?")


class Kind(NamedTuple):
    """Which vectors.

    Attributes:
      layers: "top", "all", a number ("0" is the token layer, "-2" the one below the top) or a range as Python writes it
        ("-4:", the last four).
      pool: a word is the "mean" of its pieces or the "first" of them.
      context: pieces that the model reads at once, a sentence in the middle of its document; 0 reads sentences alone.
    """

    layers: str = "top"
    pool: str = "mean"
    context: int = 0

    @property
    def is_range(self) -> bool:
        """Whether there are several layers, which may be mixed."""
        return ":" in _NAMES.get(self.layers, self.layers)

    def choose(self, count: int) -> list[int]:
        """The layers by number, of a model that has so many, the token layer included.

        Raises:
          ConfigError: there are no such layers.
        """
        text = _NAMES.get(self.layers, self.layers)
        match = _LAYERS.fullmatch(text)
        try:
            if match is None:
                raise IndexError
            if match[1]:
                return [range(count)[int(match[1])]]
            first, last = (int(part) if part else None for part in (match[2], match[3]))
            found = list(range(count)[first:last])
            if not found or any(end is not None and abs(end) > count for end in (first, last)):
                raise IndexError
        except IndexError:
            raise ConfigError(
                f"config.source.layers={self.layers!r} are none of the {count} layers of this model, the token layer "
                "included: set top, all, a number such as 0 or -2, or a range such as -4:"
            ) from None
        return found

    def check(self) -> None:
        """Raises ConfigError where a field is impossible for any model."""
        if not _LAYERS.fullmatch(_NAMES.get(self.layers, self.layers)):
            raise ConfigError(f"config.source.layers={self.layers!r} is none of top, all, -2 and -4:, for example")
        if self.pool not in ("mean", "first"):
            raise ConfigError(f"config.source.pool={self.pool!r} is neither 'mean' nor 'first'")
        if self.context < 0:
            raise ConfigError(f"config.source.context={self.context} must be 0 or more")


def model_digest(path: str | os.PathLike[str]) -> str:
    """A digest of what is opened at a path: the newest checkpoint of a run (`RUN@best` the best), or all files."""
    name, best = folders.run_folder(path)
    place = pathlib.Path(name)
    if not place.exists():
        raise ConfigError(f"config.source.vectors_of: {place} does not exist")
    if place.is_file():
        return file_digest(place)
    if best or digests.steps(place / "checkpoints"):
        place = pathlib.Path(folders.find(path))
    if commit := digests.read_commit(place):
        return fingerprint(commit)
    return fingerprint({name: digests.digest_file(file) for name, file in digests.files_of(place).items()})


def words_digest(sentences: Iterable[Sentence]) -> str:
    """A digest of the words of all sentences and of where documents end; tags are no part of it."""
    digest = hashlib.sha256()
    for one in sentences:
        digest.update(f"{one.document}\t{chr(9).join(one.words)}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _key(model: str | os.PathLike[str], sentences: Sequence[Sentence], kind: Kind) -> dict[str, object]:
    layers = _NAMES.get(kind.layers, kind.layers)
    about = {"index": "vectors", "version": _VERSION, "layers": layers, "pool": kind.pool, "context": kind.context}
    return {**about, "model": model_digest(model), "text": words_digest(sentences)}


def open_store(
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str],
    sentences: Sequence[Sentence],
    kind: Kind,
    build: Callable[[pathlib.Path], None],
) -> np.ndarray:
    """`[words, layers, width]` by a model of all words of some sentences, in order.

    Args:
      folder: beside which the store is kept.
      model: what `ctxjax.load` opens; its digest is part of the key.
      sentences: whose words.
      kind: which vectors.
      build: writes `vectors.npy` where neither these layers nor all of them are stored.

    Raises:
      ConfigError: what is stored has not these words or these layers.
    """
    words = sum(len(one.words) for one in sentences)
    found = find_index(folder, _key(model, sentences, kind))
    if found is None and (whole := find_index(folder, _key(model, sentences, kind._replace(layers="all")))):
        chosen = kind.choose(whole["vectors"].shape[1])
        vectors = whole["vectors"][:, chosen[0] : chosen[-1] + 1]  # a view: layers of a range stand together
    else:
        vectors = (found or open_index(folder, _key(model, sentences, kind), build))["vectors"]
    if vectors.ndim != 3 or len(vectors) != words:
        raise ConfigError(f"the vectors stored of {model} are {vectors.shape}, where there are {words} words")
    return vectors


def texts_of(sentences: Sequence[Sentence], counts: Iterable[int], context: int) -> Iterable[tuple[list[str], int]]:
    """What a model reads to tell the words of each sentence, and the place of its first word there.

    Args:
      sentences: in the order of their documents.
      counts: pieces of every word of all sentences, in order; not read where `context` is 0.
      context: pieces to read at once; a longer sentence is read alone.
    """
    if not context:
        yield from ((list(one.words), 0) for one in sentences)
        return
    pieces = iter(counts)
    for _, group in itertools.groupby(sentences, key=lambda one: one.document):
        document = list(group)
        words = [word for one in document for word in one.words]
        ends = np.cumsum([0, *itertools.islice(pieces, len(words))])
        start = 0
        for one in document:
            stop = start + len(one.words)
            first, last = around(int(ends[start]), int(ends[stop]), int(ends[-1]), context)
            left = int(np.searchsorted(ends, first))  # whole words alone
            right = int(np.searchsorted(ends, last, side="right")) - 1
            yield words[left:right], start - left
            start = stop
