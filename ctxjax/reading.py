"""From texts to what a model reads, and from its vectors back to words.

A reader encodes a text once, cuts it into windows that the model can hold, joins the windows' vectors, and gives them
by piece or by word. One reader for models of pieces, one for those that read them from
the end, one for biLMs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ctxjax.text import characters
from ctxjax.text.subwords import SubWords

Text = str | Sequence[str]


class Encoded(NamedTuple):
    """A text as the model's pieces, special ones left out.

    Attributes:
      ids, pieces: n of them. owners: the word of each, rising.
      words: the words of the text. spans: [words, 2] where they stand in it, or None where words were given.
      piece_spans: [n, 2] the same for pieces.
    """

    ids: np.ndarray
    pieces: list[str]
    owners: np.ndarray
    words: list[str]
    spans: np.ndarray | None
    piece_spans: np.ndarray | None


class Window(NamedTuple):
    """Pieces start to stop of a text, between special pieces, as a row of `batch["inputs"]`."""

    inputs: dict[str, np.ndarray]
    start: int
    stop: int


@runtime_checkable
class Reader(Protocol):
    """What `ctxjax.pretrained` asks of both readers."""

    stateful: bool
    before: int  # special pieces in front of a text

    def encode(self, text: Text, special: bool = False) -> Encoded: ...
    def windows(self, text: Encoded, longest: int | None) -> list[Window]: ...
    def join(self, text: Encoded, parts: list[tuple[Window, np.ndarray]]) -> np.ndarray: ...
    def align(
        self, text: Encoded, values: np.ndarray, align: str, pool: str
    ) -> tuple[list[str], np.ndarray, np.ndarray | None]: ...
    def targets(self, text: Encoded) -> np.ndarray: ...


class PieceReader:
    """Pieces between marks, in windows of at most the model's `max_len`.

    Args:
      tokenizer: of any kind.
      first, last: ids of the marks: [CLS] and [SEP], or the end of the text before and nothing, or nothing and the end.
    """

    stateful = False

    def __init__(self, tokenizer: Any, first: Sequence[int], last: Sequence[int]):
        self.tokenizer, self.first, self.last = tokenizer, list(first), list(last)
        self.before, self.marks = len(self.first), len(self.first) + len(self.last)

    def encode(self, text: Text, special: bool = False) -> Encoded:
        """Pieces of a text; `special` takes "[MASK]" in a string for itself (WordPiece and byte-level BPE)."""
        if not isinstance(text, str):
            found = self.tokenizer.encode_words(text)
            return Encoded(found.ids, found.pieces, found.words, list(text), None, None)
        found = self.tokenizer.encode(text, **({"special": True} if special else {}))
        spans = np.array(self.tokenizer.split_words(text), np.int32).reshape(-1, 2)
        words = [text[start:end] for start, end in spans]
        return Encoded(found.ids, found.pieces, found.words, words, spans, found.offsets)

    def windows(self, text: Encoded, longest: int | None) -> list[Window]:
        """One window, or as many as a long text needs, each overlapping half of the one before."""
        count = len(text.ids)
        room = count if longest is None else longest - self.marks
        starts = [0] if count <= room else [*range(0, count - room, max(1, room // 2)), count - room]
        return [self._window(text.ids[start : start + room], start) for start in starts]

    def _window(self, ids: np.ndarray, start: int) -> Window:
        tokens = np.concatenate([self.first, ids, self.last]).astype(np.int32)
        return Window({"tokens": tokens}, start, start + len(ids))

    def join(self, text: Encoded, parts: list[tuple[Window, np.ndarray]]) -> np.ndarray:
        """`[layers, marks and pieces, width]`.

        Of several windows a piece is taken where its poorer side has most context; in a left-to-right model, the left.
        """
        parts = sorted(parts, key=lambda part: part[0].start)
        if len(parts) == 1:
            return parts[0][1]
        layers, _, width = parts[0][1].shape
        joined = np.empty((layers, len(text.ids) + self.marks, width), np.float32)
        best = np.full(len(text.ids), -1)
        for window, values in parts:
            at = np.arange(window.start, window.stop)
            context = at - window.start
            if self.last:
                context = np.minimum(context, window.stop - 1 - at)
            better = context > best[at]
            best[at[better]] = context[better]
            joined[:, at[better] + self.before] = self._inner(values)[:, better]
        joined[:, : self.before] = parts[0][1][:, : self.before]
        if self.last:
            joined[:, -len(self.last) :] = parts[-1][1][:, -len(self.last) :]
        return joined

    def _inner(self, values: np.ndarray) -> np.ndarray:
        """The vectors of the pieces, without those of the marks."""
        return values[:, self.before : values.shape[1] - len(self.last)]

    def align(
        self, text: Encoded, values: np.ndarray, align: str, pool: str
    ) -> tuple[list[str], np.ndarray, np.ndarray | None]:
        """Names, `[layers, names, width]`, and where they stand."""
        if align == "piece":
            first, last = ([self.tokenizer.pieces[mark] for mark in marks] for marks in (self.first, self.last))
            return [*first, *text.pieces, *last], values, _with_marks(text.piece_spans, len(first), len(last))
        inner = self._inner(values)
        firsts = np.searchsorted(text.owners, np.arange(len(text.words)))
        if pool == "first" or not len(firsts):
            return text.words, inner[:, firsts], text.spans
        sums = np.add.reduceat(inner, firsts, axis=1)
        counts = np.diff(np.append(firsts, len(text.owners)))
        return text.words, (sums / counts[None, :, None]).astype(np.float32), text.spans

    def targets(self, text: Encoded) -> np.ndarray:
        """What is at every position, marks included."""
        return np.concatenate([self.first, text.ids, self.last]).astype(np.int32)


class BackwardReader(PieceReader):
    """Pieces from the last to the first, for a model of text that was turned round; the mark stands behind a text.

    Args:
      tokenizer: of any kind.
      last: id of the mark, which is read first.
    """

    def __init__(self, tokenizer: Any, last: int):
        super().__init__(tokenizer, [], [last])

    def _window(self, ids: np.ndarray, start: int) -> Window:
        window = super()._window(ids, start)
        return window._replace(inputs={"tokens": window.inputs["tokens"][::-1].copy()})

    def join(self, text: Encoded, parts: list[tuple[Window, np.ndarray]]) -> np.ndarray:
        """As of any pieces, the vectors put in the order of the text."""
        return super().join(text, [(window, values[:, ::-1]) for window, values in parts])


class WordReader:
    """<S> words </S>, as word ids or characters; a text of any length is one window.

    Args:
      tokenizer: of kind "words".
      chars: characters a word, or 0 for word ids.
    """

    stateful, before = True, 1

    def __init__(self, tokenizer: Any, chars: int):
        self.tokenizer, self.chars = tokenizer, chars

    def encode(self, text: Text, special: bool = False) -> Encoded:
        """Words of a text; there is nothing special to find in it."""
        del special
        if isinstance(text, str):
            spans = np.array(self.tokenizer.split_words(text), np.int32).reshape(-1, 2)
            words = [text[start:end] for start, end in spans]
        else:
            spans, words = None, list(text)
        ids = self.tokenizer.encode_words(words).ids
        if len(ids) != len(words):
            raise ValueError(f"{len(words)} words gave {len(ids)} ids")
        return Encoded(ids, words, np.arange(len(words)), words, spans, spans)

    def windows(self, text: Encoded, longest: int | None) -> list[Window]:
        """The text between its sentence marks."""
        if self.chars:
            words = [word.lower() for word in text.words] if self.tokenizer.lowercase else text.words
            marked = [characters.BOS, *words, characters.EOS]
            return [Window({"chars": characters.table(marked, self.chars)}, 0, len(text.ids))]
        return [Window({"tokens": self.targets(text)}, 0, len(text.ids))]

    def join(self, text: Encoded, parts: list[tuple[Window, np.ndarray]]) -> np.ndarray:
        """The one window's vectors."""
        return parts[0][1]

    def align(
        self, text: Encoded, values: np.ndarray, align: str, pool: str
    ) -> tuple[list[str], np.ndarray, np.ndarray | None]:
        """Names, `[layers, names, width]`, and where they stand; a word is one piece."""
        if align == "piece":
            return [characters.BOS, *text.words, characters.EOS], values, _with_marks(text.spans)
        return text.words, values[:, 1:-1], text.spans

    def targets(self, text: Encoded) -> np.ndarray:
        """Vocabulary ids with the sentence marks round them."""
        return np.concatenate([[self.tokenizer.bos_id], text.ids, [self.tokenizer.eos_id]]).astype(np.int32)


def _with_marks(spans: np.ndarray | None, before: int = 1, behind: int = 1) -> np.ndarray | None:
    """Empty spans for the marks in front of and behind a text."""
    if spans is None:
        return None
    end = spans[-1, 1] if len(spans) else 0
    return np.concatenate([np.zeros((before, 2)), spans, np.full((behind, 2), end)]).astype(np.int32)


def make_reader(tokenizer: Any, config: Mapping[str, Any], predicts: str, backward: bool = False) -> Reader:
    """The reader that fits a tokenizer and a model, by what the model predicts; `backward` if it reads from the end."""
    if predicts == "context":  # word vectors, whose texts have no marks
        shortest, longest = config.get("shortest", 3), config.get("longest", 6)
        return PieceReader(SubWords(tokenizer, shortest, longest, config.get("buckets", 0)), [], [])
    if predicts == "next" and backward:
        return BackwardReader(tokenizer, tokenizer.end_id)
    if predicts == "next":
        return PieceReader(tokenizer, [tokenizer.end_id], [])
    if predicts == "target":
        return PieceReader(tokenizer, [], [tokenizer.end_id])
    if tokenizer.kind == "wordpiece":
        return PieceReader(tokenizer, [tokenizer.cls_id], [tokenizer.sep_id])
    return WordReader(tokenizer, config.get("max_chars", characters.MAX_CHARS) if config.get("token") != "words" else 0)
