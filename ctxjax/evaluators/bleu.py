"""BLEU of a translation model: held-out pairs or two files, translated by beam search and compared by sacrebleu.

    python -m ctxjax.evaluate --workdir runs/x --config experiments/transformer/pretrain.py:size=multi30k,bleu \
        --config.source.corpus=DIR --only bleu --config.evals.bleu.source=test.en --config.evals.bleu.target=test.de

The score is of detokenised text, case and all, with sacrebleu's own tokenisation ("13a"), so that it can be compared
with others' (Post 2018, "A Call for Clarity in Reporting BLEU Scores").
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ctxjax import beam_search
from ctxjax.config import ConfigError
from ctxjax.data import parallel
from ctxjax.data.arrays import replace


class Evaluator:
    """Translates pairs, best target each.

    Args:
      split: the split of the corpus whose pairs are translated, where no files are named. Byte-level BPE gives back
        their text as it was; WordPiece loses blanks and perhaps case, so its score is of tokenised text.
      source, target: files instead, line n of one the translation of line n of the other. A model trained with
        `source.reverse` still reads `source`.
      output: a file that the translations go to, one a line.
      pairs: how many, from the beginning; 0 is all.
      beam, alpha: see `beam_search.search`.
      tokens_per_batch: bounds the memory of the search.
      model, objective, open_source, mesh, train_batch_size: given by the run.
    """

    def __init__(
        self,
        split: str = "heldout",
        source: str = "",
        target: str = "",
        output: str = "",
        pairs: int = 0,
        beam: int = 4,
        alpha: float = 0.6,
        tokens_per_batch: int = 8192,
        *,
        model: Any,
        objective: Any,
        open_source: Callable[[str], Any],
        mesh: Any,
        train_batch_size: int,
    ):
        del objective, mesh, train_batch_size
        _sacrebleu()
        if getattr(model, "predicts", "") != "target":
            raise ConfigError("config.evals: bleu needs a model that translates, one whose readout predicts a target")
        if bool(source) != bool(target):
            raise ConfigError("config.evals: bleu needs both source and target, or neither")
        opened = open_source(split)
        self.tokenizer = opened.tokenizer
        if source:
            texts, self.references = parallel.read_texts(source), parallel.read_texts(target)
            if len(texts) != len(self.references):
                raise ConfigError(f"{source} has {len(texts):,} lines and {target} {len(self.references):,}")
            self.sources = [self.tokenizer.encode(text).ids for text in texts]
        else:
            found = [opened.pair(number) for number in range(opened.corpus.num_documents)]
            self.sources = [ids for ids, _ in found]
            self.references = [self.tokenizer.decode(ids) for _, ids in found]
        if pairs:
            self.sources, self.references = self.sources[:pairs], self.references[:pairs]
        if not self.sources:
            raise ConfigError("config.evals: bleu has no pair to translate")
        self.model, self.output, self.beam, self.alpha = model, output, beam, alpha
        self.tokens_per_batch = tokens_per_batch

    def translate(self, params: Any) -> list[str]:
        """The best target of every source."""
        from tqdm import tqdm

        end = self.tokenizer.end_id
        sources = [np.append(ids, end).astype(np.int32) for ids in self.sources]
        made = beam_search.search(
            self.model,
            params,
            sources,
            start=end,
            stop=end,
            beam=self.beam,
            alpha=self.alpha,
            tokens_per_batch=self.tokens_per_batch,
        )
        bar = tqdm(made, "translated", len(sources), file=sys.stderr, disable=None, dynamic_ncols=True)
        best = {index: self.tokenizer.decode(found[0].ids) for index, found in bar}
        return [" ".join(best[index].split("\n")).strip() for index in range(len(sources))]

    def run(self, params: Any) -> dict[str, float]:
        """`bleu`, 0 to 100, and `length_ratio` of the translations to the references."""
        made = self.translate(params)
        if self.output:
            _write(pathlib.Path(self.output), made)
        score = _sacrebleu().corpus_bleu(made, [self.references])
        return {"bleu": float(score.score), "length_ratio": float(score.sys_len / max(1, score.ref_len))}


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise ConfigError("the evaluator bleu needs sacrebleu: pip install 'ctxjax[bleu]'") from None
    return sacrebleu


def _write(path: pathlib.Path, lines: list[str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        replace(part, path)
    except OSError as error:
        raise ConfigError(f"config.evals: bleu cannot write {path} ({error.strerror})") from None
