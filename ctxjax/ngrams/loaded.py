"""What `ctxjax.load` gives for an n-gram model: scores and samples, and no vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.ngrams.model import NGrams

Text = str | Sequence[str]


class LoadedNGrams:
    """An n-gram model with its tokenizer.

    Attributes:
      config: the `model` sub-dict of a config. model: the tables and how to read them. tokenizer: text to ids.
      params: the tables by path name. meta: meta.json of a run of ours; empty for an ARPA file.
    """

    can = ("score", "score_next", "generate")
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        config: Mapping[str, Any],
        tables: Mapping[str, np.ndarray],
        tokenizer: Any,
        path: str,
        meta: Mapping[str, Any] | None = None,
    ):
        self.config, self.params, self.tokenizer = dict(config), dict(tables), tokenizer
        self.path, self.meta = path, dict(meta or {})
        order, smoothing, k = (self.config[name] for name in ("order", "smoothing", "k"))
        self.model = NGrams(tables, len(tokenizer), order, *marks(tokenizer), smoothing, k)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size:,} {n}-grams" for n, size in enumerate(self.model.sizes, start=1))
        return f"<ngram {self.path!r}: {sizes}; it can {' and '.join(self.can)}>"

    @property
    def kind(self) -> str:
        """Always "ngram"."""
        return "ngram"

    def log_probs(self, texts: Text | Sequence[Text], long: str = "windows") -> list[np.ndarray]:
        """Natural log-probability of every piece of each text and of its end, float64; a text is one sentence."""
        del long  # a text of any length is read as it is
        texts = [texts] if isinstance(texts, str) else texts
        encoded = [
            self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode_words(text)
            for text in texts
        ]
        return self.model.log_probs([np.asarray(one.ids) for one in encoded])

    def score(self, texts: Text | Sequence[Text], per_token: bool = False) -> np.ndarray:
        """How probable texts are as sentences: natural logarithms, float64, one a text, the end of each included.

        A word outside the vocabulary counts as <UNK>.

        Args:
          texts: each a string, or a list of words.
          per_token: divide by the number of predictions, of which `exp(-score)` is a perplexity.
        """
        found = self.log_probs(texts)
        return np.array([one.mean() if per_token else one.sum() for one in found])

    def score_next(self, contexts: Sequence[str], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """How probable it is that a sentence goes on with given words.

        Returns:
          natural log-probabilities, float64 [N], and whether every piece is the most probable one, bool [N]; an
          unknown word never is.
        """
        log_probs, best = np.zeros(len(contexts)), np.zeros(len(contexts), bool)
        for row, (context, word) in enumerate(zip(contexts, words, strict=True)):
            one = self.tokenizer.encode(f"{context} {word}")
            new = int((one.offsets[:, 1] <= len(context)).sum())
            ids, hits = one.ids.tolist(), []
            for place in range(new, len(ids)):
                values = self.model.next_log_probs([self.model.bos, *ids[:place]])
                log_probs[row] += values[ids[place]]
                hits.append(bool(values[ids[place]] >= values.max()))
            best[row] = all(hits) and self.tokenizer.unk_id not in ids[new:]
        return log_probs, best

    def generate(
        self, prompts: Text | Sequence[Text] = "", tokens: int = 50, *, temperature: float = 1.0, seed: int = 0
    ) -> list[str]:
        """Continue sentences from left to right; an empty one starts anew.

        Args:
          prompts: as for `score`.
          tokens: pieces to make at most; a sentence that ends is shorter.
          temperature: 0 takes the most probable piece.
          seed: of the draws.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        made = []
        for number, text in enumerate(prompts):
            encode = self.tokenizer.encode if isinstance(text, str) else self.tokenizer.encode_words
            context = np.asarray(encode(text).ids).tolist()
            rng = np.random.default_rng((seed, number))
            try:
                made.append(self.tokenizer.decode(self.model.sample(context, tokens, rng, temperature)))
            except ValueError as error:
                raise ConfigError(f"prompt {number} cannot be continued: {error}; smooth the counts") from None
        return made

    def embed(self, *args: Any, **kwargs: Any) -> Any:
        """An n-gram model has no vectors."""
        raise ConfigError(f"{self.path} cannot embed: n-grams have counts and no vectors; it can score, generate")

    def fill_mask(self, *args: Any, **kwargs: Any) -> Any:
        """An n-gram model has no masked position."""
        raise ConfigError(f"{self.path} cannot fill_mask: it predicts from the left alone; it can score, generate")


def marks(tokenizer: Any) -> tuple[int, int]:
    """The ids that stand before and behind a sentence: sentence marks, or [CLS] and [SEP].

    Raises:
      ConfigError: a tokenizer that has one mark for both.
    """
    for name in ("bos_id", "cls_id"):
        if hasattr(tokenizer, name):
            return getattr(tokenizer, name), tokenizer.end_id
    raise ConfigError(
        f"{tokenizer.kind} has one mark between texts, and an n-gram model needs two; prepare the corpus with "
        "--tokenizer words or wordpiece"
    )
