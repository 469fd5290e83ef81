"""Learning a WordPiece vocabulary from word counts, the same in every process.

The merges are those of Hugging Face's trainer. Left alone it numbers characters in the order of a randomly seeded hash
map, which decides ties; so the alphabet is chosen here and handed over in a fixed order, and the ids are assigned
afterwards: special pieces, then falling frequency in the training text, then code point.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping

from ctxjax.config import ConfigError
from ctxjax.text import basic
from ctxjax.text.wordpiece import CONTINUES, SPECIALS, WordPiece

MAX_WORD = 100  # characters; longer words teach nothing
FED_WORDS = 30_000_000  # words that the trainer is shown; beyond it all counts are scaled down alike
_LINE = 4096  # words handed to the trainer at a time


def count_words(text: str, lowercase: bool, counts: dict[str, int]) -> None:
    """Add the basic tokens of a text to `counts`."""
    found = collections.Counter(basic.runs(text, lowercase))
    for run, count in found.items():
        if run.isascii() and run.isalnum():
            words = [run.lower() if lowercase else run]
        else:
            words = [word.text for word in basic.normalize(run, lowercase)]
        for word in words:
            if len(word) <= MAX_WORD:
                counts[word] = counts.get(word, 0) + count


def learn_pieces(counts: Mapping[str, int], size: int) -> list[str]:
    """The pieces of a vocabulary, in the order of their ids.

    Args:
      counts: basic token -> how often it stands in the training text.
      size: number of pieces, special ones included.

    Raises:
      ConfigError: a size with no room for the characters, or no words.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if not counts:
        raise ConfigError("there is no word to learn a vocabulary from")
    alphabet = _alphabet(counts, size)
    known = set(alphabet)
    usable = {word: count for word, count in counts.items() if all(form in known for form in _forms(word))}
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIALS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*SPECIALS, *sorted(alphabet)],  # fixes the ids of the characters, which decide ties
        continuing_subword_prefix=CONTINUES,
    )
    tokenizer.train_from_iterator(lines(usable), trainer)
    learned = [piece for piece in tokenizer.get_vocab() if piece not in SPECIALS]
    return [*SPECIALS, *_by_frequency(learned, counts)]


def _forms(word: str) -> list[str]:
    return [word[0], *(CONTINUES + char for char in word[1:])]


def _alphabet(counts: Mapping[str, int], size: int) -> list[str]:
    """The most frequent characters, each as it begins or continues a word; at most half the vocabulary or 1,000."""
    room = size - len(SPECIALS)
    if room < 2:
        raise ConfigError(f"a vocabulary of {size} pieces has no room for characters; {len(SPECIALS)} are special")
    forms: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for form in _forms(word):
            forms[form] += count
    ranked = sorted(forms, key=lambda form: (-forms[form], form))
    return ranked[: min(room, max(1000, size // 2))]


def lines(counts: Mapping[str, int]) -> Iterator[str]:
    """The words as often as they were counted (or in proportion), rarest last, so the trainer can count them itself."""
    total = sum(counts.values())
    scale = max(1.0, total / FED_WORDS)
    held: list[str] = []
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        left = max(1, round(counts[word] / scale))
        while left:
            taken = min(left, _LINE - len(held))
            held += [word] * taken
            left -= taken
            if len(held) == _LINE:
                yield " ".join(held)
                held = []
    if held:
        yield " ".join(held)


def _by_frequency(pieces: list[str], counts: Mapping[str, int]) -> list[str]:
    """Pieces by falling frequency in the text as this very vocabulary cuts it, then by code point."""
    draft = WordPiece([*SPECIALS, *sorted(pieces)], lowercase=False, max_word_chars=MAX_WORD)
    seen = [0] * len(draft)
    for word, count in counts.items():
        for piece, _, _ in draft.match(word) or ():
            seen[piece] += count
    return sorted(pieces, key=lambda piece: (-seen[draft.ids[piece]], piece))
