"""Learning a BPE vocabulary of characters from word counts, the same in every process.

The merges are those of Hugging Face's trainer, whose ties go by the ids of the two pieces. Those are fixed here, in the
order of the released vocabulary: `<unk>`, the characters by falling frequency and then code point, the same as they end
a word, merged pieces in the order of their merges, the line break.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping

from ctxjax.config import ConfigError
from ctxjax.text.bpe import ELLIPSIS, END_OF_WORD, LINE_BREAK, UNKNOWN
from ctxjax.text.learning import lines


def learn_pieces(counts: Mapping[str, int], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces of a vocabulary in the order of their ids, and the merges in the order they were learned.

    Args:
      counts: basic token -> how often it stands in the training text, its signs made plain.
      size: number of pieces, `<unk>` and the line break included.

    Raises:
      ConfigError: a size with no room for characters, or no words.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if not counts:
        raise ConfigError("there is no word to learn a vocabulary from")
    if ELLIPSIS in counts:
        counts = {word: n for word, n in counts.items() if word != ELLIPSIS} | {"...": counts[ELLIPSIS]}
    characters = _alphabet(counts, size)
    known = set(characters)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # a basic token has no white space in it
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        min_frequency=2,
        show_progress=False,
        special_tokens=[UNKNOWN, *characters, *(char + END_OF_WORD for char in characters)],  # fixes their ids
        end_of_word_suffix=END_OF_WORD,
    )
    tokenizer.train_from_iterator(lines({word: n for word, n in counts.items() if known.issuperset(word)}), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(learned["vocab"], key=lambda piece: learned["vocab"][piece])
    return [*pieces, LINE_BREAK], [(left, right) for left, right in learned["merges"]]


def _alphabet(counts: Mapping[str, int], size: int) -> list[str]:
    """The most frequent characters; with and without the mark they take at most half the vocabulary or 1,000 pieces."""
    room = size - 2
    if room < 2:
        raise ConfigError(
            f"a vocabulary of {size} pieces has no room for characters beside {UNKNOWN} and the line break"
        )
    seen: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for char in word:
            seen[char] += count
    usable = [char for char in seen if not "\ud800" <= char <= "\udfff"]
    return sorted(usable, key=lambda char: (-seen[char], char))[: min(room, max(1000, size // 2)) // 2]
