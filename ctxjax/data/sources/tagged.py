"""Tagged sentences, one a row, with the vectors that frozen language models give their words.

Words are looked up in lower case with digits as 0 (Peters et al. 2017, section 3.1); characters are those of the file.
"""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError, Fields
from ctxjax.data import stored
from ctxjax.data.arrays import file_digest
from ctxjax.data.shuffled import Shuffled
from ctxjax.data.stored import model_digest
from ctxjax.data.tagging import Sentence, TaggedFiles
from ctxjax.text import characters, open_tokenizer
from ctxjax.text.words import SPECIALS, Words, learn_pieces

_DIGIT = re.compile(r"[0-9]")


class Source(TaggedFiles, Shuffled):
    """Sentences with a tag a word, shuffled anew in every pass.

    Row (T = `length`): inputs {tokens [T], mask [T], chars [T C], features [T F]}, the last two where they are asked
    for (features [T L F] of several layers); targets [T], the numbers of the tags among `labels`, 0 behind the
    sentence; weights [T], 1 for a word.
    """

    rows_are = "sentences"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        train: str = "eng.train",
        heldout: str = "eng.testa",
        test: str = "eng.testb",
        length: int = 128,
        read: str = "IOB1",
        scheme: str = "BIOES",
        word: int = 0,
        tag: int = -1,
        vocab: str = "",
        min_count: int = 1,
        lowercase: bool = True,
        zero_digits: bool = True,
        max_chars: int = 50,
        vectors_of: Sequence[str] = (),
        layers: str = "top",
        pool: str = "mean",
        context: int = 0,
        widths: int = 1,
        together: int = 1,
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with the three files, of columns between blanks, or of CoNLL-U (.conllu).
          split: "train", "heldout" or "test", the names of which are the next three fields.
          length: positions of a row; a longer sentence is an error, since all words of a split have to be told.
          read, scheme: that of the files and that of the targets, of "IOB1", "BIO" and "BIOES"; both "" for tags that
            say no spans, as of parts of speech; read="any" for files whose tags break their scheme.
          word, tag: columns.
          vocab: a vocabulary of words; where there is none, that of the split "train" is learned.
          min_count: of a learned vocabulary: a rarer word is unknown.
          lowercase, zero_digits: words are looked up in lower case, with 0 for every digit.
          max_chars: characters of a word; 0 for rows without characters.
          vectors_of: models whose vectors, side by side, are `features`. They are stored beforehand, by
            `python -m ctxjax.features` with the same config.
          layers, pool, context: which vectors; see `ctxjax.data.stored.Kind`.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        super().__init__(corpus, split, {"train": train, "heldout": heldout, "test": test}, read, scheme, word, tag)
        self.pad(length, widths, together)
        if min_count < 1 or max_chars < 0 or 0 < max_chars < 3:
            raise ConfigError("config.source needs min_count >= 1, and max_chars >= 3 or 0")
        self.vocab, self.min_count, self.max_chars = vocab, min_count, max_chars
        self.lowercase, self.zero_digits = bool(lowercase), bool(zero_digits)
        self.vectors_of, self.kind = tuple(vectors_of), stored.Kind(layers, pool, context)
        self.kind.check()

    def sentences_of(self, split: str) -> Iterator[Sentence]:
        """The sentences of a split, their tags in the scheme of the targets."""
        for one in super().sentences_of(split):
            if len(one.words) > self.length:
                raise ConfigError(
                    f"{self.file(split)}, line {one.line}: a sentence of {len(one.words)} words is longer than "
                    f"config.source.length={self.length}; raise it"
                )
            yield one

    def lookup(self, word: str) -> str:
        """A word as it is looked up."""
        word = word.lower() if self.lowercase else word
        return _DIGIT.sub("0", word) if self.zero_digits else word

    @functools.cached_property
    def tokenizer(self) -> Words:
        """The words: a vocabulary that is given, or those of the training split by falling frequency."""
        if self.vocab:
            found = open_tokenizer(self.vocab)
            if not isinstance(found, Words):
                raise ConfigError(f"config.source.vocab={self.vocab!r} is no vocabulary of words")
            return found
        counts = collections.Counter(self.lookup(word) for one in self.training for word in one.words)
        known = {word: count for word, count in counts.items() if word not in SPECIALS}
        return Words(learn_pieces(known, len(known) + len(SPECIALS), self.min_count), self.lowercase, "whitespace")

    @property
    def vocab_size(self) -> int:
        """Number of words."""
        return len(self.tokenizer)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("length", "read", "scheme", "word", "tag", "min_count", "lowercase", "zero_digits", "max_chars")
        texts = {name: file_digest(self.file(name)) for name in sorted({"train", self.split})}
        models = [model_digest(path) for path in self.vectors_of]
        options = {name: getattr(self, name) for name in names} | (self.kind._asdict() if models else {})
        options |= self.padding_of()
        parts = {"parts": self.parts} if self.parts else {}
        return {"source": "tagged", "split": self.split, **texts, **parts, **options, "models": models}

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Words of every sentence."""
        return np.array([len(one.words) for one in self.sentences])

    # --- vectors of frozen models ---

    @property
    def features(self) -> int:
        """Width of all models' vectors side by side; 0 without models."""
        return sum(vectors.shape[2] for vectors in self._store)

    @property
    def feature_layers(self) -> int:
        """How many layers of each word there are to be mixed; 0 where one is chosen, or there are no models."""
        return self._store[0].shape[1] if self.kind.is_range and self.vectors_of else 0

    def open_store(self, number: int, build: Callable[[pathlib.Path], None]) -> np.ndarray:
        """Vectors `[words L F]` by model `number` of all words of the split, in order; `build` writes vectors.npy."""
        return stored.open_store(self.corpus.folder, self.vectors_of[number], self.sentences, self.kind, build)

    @functools.cached_property
    def _store(self) -> list[np.ndarray]:
        def refuse(path: str, folder: pathlib.Path) -> None:
            raise ConfigError(
                f"the vectors that {path} gives the words of {self.file(self.split)} are not stored: "
                "run python -m ctxjax.features with the same config once"
            )

        found = [self.open_store(n, functools.partial(refuse, path)) for n, path in enumerate(self.vectors_of)]
        if len({vectors.shape[1] for vectors in found}) > 1:
            counts = ", ".join(str(vectors.shape[1]) for vectors in found)
            raise ConfigError(f"config.source.layers={self.kind.layers!r} are {counts} layers of the models vectors_of")
        return found

    # --- rows ---

    @functools.cached_property
    def _numbered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of all words, numbers of all tags, and where each sentence begins."""
        ids = [self.tokenizer.id_of(self.lookup(word)) for one in self.sentences for word in one.words]
        targets = [number for one in self.sentences for number in self.numbers_of(one)]
        starts = np.cumsum([0, *(len(one.words) for one in self.sentences)])
        return np.array(ids, np.int32), np.array(targets, np.int32), starts

    @property
    def owners(self) -> range:
        """The sentence that each row tells words of, in order."""
        return range(len(self.sentences))

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some sentences by number, `width` words wide, or, of 0, `length`; they must fit."""
        ids, numbers, starts = self._numbered
        shape = (len(chosen), width or self.length)
        tokens, targets, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.bool_)
        layers = (self.feature_layers,) if self.feature_layers else ()
        features = np.zeros((*shape, *layers, self.features), np.float32)
        chars = np.full((*shape, self.max_chars), characters.PAD, np.int32)
        for row, sentence in enumerate(chosen.tolist()):
            first, last = starts[sentence], starts[sentence + 1]
            here = slice(0, last - first)
            tokens[row, here], targets[row, here], mask[row, here] = ids[first:last], numbers[first:last], True
            if self.max_chars:
                chars[row, here] = characters.table(self.sentences[sentence].words, self.max_chars)
            if self.vectors_of:
                parts = [vectors[first:last] for vectors in self._store]
                features[row, here] = np.concatenate(parts, axis=-1).reshape(last - first, *features.shape[2:])
        inputs = {"tokens": tokens, "mask": mask}
        inputs |= {"chars": chars} if self.max_chars else {}
        inputs |= {"features": features} if self.vectors_of else {}
        return {"inputs": inputs, "targets": targets, "weights": mask.astype(np.float32)}


def example() -> Source:
    """A small source on generated text, with vectors of its words."""
    from ctxjax.data.generated import generated_tags, store_vectors

    folder = generated_tags()
    fields = {"length": 64, "max_chars": 16, "vectors_of": (f"{folder}/letters",)}
    store_vectors(folder, fields)
    return Source(folder, **fields)


def stand_in(fields: Fields) -> dict[str, Any]:
    """Fields that make rows of generated text, without vectors, which `plan` adds by the model's fields."""
    from ctxjax.data.generated import generated_tags, tagged_files

    given = {"vectors_of": ()} if "vectors_of" in fields else {}
    return {"corpus": generated_tags(), **tagged_files(bool(fields["read"])), **given}
