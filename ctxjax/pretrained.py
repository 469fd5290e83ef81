"""A trained model in a notebook: `ctxjax.load(path)` opens a run of ours or published weights, on any device, no mesh.

    model = ctxjax.load("runs/bert")
    for text in model.embed(["He sat by the river bank .", "The bank lent him money ."]):
        print(text.words, text.layers.shape)

See docs/pretrained.md.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax import config as configs
from ctxjax import formats, generation, tree
from ctxjax.config import ConfigError
from ctxjax.inference import TOKENS_PER_BATCH, Runner
from ctxjax.interop.files import Published
from ctxjax.ngrams.loaded import LoadedNGrams
from ctxjax.reading import Encoded, Reader, Text, Window, make_reader

LAYERS, ALIGN = ("all", "top", "mix"), ("word", "piece")
CHUNK_BATCHES = 8  # of texts sorted by length together, so that little of a batch is padding
# How a run was computed, which changes no value: here for one device and quick compilation.
_EXECUTION = {"remat": False, "attention_implementation": None, "groups": 0, "each_distinct": False}


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


class Pretrained:
    """A model with its parameters and tokenizer. Made by `load`.

    Attributes:
      config: the `model` sub-dict of a config, with which `model` was built.
      model: the linen module. params: its parameters, nested by path name. tokenizer: text to ids.
      missing: heads without parameters in what was loaded, of "pooler", "mlm", "nsp", "softmax".
      notes: one sentence for everything in the files that was left out.
      meta: meta.json of a run of ours; empty for published weights.
    """

    def __init__(
        self, published: Published, path: str, meta: Mapping[str, Any] | None = None, *,
        dtype: str = "float32", tokens_per_batch: int = TOKENS_PER_BATCH,
    ):  # fmt: skip
        execution = {"dtype": dtype, **_EXECUTION}
        module = configs.build("model", published.config)
        self.model = module.clone(**{k: v for k, v in execution.items() if hasattr(module, k)})
        self.config: dict[str, Any] = dict(published.config)
        self.tokenizer: Any = published.tokenizer
        self.missing, self.notes = published.missing, published.notes
        self.path, self.meta = path, dict(meta or {})
        params = dict(published.params)
        if "pooler" in self.missing:  # the encoder computes it whether it is wanted or not
            width = self.config["width"]
            params |= {
                "pooler/kernel": np.zeros((width, width), np.float32),
                "pooler/bias": np.zeros(width, np.float32),
            }
        self._runner = Runner(self.model, tree.unflatten(params), tokens_per_batch)

    def __repr__(self) -> str:
        lacks = f", without {', '.join(self.missing)}" if self.missing else ""
        return f"<{self.kind} {self.path!r}: {tree.count(self.params):,} parameters{lacks}; it can {_list(self.can)}>"

    @property
    def params(self) -> Any:
        """Nested dict of the parameters, on the default device."""
        return self._runner.params

    @property
    def kind(self) -> str:
        """The name of the model's module: "bert", "bilm", or a dotted one of your own."""
        return self.config["name"]

    @property
    def can(self) -> tuple[str, ...]:
        """Which of the methods this model has what is needed for."""
        if self.tokenizer is None:
            return ()
        if ("mlm" if self._predicts == "masked" else "softmax") in self.missing:
            return ("embed",)
        more = {"masked": ("fill_mask", "score"), "next": ("score", "score_next", "generate"), "neighbours": ("score",)}
        return ("embed", *more.get(self._predicts, ()))

    @property
    def _predicts(self) -> str:
        return getattr(self.model, "predicts", "")

    def _need(self, method: str) -> Reader:
        """What turns texts into inputs; raises where the model has not what a method needs."""
        if method in self.can:
            return make_reader(self.tokenizer, self.config, self._predicts)
        if self.tokenizer is None:
            why = "no vocabulary lies beside it"
        elif method == "fill_mask" and self._predicts != "masked":
            why = "it predicts words from those beside them, and has no masked position"
        elif method in ("generate", "score_next") and self._predicts != "next":
            why = "it predicts words from both sides"
        else:
            why = f"its {'masked-word head' if self._predicts == 'masked' else 'softmax'} is not in the file"
        raise ConfigError(f"{self.path} cannot {method}: {why}; it can {_list(self.can)}")

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
          layers: "all" `[depth + 1, ...]` (layer 0 the token layer, ELMo's twice side by side as published), "top"
            `[1, ...]` the last, or "mix" `[1, ...]` the scalar mix of all.
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
            self.stream(_texts(texts), layers, align, pool=pool, mix=mix, gamma=gamma, stateful=stateful, long=long)
        )
        cut = sum(one.windows > 1 for one in found)
        if cut:
            warnings.warn(
                f"{cut} of {len(found)} texts are longer than the {self._runner.longest} pieces that this model reads "
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
        reader = self._need("embed")
        _choice("layers", layers, LAYERS)
        _choice("align", align, ALIGN)
        _choice("pool", pool, ("mean", "first"))
        _choice("long", long, ("windows", "error"))
        if stateful and not reader.stateful:
            raise ConfigError(f"stateful=True is for models with a state; {self.path} ({self.kind}) has none")
        if mix is not None and layers != "mix":
            raise ConfigError("mix= is the weights of layers='mix', and is given with another choice of layers")
        scalars = _mix_weights(mix, self.config["depth"] + 1, gamma) if layers == "mix" else None
        longest = self._runner.longest if long == "windows" else None
        carry = self._runner.fresh_carry() if stateful else None

        def finish(one: Encoded, parts: list[tuple[Window, np.ndarray]]) -> Embedded:
            values = reader.join(one, parts)
            if scalars is not None:
                values = np.tensordot(scalars, values, axes=1)[None]
            words, vectors, offsets = reader.align(one, values, align, pool)
            return Embedded(words, vectors, offsets, len(parts))

        for chunk in _chunks((reader.encode(text) for text in texts), self._runner.tokens_per_batch * CHUNK_BATCHES):
            windows: list[Window] = []
            owners: list[int] = []
            for number, one in enumerate(chunk):
                cut = reader.windows(one, self._runner.longest)
                if len(cut) > 1 and longest is None:
                    raise ConfigError(
                        f"a text of {len(one.pieces)} pieces is longer than the {self._runner.longest} that this model "
                        f"reads at once, special pieces included; split it or use long='windows' ({one.words[:5]}...)"
                    )
                windows += cut
                owners += [number] * len(cut)
            inputs = [window.inputs for window in windows]
            parts: list[list[Any]] = [[] for _ in chunk]
            if carry is None:
                for index, values in self._runner.hidden(inputs, top=layers == "top"):
                    parts[owners[index]].append((windows[index], values))
            else:
                for index, one in enumerate(inputs):
                    values, carry = self._runner.hidden_next(one, carry, top=layers == "top")
                    parts[owners[index]].append((windows[index], values))
            yield from (finish(one, held) for one, held in zip(chunk, parts))

    def fill_mask(self, text: str, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most probable pieces for every [MASK] in a text.

        Returns:
          for each [MASK] in order, `(piece, probability)` by falling probability; several are filled independently.
        """
        reader = self._need("fill_mask")
        if not 1 <= k <= len(self.tokenizer):
            raise ConfigError(f"k={k} is not between 1 and the {len(self.tokenizer)} pieces of the vocabulary")
        one = reader.encode(text, special=True)
        places = np.flatnonzero(one.ids == self.tokenizer.mask_id)
        if not len(places):
            raise ConfigError("fill_mask needs a text with [MASK] in it, as in 'Paris is the capital of [MASK] .'")
        [window] = self._whole(reader, [one])
        filled = []
        for place in places:
            values = self._runner.masked_distribution(window, int(place) + reader.before)[: len(self.tokenizer)]
            best = np.argsort(-values, kind="stable")[:k]
            filled.append([(self.tokenizer.pieces[i], float(np.exp(values[i]))) for i in best])
        return filled

    def score(self, texts: Text | Sequence[Text], per_token: bool = False) -> np.ndarray:
        """How probable texts are: natural logarithms, float64, one a text.

        A left-to-right model gives the log-probability of all pieces, the first one following the end of another text.
        A biLM gives the log-probability of the words and the closing mark, averaged over its two directions; a word
        outside the vocabulary counts as <UNK>. A masked model gives the pseudo-log-likelihood: the sum over pieces of
        the log-probability of each where it alone is masked (Salazar et al. 2020), one forward row a piece.

        Args:
          texts: as for `embed`.
          per_token: divide by the number of predictions, of which `exp(-score)` is a (pseudo-)perplexity.

        Raises:
          ConfigError: a text over the model's `max_len`, for which this is not defined.
        """
        values = self.log_probs(texts, long="error")
        sums = np.array([found.sum() for found in values])
        return sums / np.array([max(1, len(found)) for found in values]) if per_token else sums

    def log_probs(self, texts: Text | Sequence[Text], long: str = "error") -> list[np.ndarray]:
        """What `score` sums: natural log-probabilities of every piece of each text, float64.

        A biLM has one value more than words: the mean of what its forward half gives to place i + 1 and its backward
        half to place i.

        Args:
          texts: as for `embed`.
          long: texts over the model's `max_len` are an "error"; with "windows" a left-to-right model reads them in
            windows that overlap by half, and takes each piece where most is before it.
        """
        reader = self._need("score")
        _choice("long", long, ("windows", "error"))
        encoded = [reader.encode(text) for text in _texts(texts)]
        if self._predicts == "next" and long == "windows":
            return [values for values, _ in self._windowed(reader, encoded)]
        inputs = self._whole(reader, encoded)
        if reader.stateful:
            marked = [reader.targets(one) for one in encoded]
            return [found.mean(axis=0) for found in self._runner.stream_log_probs(inputs, marked)]
        if self._predicts == "next":
            return self._runner.next_log_probs(inputs)
        return self._pseudo(reader, encoded, inputs)

    def score_next(self, contexts: Sequence[str], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """How probable it is that a text goes on with given words (a left-to-right model).

        Args:
          contexts: of any length; what the model cannot hold at once is read in windows.
          words: one or more words for each, set off by a space.

        Returns:
          natural log-probabilities, float64 [N], and whether every piece is the most probable one, bool [N]; an
          unknown word never is.
        """
        reader = self._need("score_next")
        texts = [f"{context} {word}" for context, word in zip(contexts, words, strict=True)]
        encoded = [reader.encode(text) for text in texts]
        log_probs, best = np.zeros(len(texts)), np.zeros(len(texts), bool)
        for row, (one, found) in enumerate(zip(encoded, self._windowed(reader, encoded))):
            assert one.piece_spans is not None
            new = one.piece_spans[:, 1] > len(contexts[row])
            unknown = one.ids[new] == self.tokenizer.unk_id
            log_probs[row], best[row] = found[0][new].sum(), found[1][new].all() and not unknown.any()
        return log_probs, best

    def _windowed(self, reader: Reader, encoded: list[Encoded]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Log-probabilities of the pieces of texts of any length, left to right, and which are the most probable."""
        cut = [reader.windows(one, self._runner.longest) for one in encoded]
        values = iter(self._runner.next_predictions([window.inputs for windows in cut for window in windows]))
        found = [(np.zeros(len(one.ids)), np.zeros(len(one.ids), bool)) for one in encoded]
        for joined, windows in zip(found, cut):
            parts = [(window, next(values)) for window in windows]
            for window, part in reversed(parts):  # an earlier window has more before each piece
                for whole, piecewise in zip(joined, part):
                    whole[window.start : window.stop] = piecewise
        return found

    def _pseudo(self, reader: Reader, encoded: list[Any], inputs: list[Any]) -> list[np.ndarray]:
        """Log-probability of every piece where it alone is masked."""
        copies, places, targets = [], [], []
        for one, whole in zip(encoded, inputs):
            for place, piece in enumerate(one.ids):
                tokens = whole["tokens"].copy()
                tokens[place + reader.before] = self.tokenizer.mask_id
                copies.append({**whole, "tokens": tokens})
                places.append(place + reader.before)
                targets.append(int(piece))
        values = self._runner.masked_log_probs(copies, places, targets)
        return np.split(values, np.cumsum([len(one.ids) for one in encoded])[:-1])

    def generate(
        self, prompts: Text | Sequence[Text] = "", tokens: int = 50, *, temperature: float = 1.0, top_k: int = 0,
        top_p: float = 1.0, seed: int = 0,
    ) -> list[str]:  # fmt: skip
        """Continue texts from left to right; an empty text starts a new one.

        Args:
          prompts: as for `embed`.
          tokens: pieces to make at most; a text that ends is shorter.
          temperature, top_k, top_p: see `generation.Sampling`; temperature 0 takes the most probable piece.
          seed: of the draws.

        Returns:
          the continuations, without the prompts.
        """
        reader = self._need("generate")
        inputs = self._whole(reader, [reader.encode(text) for text in _texts(prompts)])
        sampling = generation.Sampling(temperature, top_k, top_p)
        ids = [one["tokens"] for one in inputs]
        made = generation.generate(self.model, self.params, ids, tokens, self.tokenizer.end_id, seed, sampling)
        return [self.tokenizer.decode(row) for row in made]

    def _whole(self, reader: Reader, encoded: list[Any]) -> list[Any]:
        """Inputs of texts that must be read in one window."""
        found = []
        for number, one in enumerate(encoded):
            cut = reader.windows(one, self._runner.longest)
            if len(cut) > 1:
                raise ConfigError(
                    f"text {number} has {len(one.pieces)} pieces, and this model reads {self._runner.longest} at once, "
                    "special pieces included; split it"
                )
            found.append(cut[0].inputs)
        return found


def load(
    path: str | os.PathLike[str], step: int | None = None, *, dtype: str = "float32",
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Pretrained | LoadedNGrams:  # fmt: skip
    """Open a model for use.

    Args:
      path: a run folder of ours (or one of its steps), a Hugging Face BERT, GPT or GPT-2 folder (config.json,
        model.safetensors and a vocabulary), an ELMo folder (options.json and HDF5 weights; or the path of those), or an
        n-gram model in an ARPA file.
      step: of a run: which checkpoint; the newest by default.
      dtype: to compute in; parameters are float32.
      tokens_per_batch: bounds the memory of one forward pass.

    Raises:
      ConfigError: none of these, or something in it is wrong, in one sentence.
    """
    published, meta = formats.read(path, step)
    if published.config["name"] == "ngram":
        return LoadedNGrams(published.config, published.params, published.tokenizer, os.fspath(path), meta)
    return Pretrained(published, os.fspath(path), meta, dtype=dtype, tokens_per_batch=tokens_per_batch)


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


def _texts(texts: Any) -> list[Any]:
    """One string is one text; a list of strings is several, a list of lists of words too."""
    if isinstance(texts, str):
        return [texts]
    return list(texts)


def _choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(known)}")


def _list(names: Sequence[str]) -> str:
    return " and ".join(names) or "give its parameters alone"


def _mix_weights(scalars: Sequence[float] | None, count: int, gamma: float) -> np.ndarray:
    """`gamma * softmax(scalars)`, in float32."""
    values = np.zeros(count) if scalars is None else np.asarray(scalars, np.float64)
    if values.shape != (count,):
        raise ConfigError(f"mix= has {values.size} weights, and this model {count} layers, the token layer included")
    values = np.exp(values - values.max())
    return np.asarray(gamma * values / values.sum(), np.float32)
