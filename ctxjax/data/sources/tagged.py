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

import grain
import numpy as np
from jaxtyping import Int

from ctxjax import digests
from ctxjax.config import ConfigError, fingerprint
from ctxjax.data import draws, pipeline
from ctxjax.data.arrays import file_digest
from ctxjax.data.index import open_index
from ctxjax.data.sources.labelled_texts import Place
from ctxjax.data.tagging import Sentence, read_columns
from ctxjax.text import characters, open_tokenizer, tags
from ctxjax.text.words import SPECIALS, Words, learn_pieces

_VERSION = 1  # of the store of vectors; part of its key
_DIGIT = re.compile(r"[0-9]")


class Source:
    """Sentences with a tag a word, shuffled anew in every pass.

    Row (L = `length`): inputs {tokens [L], mask [L], chars [L C], features [L F]}, the last two where they are asked
    for; targets [L], the numbers of the tags among `labels`, 0 behind the sentence; weights [L], 1 for a word.
    """

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
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with the three files, of columns between blanks.
          split: "train", "heldout" or "test", the names of which are the next three fields.
          length: positions of a row; a longer sentence is an error, since all words of a split have to be told.
          read, scheme: that of the files and that of the targets, of "IOB1", "BIO" and "BIOES"; both "" for tags that
            say no spans, as of parts of speech.
          word, tag: columns.
          vocab: a vocabulary of words; where there is none, that of the split "train" is learned.
          min_count: of a learned vocabulary: a rarer word is unknown.
          lowercase, zero_digits: words are looked up in lower case, with 0 for every digit.
          max_chars: characters of a word; 0 for rows without characters.
          vectors_of: models whose top layers, side by side, are `features`. They are stored beforehand, by
            `python -m ctxjax.features` with the same config.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with files of tagged words")
        self._files = {"train": train, "heldout": heldout, "test": test}
        if split not in self._files:
            raise ConfigError(f"config.source.split={split!r} is not one of {', '.join(self._files)}")
        for field, name in (("read", read), ("scheme", scheme)):
            if (name and name not in tags.SCHEMES) or bool(read) != bool(scheme):
                raise ConfigError(f"config.source.{field}={name!r}: both are one of {', '.join(tags.SCHEMES)}, or ''")
        if min(length, min_count) < 1 or max_chars < 0 or 0 < max_chars < 3:
            raise ConfigError("config.source needs length and min_count >= 1, and max_chars >= 3 or 0")
        self.corpus, self.split, self.length = Place(pathlib.Path(corpus)), split, length
        for name in {"train", split}:
            if not self.file(name).is_file():
                raise ConfigError(f"config.source.{name}: there is no file {self.file(name)}")
        self.read, self.scheme, self.word, self.tag = read, scheme, word, tag
        self.vocab, self.min_count, self.max_chars = vocab, min_count, max_chars
        self.lowercase, self.zero_digits = bool(lowercase), bool(zero_digits)
        self.vectors_of = tuple(vectors_of)

    def file(self, split: str) -> pathlib.Path:
        """Where a split lies."""
        return self.corpus.folder / self._files[split]

    def __getstate__(self) -> dict[str, Any]:
        kept = ("sentences", "tokenizer", "labels", "_store", "_numbered", "fingerprint", "tokens_per_row")
        return {name: value for name, value in self.__dict__.items() if name not in kept}

    def sentences_of(self, split: str) -> Iterator[Sentence]:
        """The sentences of a split, their tags in the scheme of the targets."""
        for one in read_columns(self.file(split), self.read, self.word, self.tag):
            if len(one.words) > self.length:
                raise ConfigError(
                    f"{self.file(split)}, line {one.line}: a sentence of {len(one.words)} words is longer than "
                    f"config.source.length={self.length}; raise it"
                )
            found = tags.convert(one.tags, self.read, self.scheme) if self.scheme else one.tags
            yield one._replace(tags=tuple(found))

    @functools.cached_property
    def sentences(self) -> list[Sentence]:
        """The sentences of this split in the order of its file."""
        return list(self.sentences_of(self.split))

    def _training(self) -> list[Sentence]:
        return self.sentences if self.split == "train" else list(self.sentences_of("train"))

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
        counts = collections.Counter(self.lookup(word) for one in self._training() for word in one.words)
        known = {word: count for word, count in counts.items() if word not in SPECIALS}
        return Words(learn_pieces(known, len(known) + len(SPECIALS), self.min_count), self.lowercase, "whitespace")

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The tags by number: every tag that the scheme has for the kinds of the training split, "O" first."""
        found = {tag for one in self._training() for tag in one.tags}
        if not self.scheme:
            return tuple(sorted(found))
        return tags.known_tags(sorted({tags.cut(tag)[1] for tag in found} - {""}), self.scheme)

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
        options = {name: getattr(self, name) for name in names}
        return {"source": "tagged", "split": self.split, **texts, **options, "models": models}

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Words of a sentence, on average."""
        return max(1, round(sum(len(one.words) for one in self.sentences) / len(self.sentences)))

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every sentence was read once; what is left of a pass is in the first batch of the next."""
        return max(1, len(self.sentences) // batch_size)

    # --- vectors of frozen models ---

    @property
    def features(self) -> int:
        """Width of all models' vectors side by side; 0 without models."""
        return sum(vectors.shape[1] for vectors in self._store)

    def open_store(self, number: int, build: Callable[[pathlib.Path], None]) -> np.ndarray:
        """Vectors `[words F]` by model `number` of all words of the split, in order; `build` writes vectors.npy."""
        path = self.vectors_of[number]
        about = {"index": "vectors", "version": _VERSION, "layers": "top", "model": model_digest(path)}
        key = {**about, "text": file_digest(self.file(self.split)), "word": self.word}
        return open_index(self.corpus.folder, key, build)["vectors"]

    @functools.cached_property
    def _store(self) -> list[np.ndarray]:
        def refuse(path: str, folder: pathlib.Path) -> None:
            raise ConfigError(
                f"the vectors that {path} gives the words of {self.file(self.split)} are not stored: "
                "run python -m ctxjax.features with the same config once"
            )

        found = [self.open_store(n, functools.partial(refuse, path)) for n, path in enumerate(self.vectors_of)]
        words = sum(len(one.words) for one in self.sentences)
        for vectors, path in zip(found, self.vectors_of):
            if vectors.ndim != 2 or len(vectors) != words:
                raise ConfigError(f"the vectors stored of {path} are {vectors.shape}, where there are {words} words")
        return found

    # --- rows ---

    @functools.cached_property
    def _numbered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of all words, numbers of all tags, and where each sentence begins."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        for one in self.sentences:
            for place, tag in enumerate(one.tags):
                if tag not in numbers:
                    where = f"{self.file(self.split)}, line {one.line + place}"
                    raise ConfigError(f"{where}: the tag {tag!r} is not in {self.file('train')}")
        ids = [self.tokenizer.id_of(self.lookup(word)) for one in self.sentences for word in one.words]
        targets = [numbers[tag] for one in self.sentences for tag in one.tags]
        starts = np.cumsum([0, *(len(one.words) for one in self.sentences)])
        return np.array(ids, np.int32), np.array(targets, np.int32), starts

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        del batch_size
        count = len(self.sentences)
        numbers, places = np.divmod(elements, count)
        chosen = np.empty(len(elements), np.int64)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            chosen[here] = draws.permute(draws.key("sentences", seed, number), places[here], count)
        return self.take(chosen)

    def take(self, chosen: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """The rows of some sentences of the split by number."""
        ids, numbers, starts = self._numbered
        shape = (len(chosen), self.length)
        tokens, targets, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.bool_)
        features = np.zeros((*shape, self.features), np.float32)
        chars = np.full((*shape, self.max_chars), characters.PAD, np.int32)
        for row, sentence in enumerate(chosen.tolist()):
            first, last = starts[sentence], starts[sentence + 1]
            here = slice(0, last - first)
            tokens[row, here], targets[row, here], mask[row, here] = ids[first:last], numbers[first:last], True
            if self.max_chars:
                chars[row, here] = characters.table(self.sentences[sentence].words, self.max_chars)
            if self.vectors_of:
                parts = [vectors[first:last] for vectors in self._store]
                features[row, here] = np.concatenate(parts, axis=-1)
        inputs = {"tokens": tokens, "mask": mask}
        inputs |= {"chars": chars} if self.max_chars else {}
        inputs |= {"features": features} if self.vectors_of else {}
        return {"inputs": inputs, "targets": targets, "weights": mask.astype(np.float32)}


def model_digest(path: str | os.PathLike[str]) -> str:
    """A digest of what is opened at a path: the newest checkpoint of a run, or all files."""
    place = pathlib.Path(path)
    if not place.exists():
        raise ConfigError(f"config.source.vectors_of: {place} does not exist")
    if place.is_file():
        return file_digest(place)
    if steps := digests.steps(place / "checkpoints"):
        place = pathlib.Path(digests.step_folder(place / "checkpoints", steps[-1]))
    if commit := digests.read_commit(place):
        return fingerprint(commit)
    return fingerprint({name: digests.digest_file(file) for name, file in digests.files_of(place).items()})


def example() -> Source:
    """A small source on generated text, with vectors of its words."""
    from ctxjax.data.generated import generated_tags, stored_vectors

    folder = generated_tags()
    source = Source(folder, length=64, max_chars=16, vectors_of=(f"{folder}/model.txt",))
    source.open_store(0, functools.partial(stored_vectors, words=[w for one in source.sentences for w in one.words]))
    return source
