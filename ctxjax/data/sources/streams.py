"""Rows for language models: lanes of continuous text, both directions for a bidirectional model.

Row b of step s continues row b of step s - 1, so a model's state is carried over windows and sentences. The directions
read differently shuffled streams, as published. Reference: Peters et al. 2018; allenai/bilm-tf, training.py, data.py.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import pipeline
from ctxjax.data.corpus_source import CorpusSource
from ctxjax.data.index import open_index
from ctxjax.data.transforms import lanes

_VERSION = 1  # of the indexes; part of their keys
_DIRECTIONS = {"both": ("forward", "backward"), "forward": ("forward",)}


class Source(CorpusSource):
    """Windows of a prepared corpus of words.

    Row (T = `length`, C = `max_chars`) with both directions: inputs {tokens [2, T], chars [2, T, C]}, targets [2, T],
    weights [2, T], is_first []; axis 0 is forward, backward. With `directions="forward"` there is no such axis.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 20,
        directions: str = "both",
        characters: bool = True,
        max_chars: int = 50,
        verify: bool = False,
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote, with a word vocabulary.
          split: "train" or "heldout".
          length: words of a window (published: 20).
          directions: "both", or "forward" alone.
          characters: give the characters of each word too; those of an unknown word are of the word as it was written.
          max_chars: character ids of a word, markers included.
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, one that was not made for words, or an impossible field.
        """
        if directions not in _DIRECTIONS:
            raise ConfigError(f"config.source.directions={directions!r} is not one of {', '.join(_DIRECTIONS)}")
        if length < 1 or max_chars < 3:
            raise ConfigError("config.source needs length >= 1 and max_chars >= 3")
        super().__init__(corpus, split, verify, "words")
        self.length, self.directions, self.characters, self.max_chars = length, directions, characters, max_chars

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return self.fingerprint_of("length", "directions", "characters", "max_chars")

    @property
    def tokens_per_row(self) -> int:
        """Words of a window, each of which is predicted once in each direction."""
        return self.length

    @property
    def pairs(self) -> int:
        """(input, target) pairs of a pass, in one direction."""
        return self.corpus.num_tokens + self.corpus.num_sentences

    def steps_per_pass(self, batch_size: int) -> int:
        """Whole windows that each of `batch_size` lanes holds.

        Raises:
          ConfigError: the lanes are shorter than a window.
        """
        steps = self.pairs // (batch_size * self.length)
        if not steps:
            raise ConfigError(
                f"split {self.corpus.split!r} of corpus {self.corpus.folder} has {self.pairs} words, less than "
                f"config.batch_size={batch_size} windows of {self.length}; lower config.batch_size"
            )
        return steps

    def dropped(self, batch_size: int) -> dict[str, int]:
        """Words at the end of a direction's stream that make no whole window in every lane, and are not read."""
        used = self.steps_per_pass(batch_size) * batch_size * self.length
        return {"words at the end of a pass, in no whole window": self.pairs - used}

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless: element s * batch_size + b is lane b at step s."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together: lane element % batch_size at step element // batch_size."""
        steps = self.steps_per_pass(batch_size)
        tokenizer, names = self.tokenizer, _DIRECTIONS[self.directions]
        inputs, targets = np.empty((2, len(elements), len(names), self.length), np.int32)
        surfaces: list[tuple[int, int, int, str]] = []
        first = np.empty(len(elements), np.bool_)
        for row, element in enumerate(elements.tolist()):
            step, lane = divmod(element, batch_size)
            pass_number, step = divmod(step, steps)
            first[row] = step == 0
            start = (lane * steps + step) * self.length
            for axis, stream in enumerate(self._both(seed, pass_number)):
                read, told = inputs[row, axis], targets[row, axis]
                found = lanes.read_window(
                    self.corpus,
                    stream,
                    start,
                    read,
                    told,
                    tokenizer.bos_id,
                    tokenizer.eos_id,
                    names[axis] == "backward",
                )
                surfaces += [(row, axis, position, surface) for position, surface in found]
        given = {"tokens": inputs}
        if self.characters:
            chars = self._table[inputs].astype(np.int32)
            for row, axis, position, surface in surfaces:
                chars[row, axis, position] = _word_chars(surface, self.max_chars)
            given["chars"] = chars
        batch = {"inputs": given, "targets": targets, "weights": np.ones(targets.shape, np.float32)}
        if self.directions == "forward":  # no direction axis
            batch = {"inputs": {name: value[:, 0] for name, value in given.items()}}
            batch |= {"targets": targets[:, 0], "weights": np.ones(targets[:, 0].shape, np.float32)}
        return batch | {"is_first": first}

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """Character ids of the vocabulary, `[V, C]`, memory-mapped."""
        key = {"index": "characters", "version": _VERSION, "tokenizer": self.corpus.fingerprint["tokenizer"]}
        key["max_chars"] = self.max_chars
        build = functools.partial(lanes.write_characters, pieces=self.tokenizer.pieces, max_chars=self.max_chars)
        return open_index(self.corpus.folder, key, build)["characters"].reshape(-1, self.max_chars)

    def _both(self, seed: int, pass_number: int) -> list[lanes.Stream]:
        """The stream of each direction in a pass; the last two passes stay open."""
        names = _DIRECTIONS[self.directions]
        return self.of_pass((seed, pass_number), lambda: [self._open(seed, pass_number, name) for name in names])

    def _open(self, seed: int, pass_number: int, direction: str) -> lanes.Stream:
        options = {"seed": int(seed), "pass_number": pass_number, "direction": direction}
        key = {"index": "streams", "version": _VERSION, "corpus": self.corpus.fingerprint, **options}
        build = functools.partial(lanes.write_stream, sentence_tokens=self.corpus.sentence_tokens, **options)
        index = open_index(self.corpus.folder, key, build)
        return lanes.Stream(index["order"], index["starts"])


@functools.lru_cache(1 << 16)
def _word_chars(word: str, max_chars: int) -> np.ndarray:
    from ctxjax.text import characters

    return characters.word_chars(word, max_chars)


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("words"), length=8)
