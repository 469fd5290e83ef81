"""Rows for a recurrent classifier: labelled texts word by word as its language model read them, of any length.

Texts of similar length stand in one batch, since a batch costs what its longest text does: of every `together` batches
of a random order the texts are sorted by length, then the batches are shuffled.

Reference: fastai 0.7, text.py, SortishSampler.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import threading
from typing import Any

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, draws
from ctxjax.data.arrays import ArrayWriter, file_digest
from ctxjax.data.index import open_index
from ctxjax.data.shuffled import Place, Shuffled
from ctxjax.data.sources.labelled_texts import read_texts
from ctxjax.data.sources.running import DIRECTIONS
from ctxjax.text import open_tokenizer
from ctxjax.text.sentences import split_sentences

_VERSION = 1  # of the index; part of its key
_KEPT = 4  # orders of passes held at a time


class Source(Shuffled):
    """Labelled texts, in another order in every pass.

    Row (L = `length`): inputs {tokens [L], mask [L]}, the text from its beginning, or with `direction="backward"` from
    its end; targets [], the number of the label among `labels`; weights [].
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        tokenizer: str = "",
        length: int = 1400,
        direction: str = "forward",
        limit: int = 0,
        together: int = 50,
    ):
        """Open the texts; they are tokenised when they are first needed.

        Args:
          corpus: a folder with SPLIT.jsonl, objects with `text` and `label`, or SPLIT.txt, lines of fastText.
          split: "train", "heldout" or "test".
          tokenizer: the folder of the language model's tokenizer; sentences end with its end mark, as in its corpus.
          length: words of a row; of a longer text its beginning, as it is read, is left out.
          direction: "forward" or "backward".
          limit: use so many texts of the split "train", as many of each label as can be; 0 for all.
          together: batches whose texts are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError(
                "config.source.corpus is empty; set it to a folder with train.jsonl and heldout.jsonl, as "
                "experiments/ulmfit/texts.py writes it (python -m ctxjax.prepare makes the language model's corpus)"
            )
        if not tokenizer:
            raise ConfigError("config.source.tokenizer is empty; set config.init_from.path, or it, to a tokenizer")
        if direction not in DIRECTIONS:
            raise ConfigError(f"config.source.direction={direction!r} is not one of {', '.join(DIRECTIONS)}")
        if limit < 0:
            raise ConfigError(f"config.source.limit={limit} is negative; 0 is all texts")
        self.pad(length, 1, together)
        self.corpus, self.split, self.direction = Place(pathlib.Path(corpus)), split, direction
        self.limit = limit if split == "train" else 0
        self.tokenizer = open_tokenizer(tokenizer)
        self._files = {name: self.file(name) for name in sorted({"train", split})}
        self._lock = threading.Lock()
        self._orders: dict[tuple[int, int, int], Int[np.ndarray, " _"]] = {}

    def file(self, split: str) -> pathlib.Path:
        """Where a split lies."""
        for ending in ("jsonl", "txt"):
            if (path := self.corpus.folder / f"{split}.{ending}").is_file():
                return path
        raise ConfigError(f"config.source.corpus={os.fspath(self.corpus.folder)!r} has no {split}.jsonl or {split}.txt")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_lock": None, "_orders": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": threading.Lock()})

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the split "train", in the order of the alphabet."""
        found = {label for label, _ in read_texts(self._files["train"])} - {""}
        if len(found) < 2:
            raise ConfigError(f"{self._files['train']} has no two labels to choose from")
        return tuple(sorted(found))

    @property
    def vocab_size(self) -> int:
        """Number of words."""
        return len(self.tokenizer)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        texts = {name: file_digest(path) for name, path in self._files.items()}
        options = {name: getattr(self, name) for name in ("length", "direction", "limit", "together")}
        return {"source": "long_texts", "split": self.split, **texts, **options}

    @functools.cached_property
    def _texts(self) -> dict[str, np.ndarray]:
        about = {"index": "long_texts", "version": _VERSION, "tokenizer": self.tokenizer.digest()}
        key = {**about, "labels": list(self.labels), "text": file_digest(self._files[self.split])}
        return open_index(self.corpus.folder, key, functools.partial(_write_texts, source=self))

    @functools.cached_property
    def _chosen(self) -> Int[np.ndarray, " _"]:
        """The texts that are used: all, or `limit` of them, one of each label in turn."""
        targets = self._texts["labels"]
        if self.limit > len(targets):
            raise ConfigError(f"config.source.limit={self.limit} is more than the {len(targets)} texts that there are")
        return balanced(np.asarray(targets), self.limit) if self.limit else np.arange(len(targets))

    @property
    def count(self) -> int:
        """Texts of the split that are used."""
        return len(self._chosen)

    @property
    def targets(self) -> Int[np.ndarray, " N"]:
        """The number of the label of every text."""
        return np.asarray(self._texts["labels"][self._chosen], np.int32)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Words of every text in its row."""
        starts = self._texts["starts"]
        return np.minimum(starts[self._chosen + 1] - starts[self._chosen], self.length)

    def steps_per_pass(self, batch_size: int) -> int:
        """Whole batches of a pass; the texts that are left over are others in every pass."""
        return self.count // batch_size

    def dropped(self, batch_size: int) -> dict[str, int]:
        """Words of texts over `length`, and the texts of a pass that fill no batch."""
        starts = self._texts["starts"]
        over = starts[self._chosen + 1] - starts[self._chosen] - self.lengths
        return {
            f"words of texts over config.source.length={self.length}": int(over.sum()),
            "texts that fill no batch, others in every pass": self.count - self.steps_per_pass(batch_size) * batch_size,
        }

    def of_step(self, seed: int, batch_size: int, step: int) -> Int[np.ndarray, " B"]:
        """The texts of one step, which are all of one pass."""
        number, place = divmod(step, max(1, self.steps_per_pass(batch_size)))
        return self._order(seed, batch_size, number)[place * batch_size : (place + 1) * batch_size]

    def _order(self, seed: int, batch_size: int, number: int) -> Int[np.ndarray, " _"]:
        """The texts of a pass."""
        if self.count < batch_size:
            raise ConfigError(
                f"config.batch_size={batch_size} is more than the {self.count} texts of {self.split!r}; make it smaller"
            )
        key = (seed, batch_size, number)
        with self._lock:
            if key not in self._orders:
                steps = self.steps_per_pass(batch_size)
                order = draws.permutation(draws.key("texts", seed, number), self.count)[: steps * batch_size]
                lengths, size = self.lengths, batch_size * self.together
                pieces = [order[first : first + size] for first in range(0, len(order), size)]
                ordered = np.concatenate([piece[np.argsort(-lengths[piece], kind="stable")] for piece in pieces])
                shuffled = draws.permutation(draws.key("batches", seed, number), steps)
                while len(self._orders) >= _KEPT:
                    self._orders.pop(next(iter(self._orders)))
                self._orders[key] = ordered.reshape(steps, batch_size)[shuffled].reshape(-1)
            return self._orders[key]

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some texts by their number, in the order of the file; the model reads no further than needed."""
        del width
        texts = self._texts
        tokens, mask = np.zeros((len(chosen), self.length), np.int32), np.zeros((len(chosen), self.length), np.bool_)
        numbers = self._chosen[chosen]
        for row, text in enumerate(numbers.tolist()):
            words = texts["tokens"][texts["starts"][text] : texts["starts"][text + 1]]
            words = (words[::-1] if self.direction == "backward" else words)[-self.length :]
            tokens[row, : len(words)], mask[row, : len(words)] = words, True
        targets = texts["labels"][numbers].astype(np.int32)
        return {
            "inputs": {"tokens": tokens, "mask": mask},
            "targets": targets,
            "weights": np.ones(len(chosen), np.float32),
        }


def balanced(targets: Int[np.ndarray, " N"], limit: int) -> Int[np.ndarray, " limit"]:
    """The places of `limit` labels, one of each in turn while there are; those of a smaller limit are among them."""
    order = draws.permutation(draws.key("limit"), len(targets))
    turn = np.zeros(len(targets), np.int64)
    for label in np.unique(targets).tolist():
        here = order[targets[order] == label]
        turn[here] = np.arange(len(here))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:limit])


def _write_texts(folder: pathlib.Path, *, source: Source) -> None:
    """Build `tokens`, `starts` (the first token of each text) and `labels.npy`."""
    path, numbers = source.file(source.split), {label: number for number, label in enumerate(source.labels)}
    writers = {
        name: ArrayWriter(folder / f"{name}.npy", kind)
        for name, kind in (("tokens", "<i4"), ("starts", "<i8"), ("labels", "<i4"))
    }
    try:
        writers["starts"].append(np.zeros(1, np.int64))
        for number, (label, raw) in enumerate(read_texts(path), 1):
            if label not in numbers:
                raise ConfigError(f"{path}, text {number}: the label {label!r} is not in {source.file('train')}")
            words = _words(source.tokenizer, raw)
            if not len(words):
                raise ConfigError(f"{path}, text {number}: no word is left of {json.dumps(raw[:60])}; leave it out")
            writers["tokens"].append(words)
            writers["starts"].append(np.array([writers["tokens"].length]))
            writers["labels"].append(np.array([numbers[label]]))
    finally:
        for writer in writers.values():
            writer.close()


def _words(tokenizer: Any, raw: str) -> Int[np.ndarray, " _"]:
    """The words of a text as a prepared corpus has them, the end mark behind every sentence."""
    text = cleaning.clean(raw, {})
    sentences = tokenizer.encode_sentences([text[start:end] for start, end in split_sentences(text)])
    return np.insert(sentences.ids, np.cumsum(sentences.lengths[sentences.lengths > 0]), tokenizer.end_id)


def stand_in(config: Any) -> dict[str, Any]:
    """Fields with which a source on generated text can be made in place of what a config lacks."""
    del config
    source = example()
    return {"corpus": str(source.corpus.folder), "tokenizer": f"{source.corpus.folder}/tokenizer"}


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_texts, make_tokenizer

    folder = generated_texts()
    make_tokenizer("words").save(f"{folder}/tokenizer")
    return Source(folder, tokenizer=f"{folder}/tokenizer", length=24)
