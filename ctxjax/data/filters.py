"""Which documents are good enough: published rules, each a threshold of its own, off unless it is given.

A rule sees the clean text of a whole document, and what it rejects is counted under its name in the manifest.
Words are what blanks separate.

References: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix
A.1.1 (quality, repetition); Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", section 2.2 (C4).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from ctxjax.config import ConfigError

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))  # Gopher's
_BULLETS = ("-", "*", "\u2022", "\u2023", "\u25e6", "\u25aa", "\u25cf", "\u00b7")
_SENTENCE_ENDS = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)]*(?=\s|$)")
_LETTER = re.compile(r"[^\W\d_]")
_SEEN = 4000  # characters by which the language is told


@dataclasses.dataclass(frozen=True)
class Filters:
    """The rules; a field that is None is off.

    Attributes:
      min_words, max_words: words of a document (Gopher: 50 and 100,000).
      min_mean_word, max_mean_word: characters of a word on average (Gopher: 3 and 10).
      max_symbols: hash signs, or ellipses, for each word (Gopher: 0.1).
      max_bullets: share of the lines that begin with a bullet (Gopher: 0.9).
      max_ellipses: share of the lines that end with an ellipsis (Gopher: 0.3).
      min_letters: share of the words that have a letter (Gopher: 0.8).
      min_stop_words: different words among the, be, to, of, and, that, have, with (Gopher: 2; English alone).
      max_repeated_lines: share of the lines that stood before in the document (Gopher: 0.3).
      max_repeated_trigrams: share of the characters in words of trigrams that stood before (Gopher's rule for longer
        n-grams is of this form: 0.15 for 5, 0.10 for 10).
      min_sentences: ends of sentences (C4: 5; counted as . ! ? and their kin before a blank).
      no_code: no curly bracket and no "lorem ipsum" (C4).
      language: ISO 639-1 codes of the languages that are kept, as py3langid tells them from the beginning.
    """

    min_words: int | None = None
    max_words: int | None = None
    min_mean_word: float | int | None = None
    max_mean_word: float | int | None = None
    max_symbols: float | int | None = None
    max_bullets: float | int | None = None
    max_ellipses: float | int | None = None
    min_letters: float | int | None = None
    min_stop_words: int | None = None
    max_repeated_lines: float | int | None = None
    max_repeated_trigrams: float | int | None = None
    min_sentences: int | None = None
    no_code: bool | None = None
    language: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if isinstance(value, (int, float)) and not value >= 0:
                raise ConfigError(f"--{name} {value} is negative")
        if self.language:
            known = _languages()
            for code in self.language:
                if code not in known:
                    raise ConfigError(f"--language {code} is none of {', '.join(sorted(known))}")

    def given(self) -> dict[str, Any]:
        """The rules that are on, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None and value is not False}

    def rejects(self, text: str) -> str | None:
        """The reason of the first rule that a document breaks, as it is counted; None where it breaks none."""
        given = self.given()
        if not given:
            return None
        words, lines = text.split(), [line for line in map(str.strip, text.split("\n")) if line]
        for name, value in given.items():
            if not _RULES[name](text, words, lines, value):
                return reason(name)
        return None


def reason(name: str) -> str:
    """What stands in the manifest for a rule."""
    return f"documents rejected by {name}"


REASONS = tuple(reason(field.name) for field in dataclasses.fields(Filters))


def _symbols(text: str, words: Sequence[str]) -> float:
    ellipses = text.count("...") + text.count("\u2026")
    return max(text.count("#"), ellipses) / max(1, len(words))


def _share(found: int, things: Sequence[Any]) -> float:
    return found / max(1, len(things))


def _repeated_trigrams(words: Sequence[str]) -> float:
    """The share of characters in words of trigrams that stood before, each character counted once."""
    trigrams = list(zip(words, words[1:], words[2:]))
    numbers = collections.Counter(trigrams)
    if len(numbers) == len(trigrams):
        return 0.0
    covered: set[int] = set()
    seen: set[tuple[str, ...]] = set()
    for place, trigram in enumerate(trigrams):
        if trigram in seen:
            covered.update((place, place + 1, place + 2))
        seen.add(trigram)
    return sum(len(words[place]) for place in covered) / sum(map(len, words))


def _mean(words: Sequence[str]) -> float:
    return sum(map(len, words)) / max(1, len(words))


def _begin_with_bullets(lines: Sequence[str]) -> float:
    return _share(sum(line.startswith(_BULLETS) for line in lines), lines)


def _end_with_ellipses(lines: Sequence[str]) -> float:
    return _share(sum(line.endswith(("...", "\u2026")) for line in lines), lines)


def _is_prose(text: str) -> bool:
    return "{" not in text and "}" not in text and "lorem ipsum" not in text.lower()


_RULES: dict[str, Callable[[str, Sequence[str], Sequence[str], Any], bool]] = {
    "min_words": lambda text, words, lines, value: len(words) >= value,
    "max_words": lambda text, words, lines, value: len(words) <= value,
    "min_mean_word": lambda text, words, lines, value: _mean(words) >= value,
    "max_mean_word": lambda text, words, lines, value: _mean(words) <= value,
    "max_symbols": lambda text, words, lines, value: _symbols(text, words) <= value,
    "max_bullets": lambda text, words, lines, value: _begin_with_bullets(lines) <= value,
    "max_ellipses": lambda text, words, lines, value: _end_with_ellipses(lines) <= value,
    "min_letters": lambda text, words, lines, value: _share(sum(map(bool, map(_LETTER.search, words))), words) >= value,
    "min_stop_words": lambda text, words, lines, value: len(STOP_WORDS & set(map(str.lower, words))) >= value,
    "max_repeated_lines": lambda text, words, lines, value: _share(len(lines) - len(set(lines)), lines) <= value,
    "max_repeated_trigrams": lambda text, words, lines, value: _repeated_trigrams(words) <= value,
    "min_sentences": lambda text, words, lines, value: len(_SENTENCE_ENDS.findall(text)) >= value,
    "no_code": lambda text, words, lines, value: _is_prose(text),
    "language": lambda text, words, lines, value: _identifier().classify(text[:_SEEN])[0] in value,
}


@functools.cache
def _identifier() -> Any:
    try:
        import py3langid
    except ImportError:
        raise ConfigError("--language needs py3langid; pip install 'ctxjax[language]'") from None
    return py3langid


def _languages() -> set[str]:
    return {code for code, _ in _identifier().rank("text")}
