"""A trained model in a notebook: `ctxjax.load(path)` opens a run of ours or published weights, on any device, no mesh.

    model = ctxjax.load("runs/bert")
    for text in model.embed(["He sat by the river bank .", "The bank lent him money ."]):
        print(text.words, text.layers.shape)

See docs/pretrained.md.
"""

from __future__ import annotations

import os

from ctxjax import formats
from ctxjax.inference import TOKENS_PER_BATCH
from ctxjax.ngrams.loaded import LoadedNGrams
from ctxjax.pretrained.embedding import Embedded
from ctxjax.pretrained.lookup import Lookup
from ctxjax.pretrained.predicting import Predicting

__all__ = ["Embedded", "Pretrained", "load"]


class Pretrained(Lookup, Predicting):
    """A model opened by `load`: see `opened.py` for what it holds, the other files for what it does."""


def load(
    path: str | os.PathLike[str], step: int | None = None, *, dtype: str = "float32",
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Pretrained | LoadedNGrams:  # fmt: skip
    """Open a model for use.

    Args:
      path: a run folder of ours (or one of its steps), a Hugging Face BERT, GPT or GPT-2 folder (config.json,
        model.safetensors and a vocabulary), an ELMo folder (options.json and HDF5 weights; or the path of those), an
        n-gram model in an ARPA file, or a file of word vectors (word2vec .bin or .txt, GloVe .txt, fastText .bin or
        .vec).
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
