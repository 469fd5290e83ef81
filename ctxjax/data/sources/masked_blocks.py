"""Rows for masked models without next-sentence prediction: blocks of running text, documents joined, pieces masked.

Nothing of a row is padding. Masks are dynamic: a function of (seed, row), whatever the order in which rows come.
Reference: Liu et al. 2019, "RoBERTa" (FULL-SENTENCES); Wettig et al. 2023, "Should You Mask 15% in Masked Language
Modeling?".
"""

from __future__ import annotations

import os
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ctxjax.config import ConfigError
from ctxjax.data import draws, pipeline
from ctxjax.data.sources import blocks
from ctxjax.data.transforms.masking import mask_rows


class Source:
    """Blocks `[CLS] pieces ... [SEP] pieces ...` of a prepared corpus of word pieces.

    Row (T = `length`; P = the share `mask_prob` of it): inputs {tokens [T]}, target_positions [P], targets [P],
    weights [P]. [CLS] and the [SEP] between documents are never masked.

    With `isolate` the documents of a row do not see one another: inputs also has pack_ids [T], which number them, and
    positions [T], which begin again in each. [CLS] belongs to the first, a [SEP] to the document before it.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] = "",
        split: str = "train",
        length: int = 512,
        mask_prob: float = 0.3,
        verify: bool = False,
        isolate: bool = False,
    ):
        """Open the corpus; indexes are built when they are first needed.

        Args:
          corpus: what `python -m ctxjax.prepare --output` wrote, with a WordPiece vocabulary.
          split: "train" or "heldout".
          length: pieces of a row, [CLS] included.
          mask_prob: share of the positions that is predicted; 80 % of them masked, 10 % replaced, 10 % kept.
          verify: compare the digests of the shards before use, and not only of each part when it is read.
          isolate: keep the documents of a row apart.

        Raises:
          ConfigError: no such corpus or split, one without a mask piece, or an impossible field.
        """
        if length < 2 or not 0 < mask_prob < 1:
            raise ConfigError(f"config.source needs length >= 2 and 0 < mask_prob < 1, not {length} and {mask_prob}")
        self._running = blocks.Source(corpus, split, length - 1, verify, isolate)
        kind = self._running.corpus.manifest["tokenizer"]["kind"]
        if kind != "wordpiece":
            raise ConfigError(
                f"config.source.corpus={os.fspath(corpus)!r} holds {kind} pieces, none of which is a mask; prepare it "
                "with --tokenizer wordpiece"
            )
        self.length, self.mask_prob = length, mask_prob
        self.max_predictions = max(1, round(length * mask_prob))

    @property
    def corpus(self) -> Any:
        """The corpus."""
        return self._running.corpus

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the corpus."""
        return self._running.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return self._running.vocab_size

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows beside seed and batch size."""
        return {**self._running.fingerprint, "source": "masked_blocks", "mask_prob": self.mask_prob}

    @property
    def tokens_per_row(self) -> int:
        """All positions of a row are tokens."""
        return self.length

    def steps_per_pass(self, batch_size: int) -> int:
        """Steps until every block was read once; what is left of a pass is in the first batch of the next."""
        return self._running.steps_per_pass(batch_size)

    def rows(self, seed: int, batch_size: int) -> grain.MapDataset:
        """Single rows, endless; element s * batch_size + i is row i of step s (here whatever `batch_size` is)."""
        return pipeline.rows_of(self, seed, batch_size)

    def batch(self, seed: int, batch_size: int, elements: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Some elements of `rows`, made together."""
        running = self._running.batch(seed, batch_size, elements)["inputs"]
        text = running["tokens"]
        tokens = np.concatenate([np.full((len(text), 1), self.tokenizer.cls_id, np.int32), text], axis=1)
        masked = mask_rows(
            tokens,
            np.full(len(tokens), self.length),
            (tokens != self.tokenizer.cls_id) & (tokens != self.tokenizer.sep_id),
            draws.bits(draws.key("mask", seed), elements),
            vocab_size=self.vocab_size,
            mask_id=self.tokenizer.mask_id,
            max_predictions=self.max_predictions,
            mask_prob=self.mask_prob,
        )
        inputs = {"tokens": masked.tokens}
        if "pack_ids" in running:
            documents = running["pack_ids"]
            inputs |= blocks.apart(np.concatenate([documents[:, :1], documents], axis=1))
        batch = {"inputs": inputs, "target_positions": masked.positions}
        return batch | {"targets": masked.targets, "weights": masked.weights}


def example() -> Source:
    """A small source on generated text."""
    from ctxjax.data.generated import generated_corpus

    return Source(generated_corpus("wordpiece"), length=32)
