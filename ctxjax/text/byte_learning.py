"""Learning a byte-level BPE vocabulary from counts of pre-tokens, the same in every process.

The merges are those of Hugging Face's trainer, whose ties go by the ids of the two pieces. Those are fixed here: the
bytes in the published order, then merged pieces in the order of their merges. The end of a text comes last.
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Mapping

from ctxjax.config import ConfigError
from ctxjax.text.byte_bpe import END_OF_TEXT, RUNS, byte_characters, pre_tokenizer, repaired
from ctxjax.text.learning import MAX_WORD, lines
from ctxjax.text.table import LIMIT, LONGEST


def count_pretokens(text: str, lowercase: bool, counts: dict[str, int]) -> None:
    """Add the pre-tokens of a text, in printable characters, to `counts`."""
    for run, count in collections.Counter(RUNS.findall(text.lower() if lowercase else text)).items():
        for pretoken in _held(run) if len(run) <= LONGEST else _pretokens(run):
            if len(pretoken) <= MAX_WORD:
                counts[pretoken] = counts.get(pretoken, 0) + count


def _pretokens(run: str) -> list[str]:
    return [pretoken for pretoken, _ in _cutter().pre_tokenize_str(repaired(run))]


_held = functools.lru_cache(LIMIT)(_pretokens)
_cutter = functools.cache(pre_tokenizer)


def learn_pieces(counts: Mapping[str, int], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces of a vocabulary in the order of their ids, and the merges in the order they were learned.

    Args:
      counts: pre-token in printable characters -> how often it stands in the training text.
      size: number of pieces, the bytes and the end of a text included.

    Raises:
      ConfigError: a size with no room for the bytes, or no pre-tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if not counts:
        raise ConfigError("there is no word to learn a vocabulary from")
    alphabet = list(byte_characters().values())
    if size <= len(alphabet):
        raise ConfigError(f"a vocabulary of {size} pieces has no room for {len(alphabet)} bytes and {END_OF_TEXT}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # no printable character is white space
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        min_frequency=2,
        show_progress=False,
        special_tokens=alphabet,  # fixes the ids of the bytes, which decide ties
    )
    tokenizer.train_from_iterator(lines(counts), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(learned["vocab"], key=lambda piece: learned["vocab"][piece])
    return [*pieces, END_OF_TEXT], [(left, right) for left, right in learned["merges"]]
