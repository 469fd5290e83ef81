"""Tagged sentences as pieces, for an encoder that is fine-tuned: the first piece of a word is told its tag.

As much of the document as the encoder reads stands round a sentence, which is in the middle; nothing of it is told, nor
weighed. Every word of the split is told in one row, whatever the windows: a sentence longer than the encoder is cut
between words, and its parts are rows that have the rest of the sentence around them.

Reference: Devlin et al. 2019, section 5.3: first pieces, no CRF, and "the maximal document context".
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError, Fields
from ctxjax.data.arrays import file_digest
from ctxjax.data.shuffled import Framed
from ctxjax.data.tagging import Sentence, TaggedFiles
from ctxjax.data.transforms.windows import around, parts


class Told(NamedTuple):
    """Words that one row tells: of which sentence, and where among all pieces of the split.

    Attributes:
      sentence: its number.
      first, last: the words, counted over the whole split; `last` is one behind.
      start, stop: their pieces.
      left, right: the pieces of the row, which are more than those where there is context.
    """

    sentence: int
    first: int
    last: int
    start: int
    stop: int
    left: int
    right: int


class Source(TaggedFiles, Framed):
    """Windows round the sentences, shuffled anew in every pass.

    Row (T = `length`): inputs {tokens [T], mask [T]}; targets [T], the number of the tag among `labels` at the first
    piece of every word that is told, 0 elsewhere; weights [T], 1 there.
    """

    rows_are = "sentences"

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        train: str = "eng.train",
        heldout: str = "eng.testa",
        test: str = "eng.testb",
        tokenizer: str = "",
        framing: str = "",
        length: int = 512,
        context: bool = True,
        read: str = "IOB1",
        scheme: str = "BIO",
        word: int = 0,
        tag: int = -1,
        widths: int = 1,
        together: int = 1,
    ):
        """Open the files; they are read when they are first needed.

        Args:
          corpus: a folder with the three files, of columns between blanks, or of CoNLL-U (.conllu).
          split: "train", "heldout" or "test", the names of which are the next three fields.
          tokenizer: folder or vocabulary of the encoder's tokenizer; a run fills it in from `config.init_from.path`.
          framing: which marks stand round a row, a key of `framing.MARKS`; empty for those of the tokenizer.
          length: positions of a row, the encoder's marks included.
          context: whether the document stands round a sentence.
          read, scheme: that of the files and that of the targets, of "IOB1", "BIO" and "BIOES"; both "" for tags that
            say no spans, as of parts of speech; read="any" for files whose tags break their scheme.
          word, tag: columns.
          widths: a batch is as wide as its longest row, of so many widths at most; 1 pads every row to `length`.
          together: batches whose rows are sorted by length; 1 is a plain random order.

        Raises:
          ConfigError: no such file, or an impossible field.
        """
        super().__init__(corpus, split, {"train": train, "heldout": heldout, "test": test}, read, scheme, word, tag)
        self.frame(tokenizer, framing)
        self.pad(length, widths, together)
        self.context = bool(context)
        self.framing  # noqa: B018 - fails here where it does not fit

    @property
    def room(self) -> int:
        """Pieces of a row beside its marks."""
        return self.length - self.framing.marks(1)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size, and how many sentences were cut."""
        texts = {name: file_digest(self.file(name)) for name in sorted({"train", self.split})}
        options = {name: getattr(self, name) for name in ("length", "context", "read", "scheme", "word", "tag")}
        cut = len(self._told) - len(self.sentences)
        about = {"source": "tagged_pieces", "split": self.split, "tokenizer": self.tokenizer.digest()}
        parts = {"parts": self.parts} if self.parts else {}
        options |= {"framing": self.framing.family} | self.padding_of()
        return {**about, **texts, **parts, **options, "further_parts_of_long_sentences": cut}

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Positions of every row that are read."""
        return np.array([one.right - one.left for one in self._told]) + self.framing.marks(1)

    @functools.cached_property
    def owners(self) -> list[int]:
        """The sentence that each row tells words of, in order."""
        return [one.sentence for one in self._told]

    @functools.cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all pieces of the split, and where the pieces of each word begin (one more at the end)."""
        ids, counts = [], []
        for one in self.sentences:
            found = self.tokenizer.encode_words(one.words)
            ids.append(found.ids)
            counts.append(np.bincount(found.words, minlength=len(one.words)))
        return np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(counts))])

    @functools.cached_property
    def _targets(self) -> np.ndarray:
        """The tag of every word of the split."""
        return np.array([number for one in self.sentences for number in self.numbers_of(one)], np.int32)

    @functools.cached_property
    def _told(self) -> list[Told]:
        _, starts = self._pieces
        found: list[Told] = []
        first = number = 0  # of the document: its first word and its first sentence
        document = (lambda pair: pair[1].document) if self.context else (lambda pair: pair[0])
        for _, group in itertools.groupby(enumerate(self.sentences), key=document):
            sentences = [one for _, one in group]
            last = first + sum(len(one.words) for one in sentences)
            edges = int(starts[first]), int(starts[last])
            for one in sentences:
                for start, stop in self._cut(one, np.diff(starts[first : first + len(one.words) + 1]).tolist()):
                    here = first + start, first + stop
                    pieces = int(starts[here[0]]), int(starts[here[1]])
                    window = around(pieces[0] - edges[0], pieces[1] - edges[0], edges[1] - edges[0], self.room)
                    found.append(Told(number, *here, *pieces, window[0] + edges[0], window[1] + edges[0]))
                first += len(one.words)
                number += 1
        return found

    def _cut(self, sentence: Sentence, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Which words are told together: all, or of a long sentence so many that half of the row is context."""
        if sum(lengths) <= self.room:
            return [(0, len(lengths))]
        try:
            return parts(lengths, max(1, self.room // 2))
        except ValueError as error:
            place = int(error.args[0])
            raise ConfigError(
                f"{self.file(self.split)}, line {sentence.line + place}: a word of {lengths[place]} pieces is longer "
                f"than half a row of config.source.length={self.length}; raise it"
            ) from None

    def take(self, chosen: Int[np.ndarray, " B"], width: int = 0) -> dict[str, Any]:
        """Some rows of the split by number, `width` positions wide, or, of 0, `length`; they must fit."""
        ids, starts = self._pieces
        shape = (len(chosen), width or self.length)
        tokens, targets, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.bool_)
        weights = np.zeros(shape, np.float32)
        for row, number in enumerate(chosen.tolist()):
            one = self._told[number]
            framed = self.framing(ids[one.left : one.right])
            tokens[row, : len(framed.tokens)], mask[row, : len(framed.tokens)] = framed.tokens, True
            firsts = starts[one.first : one.last] - one.left + framed.starts[0]
            targets[row, firsts], weights[row, firsts] = self._targets[one.first : one.last], 1.0
        return {"inputs": {"tokens": tokens, "mask": mask}, "targets": targets, "weights": weights}


def example() -> Source:
    """A small source on generated text, whose longest sentences are cut."""
    from ctxjax.data.generated import generated_tags, make_tokenizer

    folder = generated_tags()
    make_tokenizer("wordpiece").save(f"{folder}/wordpiece")
    return Source(folder, tokenizer=f"{folder}/wordpiece", length=32)


def stand_in(fields: Fields) -> dict[str, Any]:
    """Fields that make rows of generated text."""
    from ctxjax.data.generated import tagged_files

    folder = example().corpus.folder
    tokenizer = fields["tokenizer"] or str(folder / "wordpiece")
    return {"corpus": str(folder), "tokenizer": tokenizer, **tagged_files(bool(fields["read"]))}
