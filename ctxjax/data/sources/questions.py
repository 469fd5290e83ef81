"""Questions on contexts: a row is a question and a window of its context, and where in the row the answer is.

Reference: Devlin et al. 2019, section 4.2; google-research/bert run_squad.py.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ctxjax.config import ConfigError
from ctxjax.data.arrays import file_digest
from ctxjax.data.index import cache_folder, open_index
from ctxjax.data.shuffled import Framed, Place
from ctxjax.data.tasks import squad, squad_records
from ctxjax.data.tfds_records import PREFIX
from ctxjax.data.transforms.question_index import write_index

_VERSION = 1  # of the index; part of its key


class Source(Framed):
    """Questions with the windows of their contexts, shuffled anew in every pass.

    Row (L = `length`): inputs {tokens [L], mask [L], cls_positions [1], segment_ids [L]}, [CLS] question [SEP] window
    [SEP], the last for BERT alone; targets [2], the first and the last piece of the answer, both the place of [CLS]
    where the window does not hold it or there is none; weights [2], 0 for windows of a held-out question whose answer
    was not found. Other families have other marks (`transforms/framing.py`).
    """

    rows_are = "windows"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        tokenizer: str | os.PathLike[str] = "",
        framing: str = "",
        version: str = "1.1",
        train: Sequence[str] = ("train-v1.1.json",),
        heldout: Sequence[str] = ("dev-v1.1.json",),
        test: Sequence[str] = (),
        held_out: float = 0.0,
        length: int = 384,
        stride: int = 128,
        max_query: int = 64,
        count_windows: bool = False,
        widths: int = 1,
        together: int = 1,
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with files of SQuAD's layout, or `tfds:NAME[/config][:version]`, as in "tfds:squad/v2.0".
          split: "train", "heldout" or "test"; the next three fields name the files of each, in a folder.
          tokenizer: empty is the folder `tokenizer` of the corpus.
          framing: a key of `transforms.framing.MARKS`; empty for the tokenizer's own.
          version: "1.1" leaves out what its context does not answer, "2.0" trains on it.
          held_out: where it is over 0, that share of the articles in all files of `train` is the split "heldout", the
            rest "train", and a question that stands in two files counts once.
          length: positions of a row.
          stride: pieces from one window of a context to the next.
          max_query: pieces of a question at most; the rest is cut off.
          count_windows: an epoch is a pass over the windows, not, as published, as many rows as there are questions.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`. The
            published n-best lists may hold positions behind a row, which are then not there.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to a folder with files of SQuAD")
        if version not in squad.VERSIONS:
            raise ConfigError(f"config.source.version={version!r} is not one of {', '.join(squad.VERSIONS)}")
        if length <= max_query + 4 or stride < 1 or max_query < 1:
            raise ConfigError("config.source needs max_query and stride >= 1 and length > max_query + 4")
        if not 0.0 <= held_out < 1.0:
            raise ConfigError(f"config.source.held_out={held_out} is not a share from 0 to below 1")
        self._dataset = os.fspath(corpus) if os.fspath(corpus).startswith(PREFIX) else ""
        if self._dataset:
            train, heldout, test = (squad_records.SPLITS["train"],), (squad_records.SPLITS["heldout"],), ()
        files = {"train": tuple(train), "heldout": tuple(train if held_out else heldout), "test": tuple(test)}
        if not files.get(split):
            named = ", ".join(name for name, some in files.items() if some)
            raise ConfigError(f"config.source.split={split!r} has no files; there are {named}")
        self.corpus = Place(cache_folder() if self._dataset else pathlib.Path(corpus))
        self.split, self.version, self.held_out = split, version, held_out
        self.stride, self.max_query, self.count_windows = stride, max_query, bool(count_windows)
        self.frame(tokenizer or ("" if self._dataset else self.corpus.folder / "tokenizer"), framing)
        self.pad(length, widths, together)
        self._names = files[split]
        for name in self._names:
            if self._dataset:
                self._records.open(name)
            elif not (file := self.corpus.folder / name).is_file():
                raise ConfigError(f"config.source.{split}: there is no file {file}")

    @functools.cached_property
    def _records(self) -> squad_records.Records:
        return squad_records.Records(self._dataset, self.version)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("version", "held_out", "length", "stride", "max_query", "count_windows")
        options = {name: getattr(self, name) for name in names}
        digest = self._records.digest if self._dataset else lambda name: file_digest(self.corpus.folder / name)
        files = [digest(name) for name in self._names]
        about = {"tokenizer": self.tokenizer.digest(), "framing": self.framing.family}
        about |= self.padding_of()
        return {"source": "questions", "split": self.split, "files": files, **about, **options}

    @functools.cached_property
    def questions(self) -> list[squad.Question]:
        """The questions of the split, in the order of the files, whether their answer is found or not."""
        read = self._records.read if self._dataset else lambda name: squad.read(self.corpus.folder / name)
        found = [one for name in self._names for one in read(name)]
        total = len(found)
        if self.held_out and self.split != "test":
            here = self.split == "heldout"
            found = [one for one in squad.distinct(found) if squad.held_out(one.title, self.held_out) == here]
        if self.version == "1.1" and self.split != "test":
            kept = [one for one in found if one.answers]
            _say(self.split, len(found) - len(kept), "questions without an answer left out, which are for version=2.0")
            found = kept
        elif self.split != "test":
            for one in found:
                if not (one.answers or one.impossible):
                    raise ConfigError(f"{one.where}: no answer, and is_impossible is not true")
        if not found:
            raise ConfigError(f"config.source: of {total} questions none is left for the split {self.split!r}")
        return found

    @property
    def examples(self) -> list[squad.Question]:
        """The questions, by the name that sources of whole texts have them under."""
        return self.questions

    @functools.cached_property
    def _index(self) -> dict[str, np.ndarray]:
        windows = {name: value for name, value in self.fingerprint.items() if name not in self.padding_of()}
        key = {"index": "questions", "version": _VERSION, **windows}
        return open_index(
            self.corpus.folder,
            key,
            functools.partial(write_index, source=self, report=functools.partial(_say, self.split)),
        )

    @property
    def windows(self) -> Int[np.ndarray, "W 6"]:
        """Of every window: its question, first piece and size; the targets, and whether they count."""
        return self._index["windows"]

    def context(self, question: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n 2"]]:
        """Pieces of a question's context, and the characters of each."""
        index = self._index
        number = index["contexts"][question]
        first, last = index["context_starts"][number : number + 2]
        return index["context_ids"][first:last], index["context_offsets"][first:last]

    def query(self, question: int) -> Int[np.ndarray, " n"]:
        """Pieces of a question, cut to `max_query`."""
        index = self._index
        first, last = index["query_starts"][question : question + 2]
        return index["query_ids"][first:last]

    def place_of_window(self, question: int) -> int:
        """The position of a row where the window of a question begins."""
        return len(self.framing.first) + len(self.query(question)) + len(self.framing.between)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " W"]:
        """Pieces of every row."""
        windows = self.windows
        queries = np.diff(self._index["query_starts"])[windows[:, 0]]
        return queries + windows[:, 2] + self.framing.marks(2)

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until as many rows were read as there are questions (or windows; see `count_windows`)."""
        windows = self.windows
        count = len(windows) if self.count_windows else len(np.unique(windows[:, 0]))
        return max(1, count // batch_size)

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some windows by number, `width` pieces wide, or, of 0, `length`; they must fit."""
        shape, windows, framing = (len(chosen), width or self.length), self.windows[chosen], self.framing
        tokens = np.full(shape, getattr(self.tokenizer, "pad_id", 0), np.int32)
        segments, mask, places = np.zeros(shape, np.int32), np.zeros(shape, np.bool_), np.zeros(len(chosen), np.int32)
        for row, (question, first, size) in enumerate(windows[:, :3].tolist()):
            query, window = self.query(question), self.context(question)[0][first : first + size]
            ids = np.concatenate([framing.first, query, framing.between, window, framing.last])
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
            segments[row, self.place_of_window(question) : len(ids)] = 1
            places[row] = framing.place(len(ids))
        inputs = {"tokens": tokens, "mask": mask, "cls_positions": places[:, None]}
        inputs |= {"segment_ids": segments} if framing.family == "bert" else {}
        weights: Float[np.ndarray, "B 2"] = np.repeat(windows[:, 5:], 2, axis=1).astype(np.float32)
        return {"inputs": inputs, "targets": windows[:, 3:5].astype(np.int32), "weights": weights}


def _say(split: str, number: int, what: str) -> None:
    if number:
        print(f"{split}: {number} {what}", file=sys.stderr)


def stand_in(fields: Any) -> dict[str, Any]:
    """Fields with which rows of a config's shapes can be made without its files."""
    version = fields["version"]
    files = {"train": (f"train-v{version}.json",), "heldout": (f"dev-v{version}.json",), "held_out": 0.0}
    from ctxjax.data.generated_questions import generated_questions

    return {"corpus": generated_questions(), "tokenizer": "", "framing": "", **files}


def example() -> Source:
    """A small source on generated questions."""
    from ctxjax.data.generated_questions import generated_questions

    return Source(generated_questions(), length=48, stride=12, max_query=12)
