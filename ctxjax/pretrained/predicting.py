"""What models predict: masked pieces, probabilities of texts, continuations, translations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctxjax import beam_search, generation
from ctxjax.config import ConfigError
from ctxjax.pretrained.opened import Opened, choice, texts_of
from ctxjax.reading import Encoded, Reader, Text


class Predicting(Opened):
    """Models with a softmax over words."""

    def fill_mask(self, text: str, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k most probable pieces for every [MASK] in a text.

        Returns:
          for each [MASK] in order, `(piece, probability)` by falling probability; several are filled independently.
        """
        reader = self.need("fill_mask")
        if not 1 <= k <= len(self.tokenizer):
            raise ConfigError(f"k={k} is not between 1 and the {len(self.tokenizer)} pieces of the vocabulary")
        one = reader.encode(text, special=True)
        places = np.flatnonzero(one.ids == self.tokenizer.mask_id)
        if not len(places):
            raise ConfigError("fill_mask needs a text with [MASK] in it, as in 'Paris is the capital of [MASK] .'")
        [window] = self._whole(reader, [one])
        filled = []
        for place in places:
            values = self.runner.masked_distribution(window, int(place) + reader.before)[: len(self.tokenizer)]
            best = np.argsort(-values, kind="stable")[:k]
            filled.append([(self.tokenizer.pieces[i], float(np.exp(values[i]))) for i in best])
        return filled

    def score(self, texts: Text | Sequence[Text], per_token: bool = False) -> np.ndarray:
        """How probable texts are: natural logarithms, float64, one a text.

        A left-to-right model gives the log-probability of all pieces, the first one following the end of another text;
        one that reads from the end likewise, from the last piece to the first.
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
        reader = self.need("score")
        choice("long", long, ("windows", "error"))
        encoded = [reader.encode(text) for text in texts_of(texts)]
        if self.predicts == "next" and long == "windows":
            return [values for values, _ in self._windowed(reader, encoded)]
        inputs = self._whole(reader, encoded)
        if reader.stateful:
            marked = [reader.targets(one) for one in encoded]
            return [found.mean(axis=0) for found in self.runner.stream_log_probs(inputs, marked)]
        if self.predicts == "next":
            return self.runner.next_log_probs(inputs)
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
        reader = self.need("score_next")
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
        cut = [reader.windows(one, self.runner.longest) for one in encoded]
        values = iter(self.runner.next_predictions([window.inputs for windows in cut for window in windows]))
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
        values = self.runner.masked_log_probs(copies, places, targets)
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
        reader = self.need("generate")
        inputs = self._whole(reader, [reader.encode(text) for text in texts_of(prompts)])
        sampling = generation.Sampling(temperature, top_k, top_p)
        ids = [one["tokens"] for one in inputs]
        made = generation.generate(self.model, self.params, ids, tokens, self.tokenizer.end_id, seed, sampling)
        return [self.tokenizer.decode(row) for row in made]

    def translate(self, texts: Text | Sequence[Text], beam: int = 4, alpha: float = 0.6) -> list[str]:
        """The best target of every text, by beam search.

        Args:
          texts: as for `embed`.
          beam: how many targets are kept on the way; 1 is greedy.
          alpha: of the length penalty; see `beam_search.search`.
        """
        reader, end = self.need("translate"), self.tokenizer.end_id
        sources = [reader.windows(reader.encode(text), None)[0].inputs["tokens"] for text in texts_of(texts)]
        made = beam_search.search(
            self.model, self.params, sources, start=end, stop=end, beam=beam, alpha=alpha,
            tokens_per_batch=self.runner.tokens_per_batch,
        )  # fmt: skip
        best = {index: self.tokenizer.decode(found[0].ids) for index, found in made}
        return [best[index] for index in range(len(sources))]

    def _whole(self, reader: Reader, encoded: list[Any]) -> list[Any]:
        """Inputs of texts that must be read in one window."""
        found = []
        for number, one in enumerate(encoded):
            cut = reader.windows(one, self.runner.longest)
            if len(cut) > 1:
                raise ConfigError(
                    f"text {number} has {len(one.pieces)} pieces, and this model reads {self.runner.longest} at once, "
                    "special pieces included; split it"
                )
            found.append(cut[0].inputs)
        return found
