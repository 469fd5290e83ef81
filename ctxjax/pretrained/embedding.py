"""Vectors of texts: words or pieces, layer by layer."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.pretrained.opened import Opened, choice, texts_of
from ctxjax.reading import Encoded, Text, Window

LAYERS, ALIGN = ("all", "top", "mix"), ("word", "piece")
CHUNK_BATCHES = 8  # of texts sorted by length together, so that little of a batch is padding


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The vectors of one text.

    Attributes:
      words: the words of the text, or with `align="piece"` its pieces, special pieces included.
      layers: float32 [layers, words, width]; with all layers, layer 0 is the token layer, which knows no context.
      offsets: int32 [words, 2], where each word stands in the text; None where the text was given as words.
      windows: how many overlapping windows a long text was read in; 1 for all others.
    """

    words: list[str]
    layers: np.ndarray
    offsets: np.ndarray | None = None
    windows: int = 1

    def __repr__(self) -> str:
        return f"Embedded({len(self.words)} words, layers {list(self.layers.shape)})"


class Embedding(Opened):
    """Models that give vectors, which all do."""

    def embed(
        self,
        texts: Text | Sequence[Text],
        layers: str = "all",
        align: str = "word",
        *,
        pool: str = "mean",
        mix: Sequence[float] | None = None,
        gamma: float = 1.0,
        stateful: bool = False,
        long: str = "windows",
    ) -> list[Embedded]:
        """Contextual vectors of texts, in their order.

        A text is read alone: for a biLM the state starts from zero, unless `stateful`.

        Args:
          texts: each a string, which the tokenizer splits into words, or a list of words, which are kept as they are.
          layers: "all" `[depth + 1, ...]` (layer 0 the token layer, ELMo's twice side by side as published; narrower
            layers filled up with zeros), "top" `[1, ...]` the last, or "mix" `[1, ...]` the scalar mix of all.
          align: "word", or "piece" for what the model itself reads, sentence marks or [CLS] and [SEP] included.
          pool: of a word in several pieces, "mean" or "first".
          mix: one learned scalar a layer *before* the softmax, as ELMo's papers and tools store them; all layers weigh
            the same without it.
          gamma: scale of the mix.
          stateful: a biLM's state goes on from each text to the next, as in the published tools, which keep it over
            batches; texts then are read one after another.
          long: texts over the model's `max_len` are read in overlapping "windows" (each piece taken where it stands
            farthest from a window's edge; a warning says how many), or are an "error".

        Raises:
          ConfigError: an option that there is not, or a text too long with `long="error"`.
        """
        found = list(
            self.stream(texts_of(texts), layers, align, pool=pool, mix=mix, gamma=gamma, stateful=stateful, long=long)
        )
        cut = sum(one.windows > 1 for one in found)
        if cut:
            warnings.warn(
                f"{cut} of {len(found)} texts are longer than the {self.runner.longest} pieces that this model reads "
                "at once, and were read in overlapping windows",
                stacklevel=2,
            )
        return found

    def stream(
        self,
        texts: Iterable[Text],
        layers: str = "all",
        align: str = "word",
        *,
        pool: str = "mean",
        mix: Sequence[float] | None = None,
        gamma: float = 1.0,
        stateful: bool = False,
        long: str = "windows",
    ) -> Iterator[Embedded]:
        """`embed` one by one, in order and in bounded memory, of texts that are read as they are needed."""
        reader = self.need("embed")
        choice("layers", layers, LAYERS)
        choice("align", align, ALIGN)
        choice("pool", pool, ("mean", "first"))
        choice("long", long, ("windows", "error"))
        if stateful and not reader.stateful:
            raise ConfigError(f"stateful=True is for models with a state; {self.path} ({self.kind}) has none")
        if mix is not None and layers != "mix":
            raise ConfigError("mix= is the weights of layers='mix', and is given with another choice of layers")
        scalars = _mix_weights(mix, self.config["depth"] + 1, gamma) if layers == "mix" else None
        longest = self.runner.longest if long == "windows" else None
        carry = self.runner.fresh_carry() if stateful else None

        def finish(one: Encoded, parts: list[tuple[Window, np.ndarray]]) -> Embedded:
            values = reader.join(one, parts)
            if scalars is not None:
                values = np.tensordot(scalars, values, axes=1)[None]
            words, vectors, offsets = reader.align(one, values, align, pool)
            return Embedded(words, vectors, offsets, len(parts))

        for chunk in _chunks((reader.encode(text) for text in texts), self.runner.tokens_per_batch * CHUNK_BATCHES):
            windows: list[Window] = []
            owners: list[int] = []
            for number, one in enumerate(chunk):
                cut = reader.windows(one, self.runner.longest)
                if len(cut) > 1 and longest is None:
                    raise ConfigError(
                        f"a text of {len(one.pieces)} pieces is longer than the {self.runner.longest} that this model "
                        f"reads at once, special pieces included; split it or use long='windows' ({one.words[:5]}...)"
                    )
                windows += cut
                owners += [number] * len(cut)
            inputs = [window.inputs for window in windows]
            parts: list[list[Any]] = [[] for _ in chunk]
            if carry is None:
                for index, values in self.runner.hidden(inputs, top=layers == "top"):
                    parts[owners[index]].append((windows[index], values))
            else:
                for index, one in enumerate(inputs):
                    values, carry = self.runner.hidden_next(one, carry, top=layers == "top")
                    parts[owners[index]].append((windows[index], values))
            yield from (finish(one, held) for one, held in zip(chunk, parts))


def _chunks(encoded: Iterable[Encoded], pieces: int) -> Iterator[list[Encoded]]:
    """Texts in order, as many at once as hold about so many pieces."""
    chunk: list[Encoded] = []
    held = 0
    for one in encoded:
        chunk.append(one)
        held += len(one.ids) + 2
        if held >= pieces:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _mix_weights(scalars: Sequence[float] | None, count: int, gamma: float) -> np.ndarray:
    """`gamma * softmax(scalars)`, in float32."""
    values = np.zeros(count) if scalars is None else np.asarray(scalars, np.float64)
    if values.shape != (count,):
        raise ConfigError(f"mix= has {values.size} weights, and this model {count} layers, the token layer included")
    values = np.exp(values - values.max())
    return np.asarray(gamma * values / values.sum(), np.float32)
