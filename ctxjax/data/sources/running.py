"""Rows for recurrent language models: the text of a corpus as it stands, cut into lanes that are read side by side.

The sentences follow one another in the order of the corpus, the end mark behind each; with `direction="backward"` the
whole text is turned round. A lane is one B-th of it, and row b of step s goes on where row b of step s - 1 ended, so a
model's state is carried over. In training the windows may be of drawn length, the same for all lanes; rows have the
shape of the longest, and `mask` and `weights` say how far the text goes.

Reference: Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", section 4.1; salesforce/awd-lstm-lm
main.py, utils.py; fastai 0.7, text.py, LanguageModelLoader.
"""

from __future__ import annotations

import math
import os
from typing import Any

import grain
import numpy as np
from jaxtyping import Float, Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.corpus_source import CorpusSource

DIRECTIONS = ("forward", "backward")
HALF = 0.05  # of the windows are drawn round half the length
DEVIATION = 5
SHORTEST = 5
LEAST = 2  # pairs; a pass of drawn windows ends where fewer are left


class Source(CorpusSource):
    """Windows of a prepared corpus, whatever its tokenizer.

    Row: inputs {tokens [T], mask [T]}, targets [T], weights [T], is_first []; targets are the tokens one place later,
    and T is `length`, or with `variable` 25 more, rounded up to a multiple of 8.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 70,
        variable: bool = True,
        longest_first: bool = False,
        direction: str = "forward",
        verify: bool = False,
    ):
        """Open the corpus.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote.
          split: "train" or "heldout".
          length: tokens of a window; of the usual one, if it is drawn.
          variable: draw the lengths of the training split's windows, as published: a normal draw of deviation 5 round
            `length`, or with a chance of 0.05 round half of it, rounded down, and at least 5. Another split never does.
          longest_first: the first window of a pass has 25 tokens more than `length`, as in fastai.
          direction: "forward" or "backward".
          verify: compare the digests of the shards before use, and not only of each part when it is read.

        Raises:
          ConfigError: no such corpus or split, or an impossible field.
        """
        if direction not in DIRECTIONS:
            raise ConfigError(f"config.source.direction={direction!r} is not one of {', '.join(DIRECTIONS)}")
        if length < SHORTEST:
            raise ConfigError(f"config.source.length={length} is not at least {SHORTEST}")
        super().__init__(corpus, split, verify)
        self.usual, self.variable, self.direction = length, variable and split == "train", direction
        self.longest = length + 5 * DEVIATION if self.variable else length
        self.longest_first = longest_first and self.variable
        self.length = -(-self.longest // 8) * 8 if self.variable else length
        self.law = _law(length, self.longest) if self.variable else np.eye(length + 1)[length]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return self.fingerprint_of("variable", "longest_first", "direction") | {"length": self.usual}

    @property
    def tokens(self) -> int:
        """Tokens of the text, end marks included."""
        return self.corpus.num_tokens + self.corpus.num_sentences

    @property
    def mean_length(self) -> float:
        """Expected tokens of a window."""
        return float(np.arange(self.longest + 1) @ self.law)

    @property
    def tokens_per_row(self) -> int:
        """Tokens of a window, on average."""
        return round(self.mean_length)

    def steps_per_pass(self, batch_size: int) -> int:
        """Windows of a pass; with drawn lengths the expected number, while each pass ends where its text does.

        Raises:
          ConfigError: a lane has no two tokens to tell.
        """
        pairs = self._lane(batch_size) - 1
        if pairs < LEAST:
            raise ConfigError(
                f"split {self.corpus.split!r} of corpus {self.corpus.folder} has {self.tokens} tokens, too few for "
                f"config.batch_size={batch_size} lanes; lower config.batch_size"
            )
        if self.variable:
            return max(1, round(pairs / self.mean_length))
        return -(-pairs // self.usual)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + b is lane b at step s."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together: lane element % batch_size at step element // batch_size."""
        inputs, targets = np.zeros((2, len(elements), self.length), np.int32)
        mask, first = np.zeros((len(elements), self.length), np.bool_), np.empty(len(elements), np.bool_)
        lane = self._lane(batch_size)
        for row, element in enumerate(elements.tolist()):
            step, number = divmod(element, batch_size)
            start, stop = self._window(seed, batch_size, step)
            text = self._read(number * lane + start, number * lane + stop + 1)
            inputs[row, : stop - start], targets[row, : stop - start] = text[:-1], text[1:]
            mask[row, : stop - start], first[row] = True, start == 0
        given = {"tokens": inputs, "mask": mask}
        return {"inputs": given, "targets": targets, "weights": mask.astype(np.float32), "is_first": first}

    def _lane(self, batch_size: int) -> int:
        return self.tokens // batch_size

    def _window(self, seed: int, batch_size: int, step: int) -> tuple[int, int]:
        """The pairs of a lane that a step reads."""
        if not self.variable:
            start = step % self.steps_per_pass(batch_size) * self.usual
            return start, min(start + self.usual, self._lane(batch_size) - 1)
        with self._lock:
            self.steps_per_pass(batch_size)  # refuses too many lanes
            starts = self._passes.setdefault((seed, batch_size), [])
            for number in range(2**31):
                if number == len(starts):
                    starts.append(self._cut(seed, number, self._lane(batch_size) - 1))
                steps = len(starts[number]) - 1
                if step < steps:
                    return int(starts[number][step]), int(starts[number][step + 1])
                step -= steps
        raise AssertionError

    def _cut(self, seed: int, pass_number: int, pairs: int) -> Int[np.ndarray, " windows_1"]:
        """Where the windows of a pass start, and where the last one ends."""
        drawn = draws.unit(draws.key("windows", seed, pass_number), np.arange(pairs // SHORTEST + 1))
        lengths = np.cumsum(self.law).searchsorted(drawn, "right").clip(SHORTEST, self.longest)
        if self.longest_first:
            lengths[0] = self.longest
        starts = np.concatenate([[0], np.cumsum(lengths)])
        starts = starts[: starts.searchsorted(pairs - LEAST, "right")]
        return np.append(starts, min(int(starts[-1]) + int(lengths[len(starts) - 1]), pairs))

    def _read(self, start: int, stop: int) -> Int[np.ndarray, " _"]:
        """Tokens start, ..., stop - 1 of the text, an end mark behind every sentence."""
        if self.direction == "backward":
            return self._text(self.tokens - stop, self.tokens - start)[::-1]
        return self._text(start, stop)

    def _text(self, start: int, stop: int) -> Int[np.ndarray, " _"]:
        sentences = self.corpus.sentence_tokens
        first, last = (self._sentence(place) for place in (start, stop - 1))
        bounds = sentences[first : last + 2]
        tokens, _ = self.corpus.read_tokens(int(bounds[0]), int(bounds[-1]))
        marked = np.insert(tokens, bounds[1:] - bounds[0], self.tokenizer.end_id)
        skip = start - (int(bounds[0]) + first)
        return marked[skip : skip + stop - start]

    def _sentence(self, place: int) -> int:
        """The sentence that a token of the text, or the mark behind it, belongs to: the s-th starts s marks later."""
        sentences, low, high = self.corpus.sentence_tokens, 0, self.corpus.num_sentences - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if int(sentences[middle]) + middle <= place else (low, middle - 1)
        return low


def _law(usual: int, longest: int) -> Float[np.ndarray, " longest_1"]:
    """The probability of every length from 0 to the longest, where longer draws go too (3 in 10 million)."""
    below = np.zeros(longest + 2)
    for share, centre in ((1 - HALF, usual), (HALF, usual / 2)):
        for length in range(SHORTEST + 1, longest + 1):
            below[length] += share * 0.5 * (1 + math.erf((length - centre) / DEVIATION / math.sqrt(2)))
    below[longest + 1] = 1.0
    return np.diff(below)


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("words"), length=16)
