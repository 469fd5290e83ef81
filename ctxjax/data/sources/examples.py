"""Examples of a task, one a row: a text or a pair with its label or number, or several choices.

Files are read and tokenised once, when rows are first asked for, and kept in memory. A pass is a keyed permutation.
"""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ctxjax.config import ConfigError, did_you_mean
from ctxjax.data import draws
from ctxjax.data.shuffled import Framed
from ctxjax.data.tasks import Example, Task, open_task
from ctxjax.data.tasks.splits import Files, Records, open_splits
from ctxjax.data.transforms.framing import Row
from ctxjax.text import characters

_DRAWN = ("heldout", "test")  # splits that may be drawn from the training file
_TEXTS = 4096  # tokenised at a time


class Encoded(NamedTuple):
    """All texts of a split, in a row.

    Attributes:
      ids: of all texts. starts: where each begins.
      words: words outside the vocabulary, in order, and unknown: how many there are before each place of `ids`; of word
        vocabularies alone.
    """

    ids: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " texts_and_1"]
    words: list[str]
    unknown: Int[np.ndarray, " n_and_1"]


class Source(Framed):
    """Examples of one split of a task, each a row, or several where it has choices or is read in both orders.

    Row (L = `length`): inputs {tokens [L], mask [L], cls_positions [1]}, with segment_ids [L] for BERT and chars [L C]
    where they are asked for; targets [], the number of the label or of the right choice, or, in float32, a number;
    weights []. With S choices, or with both orders of a pair, inputs have an axis more: [S L], cls_positions [S 1].
    """

    rows_are = "examples"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        task: str = "",
        tokenizer: str = "",
        length: int = 128,
        framing: str = "",
        both_orders: bool = False,
        apart: bool = False,
        max_chars: int = 0,
        limit: int = 0,
        share: float = 0.1,
        widths: int = 1,
        together: int = 1,
    ):
        """Open a task; its files are read when they are first needed.

        Args:
          corpus: the folder of its official files, or `tfds:NAME[/config][:version]`, which is then prepared already.
          split: "train", "heldout", "test", or another that the task has.
          task: as in "glue.cola"; see `ctxjax/data/tasks`.
          tokenizer: folder of the encoder's tokenizer.
          length: tokens of a row at most.
          framing: how parts become a row, a key of `framing.MARKS`; empty for that of the tokenizer.
          both_orders: rows of symmetrical pairs are a b and b a, as GPT reads them.
          apart: the two texts of a pair are rows of their own, for a model that compares their vectors.
          max_chars: characters of a word, for encoders that read them; 0 for none.
          limit: train on so many examples, the first of a keyed permutation; 0 for all.
          share: of the training file that a split is drawn as which has no file of its own.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such task, split or file, or an impossible field.
        """
        if not corpus:
            raise ConfigError("config.source.corpus is empty; set it to the folder of the task's files")
        if not task:
            raise ConfigError('config.source.task is empty; set it to a task, as in "glue.cola"')
        self.frame(tokenizer, framing)
        self.pad(length, widths, together)
        self._corpus, self.split, self.task_name = os.fspath(corpus), split, task
        self.max_chars, self.limit, self.share = max_chars, limit, share
        known = [*self.corpus.names, *(name for name in _DRAWN if name not in self.corpus.names)]
        if split not in known:
            raise ConfigError(f"config.source.split={split!r} is no split of {task}{did_you_mean(split, known)}")
        if limit < 0 or not 0.0 <= share < 0.5 or (0 < max_chars < 3):
            raise ConfigError("config.source needs limit >= 0, share in [0, 0.5), and max_chars >= 3 or 0")
        if both_orders and not self.task.symmetric:
            raise ConfigError(f"config.source.both_orders: the two texts of {task} may not change places")
        if apart and (both_orders or self.task.parts != 2 or self.task.kind == "choose"):
            raise ConfigError(
                f"config.source.apart: {task} has no pairs, or both_orders is set, which reads them together"
            )
        self.both_orders, self.apart = bool(both_orders), bool(apart)
        for name in {"train", split}:
            self.place(name)

    def place(self, split: str) -> str:
        """Where a split is read, or drawn, from, for messages."""
        return self.corpus.place(self._read_from(split))

    def _read_from(self, split: str) -> str:
        return split if split in self.corpus.names else "train"

    @functools.cached_property
    def corpus(self) -> Files | Records:
        """What the examples are read from."""
        return open_splits(self._corpus, self.task, self.task_name)

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        found = open_task(self.task_name)
        if not isinstance(found, Task):
            raise ConfigError(f"config.source.task={self.task_name!r} is no task")
        return found

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels by number, those of the task or else of the training file; none where none are told."""
        if self.task.kind != "classify" or self.task.labels:
            return self.task.labels
        found = {str(one.target) for one in self.corpus.read("train") if one.target is not None}
        return tuple(sorted(found))

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        names = ("length", "both_orders", "apart", "max_chars", "limit", "share")
        options = {name: getattr(self, name) for name in names} | self.padding_of()
        options |= {"framing": self.framing.family}
        files = {name: self.corpus.digest(self._read_from(name)) for name in sorted({"train", self.split})}
        about = {"source": "examples", "task": self.task_name, "split": self.split}
        return {**about, **files, **options, "tokenizer": self.tokenizer.digest()}

    # --- what is read ---

    @functools.cached_property
    def _read(self) -> tuple[list[Example], dict[str, int]]:
        """The examples of the split in the order of its file, and what was left out."""
        import tqdm

        found = self.corpus.read(self._read_from(self.split))
        bar = tqdm.tqdm(found, desc=self.split, unit=" examples", delay=3, disable=None)
        found = [example for place, example in enumerate(bar) if self._is_mine(place)]
        told = [one for one in found if one.target is not None] or found
        kept = [one for one in told if one.target not in self.task.skipped]
        dropped = {"examples without a label": len(found) - len(told)}
        dropped["examples that the published recipe skips"] = len(told) - len(kept)
        for one in kept:
            if not all(one.texts):
                raise ConfigError(f"{one.where}: an empty text")
        if self.limit and self.split == "train":
            chosen = draws.permute(draws.key("limit", 0), np.arange(min(self.limit, len(kept))), len(kept))
            kept = [kept[index] for index in sorted(chosen.tolist())]
        if not kept:
            raise ConfigError(f"{self.place(self.split)}: no examples of the split {self.split!r}")
        return kept, dropped

    def _is_mine(self, place: int) -> bool:
        """Whether an example of the file is of this split: where some have no file, each has a share of training's."""
        drawn = [name for name in _DRAWN if name not in self.corpus.names]
        if not drawn or self.split not in ("train", *drawn):
            return True
        unit = float(draws.unit(draws.key("split", 0), np.array([place]))[0])
        mine = min(int(unit / self.share), len(drawn)) if self.share else len(drawn)
        return self.split == [*drawn, "train"][mine]

    @property
    def examples(self) -> list[Example]:
        """The examples of the split in the order of its file."""
        return self._read[0]

    def dropped(self, batch_size: int) -> dict[str, int]:
        """What is not read, and what is cut, as counts."""
        del batch_size
        return {**self._read[1], f"ends of examples, behind source.length={self.length}": int(self._sizes[1].sum())}

    def targets(self) -> Float[np.ndarray, " N"] | Int[np.ndarray, " N"] | None:
        """What is to be told of every example: numbers of labels or choices in int32, or numbers; None of a test set.

        Raises:
          ConfigError: a label that the task does not have, by file and line.
        """
        if self.examples[0].target is None:
            return None
        if self.task.kind == "regress":
            return np.array([one.target for one in self.examples], np.float32)
        if self.task.kind == "choose":
            return np.array([one.target for one in self.examples], np.int32)
        numbers = {label: number for number, label in enumerate(self.labels)}
        for one in self.examples:
            if one.target not in numbers:
                raise ConfigError(f"{one.where}: the label {one.target!r} is not one of {', '.join(self.labels)}")
        return np.array([numbers[str(one.target)] for one in self.examples], np.int32)

    @functools.cached_property
    def _encoded(self) -> Encoded:
        import tqdm

        texts = [text for one in self.examples for text in one.texts]
        chunks, lengths, words = [], [], []
        with tqdm.tqdm(total=len(texts), desc="tokenised", unit=" texts", delay=3, disable=None) as bar:
            for first in range(0, len(texts), _TEXTS):
                found = self.tokenizer.encode_sentences(texts[first : first + _TEXTS])
                chunks.append(found.ids)
                lengths.append(found.lengths)
                words += found.unknown
                bar.update(len(found.lengths))
        ids = np.concatenate(chunks)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        unknown = np.concatenate([[0], np.cumsum(ids == self.tokenizer.unk_id)])
        return Encoded(ids, starts, words, unknown)

    @functools.cached_property
    def _rows(self) -> tuple[Int[np.ndarray, "N S"], Int[np.ndarray, "N S"] | None]:
        """The first and the second text of each row of each example, as numbers of texts."""
        parts = np.array([len(one.texts) for one in self.examples])
        first = np.cumsum(parts) - parts
        if self.task.kind == "choose":
            second = first[:, None] + np.arange(1, self.task.choices + 1)[None]
            return np.broadcast_to(first[:, None], second.shape), second
        if self.task.parts == 1:
            return first[:, None], None
        if self.apart:
            return np.stack([first, first + 1], 1), None
        if self.both_orders:
            return np.stack([first, first + 1], 1), np.stack([first + 1, first], 1)
        return first[:, None], first[:, None] + 1

    def _framed(self, example: int) -> list[Row]:
        """The rows of an example."""
        ids, starts = self._encoded.ids, self._encoded.starts
        first, second = self._rows

        def piece(text: int) -> np.ndarray:
            return ids[starts[text] : starts[text + 1]]

        if second is None:
            return [self.framing(piece(text)) for text in first[example].tolist()]
        pairs = zip(first[example].tolist(), second[example].tolist())
        return [self.framing(piece(a), piece(b)) for a, b in pairs]

    @functools.cached_property
    def _sizes(self) -> tuple[Int[np.ndarray, "N S"], Bool[np.ndarray, " N"]]:
        """Tokens of every row of every example, and which examples lose pieces."""
        texts = np.diff(self._encoded.starts)
        found = [self.framing.sizes(np.stack(parts, -1)) for parts in zip(*(texts[part].T for part in self._parts))]
        return np.stack([sizes for sizes, _ in found], 1), np.stack([cut for _, cut in found], 1).max(1)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Tokens of the longest row of every example."""
        return self._sizes[0].max(1)

    @property
    def _parts(self) -> list[Int[np.ndarray, "N S"]]:
        return [part for part in self._rows if part is not None]

    @functools.cached_property
    def tokens_per_row(self) -> int:
        """Tokens of an example, on average."""
        return max(1, round(float(self._sizes[0].sum(1).mean())))

    # --- rows ---

    @functools.cached_property
    def _targets(self) -> np.ndarray:
        found = self.targets()
        if found is None and self.split == "train":
            raise ConfigError(f"{self.place('train')} says no labels, so there is nothing to train on")
        kind = np.float32 if self.task.kind == "regress" else np.int32
        return np.zeros(len(self.examples), kind) if found is None else found

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """The rows of some examples by number, `width` tokens wide, or, of 0, `length`; they must fit."""
        shape = (len(chosen), self._rows[0].shape[1], width or self.length)
        tokens, segments, mask = (np.zeros(shape, kind) for kind in (np.int32, np.int32, np.bool_))
        places = np.zeros((*shape[:2], 1), np.int32)
        chars = np.full((*shape, self.max_chars), characters.PAD, np.int32)
        for index, example in enumerate(chosen.tolist()):
            for order, row in enumerate(self._framed(example)):
                size = len(row.tokens)
                tokens[index, order, :size], segments[index, order, :size] = row.tokens, row.segments
                mask[index, order, :size], places[index, order] = True, row.place
                if self.max_chars and size:
                    chars[index, order, :size] = characters.table(self._words(example, order, row), self.max_chars)
        inputs = {"tokens": tokens, "mask": mask, "cls_positions": places}
        inputs |= {"segment_ids": segments} if self.framing.family == "bert" else {}
        inputs |= {"chars": chars} if self.max_chars else {}
        if shape[1] == 1:
            inputs = {name: leaf[:, 0] for name, leaf in inputs.items()}
        return {"inputs": inputs, "targets": self._targets[chosen], "weights": np.ones(len(chosen), np.float32)}

    def _words(self, example: int, order: int, row: Row) -> list[str]:
        """The words of a row, those outside the vocabulary as they were written."""
        words = [self.tokenizer.pieces[token] for token in row.tokens.tolist()]
        texts = [part[example, order] for part in self._parts]
        for text, start, length in zip(texts, row.starts, row.lengths):
            begin = self._encoded.starts[text]
            for place in np.flatnonzero(row.tokens[start : start + length] == self.tokenizer.unk_id).tolist():
                words[start + place] = self._encoded.words[self._encoded.unknown[begin + place]]
        return words


def stand_in(fields: Any) -> dict[str, Any]:
    """Fields of a source on generated text whose rows have the shapes of those of the given one's."""
    from ctxjax.data.generated_examples import generated_task

    task = open_task(fields["task"] or "own.labels")
    own = {"classify": ("own.labels", "own.pairs")[task.parts - 1], "regress": "own.scores", "choose": "own.choices"}
    name = own[task.kind] + (str(task.choices) if task.choices > 2 else "")
    framing = fields["framing"] if "framing" in fields else ""
    kind = {"gpt": "bpe", "words": "words", "bare": "words"}.get(framing, "wordpiece")
    return {"task": name, **generated_task(name, kind)}


def example() -> Source:
    """Generated pairs of texts, and whether they are of one topic."""
    from ctxjax.data.generated_examples import generated_task

    return Source(task="own.pairs", length=48, **generated_task("own.pairs", "wordpiece"))
