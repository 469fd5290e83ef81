"""One word, two senses: does the nearest other occurrence of a word, by its vector, have the same sense?

A static model has one vector for both, and can do no better than the word's most frequent sense. Words are chosen by
rule: the lemmas that SemCor attests in exactly two senses, the most frequent ones first. An occurrence is classified by
its nearest neighbour among the other occurrences of the lemma (cosine, after subtracting their mean), layer by layer.

Reference: Miller et al. 1993, "A Semantic Concordance" (SemCor); the nearest-neighbour test of Peters et al. 2018,
section 5.3, with single occurrences in place of averages.
"""

from __future__ import annotations

import collections
import gzip
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ctxjax.config import ConfigError
from ctxjax.evaluators import reading


class Occurrence(NamedTuple):
    """A word in its sentence, and the number of its sense (0 is the more frequent one)."""

    words: tuple[str, ...]
    place: int
    sense: int


class Evaluator:
    """Sense accuracy by nearest neighbour, and how far apart the senses are.

    Args:
      tagged: SemCor as JSON lines (`.gz` too), a sentence a record: `tokens` of [word, lemma, part of speech, senses];
        relative to `CTXJAX_DATA`.
      lemmas: how many, the most frequent first.
      least: occurrences that each of the two senses must have.
      corpus: a corpus prepared with a word vocabulary, the text that models were trained on; a lemma whose two senses
        together are seen there less than `seen` times, in any of its forms, is passed over. Empty passes over none.
      seen: see `corpus`.
    """

    needs = "embed"

    def __init__(self, tagged: str, lemmas: int = 40, least: int = 10, corpus: str = "", seen: int = 50):
        path = reading.existing("evals.tagged", tagged)
        counts = word_counts(corpus) if corpus else None
        self.counts: dict[str, int] = {}  # of each chosen lemma's forms in the corpus
        self.occurrences: dict[str, list[Occurrence]] = {}
        for lemma, found in _two_senses(path, least):
            forms = {one.words[one.place].lower() for one in found}
            if counts is not None:
                self.counts[lemma] = sum(counts[form] for form in forms)
                if self.counts[lemma] < seen:
                    continue
            self.occurrences[lemma] = found
            if len(self.occurrences) == lemmas:
                break
        if not self.occurrences:
            raise ConfigError(f"{path} has no lemma with two senses of {least} occurrences that the corpus holds too")

    def run(self, model: Any) -> dict[str, int | float]:
        """For each layer `accuracy_N` and `apart_N` (mean cosine within a sense less that between the two); `accuracy`
        and `best_layer` of the best one; `most_frequent_sense`, the baseline, guessed from the other occurrences;
        lemmas, occurrences."""
        accuracy: list[np.ndarray] = []
        apart: list[np.ndarray] = []
        baseline: list[float] = []
        for _, found in zip(reading.with_bar(list(self.occurrences), "senses", 1), self.occurrences.values()):
            vectors = _vectors(model, found)
            labels = np.array([one.sense for one in found])
            results = [neighbours(layer, labels) for layer in vectors]
            accuracy.append(np.array([hits for hits, _ in results]))
            apart.append(np.array([distance for _, distance in results]))
            baseline.append(float(_majority(labels).mean()))
        means = np.mean(accuracy, axis=0)
        found_all: dict[str, int | float] = {
            "accuracy": float(means.max()),
            "best_layer": int(means.argmax()),
            "most_frequent_sense": float(np.mean(baseline)),
            "lemmas": len(self.occurrences),
            "occurrences": sum(map(len, self.occurrences.values())),
        }
        for layer, (value, distance) in enumerate(zip(means, np.mean(apart, axis=0))):
            found_all |= {f"accuracy_{layer}": float(value), f"apart_{layer}": float(distance)}
        return found_all


def _vectors(model: Any, found: Sequence[Occurrence]) -> Float[np.ndarray, "L N D"]:
    """The vector of the word in every occurrence, layer by layer, narrower layers filled up with zeros."""
    rows = [text.layers[:, one.place] for one, text in zip(found, model.embed([list(one.words) for one in found]))]
    return np.stack(rows, axis=1).astype(np.float64)


def neighbours(vectors: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"]) -> tuple[float, float]:
    """Share of occurrences whose nearest other one has their sense, and mean cosine within less between senses.

    Where several are equally near, as all are for a static vector, they vote; a tied vote counts half.
    """
    centred = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    rows = np.where(norms > 1e-9 * np.abs(vectors).max(initial=1e-30), centred / np.maximum(norms, 1e-30), 0.0)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines >= cosines.max(axis=1, keepdims=True) - 1e-9
    votes = (nearest * np.where(labels == 1, 1, -1)[None, :]).sum(axis=1)
    right = np.where(votes == 0, 0.5, (votes > 0) == (labels == 1))
    same = labels[:, None] == labels[None, :]
    off = ~np.eye(len(labels), dtype=bool)
    apart = float(cosines[same & off].mean() - cosines[~same].mean())
    return float(right.mean()), apart


def _majority(labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Whether the majority of the others is right about each; a tie counts half."""
    others = labels.sum() - labels
    half = (len(labels) - 1) / 2
    return np.where(others == half, 0.5, (others > half) == (labels == 1)).astype(np.float64)


def _two_senses(path: pathlib.Path, least: int) -> Iterator[tuple[str, list[Occurrence]]]:
    """Lemmas with exactly two senses, by falling frequency, and their occurrences."""
    found: dict[tuple[str, str], list[tuple[tuple[str, ...], int, str]]] = collections.defaultdict(list)
    for number, record in _sentences(path):
        try:
            words = tuple(str(token[0]) for token in record["tokens"])
            for place, (word, lemma, tag, senses) in enumerate(record["tokens"]):
                keys = [sense[1] for sense in senses if sense[1].count(":") == 4]
                if keys and "_" not in word:  # several words in one token are no word of a tokenizer
                    found[lemma, tag[:1]].append((words, place, keys[0]))
        except (TypeError, ValueError, IndexError, KeyError):
            raise ConfigError(f"{path}, line {number}: expected tokens of [word, lemma, tag, senses]") from None
    chosen = []
    for (lemma, tag), those in found.items():
        senses = collections.Counter(key for _, _, key in those).most_common()
        if len(senses) == 2 and senses[1][1] >= least:
            numbers = {key: sense for sense, (key, _) in enumerate(senses)}
            chosen.append((f"{lemma}.{tag}", [Occurrence(words, place, numbers[key]) for words, place, key in those]))
    yield from sorted(chosen, key=lambda item: (-len(item[1]), item[0]))


def _sentences(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, reading.record_of(line, f"{path}, line {number}", ("tokens",))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None


def word_counts(corpus: str) -> collections.Counter[str]:
    """How often each word of a prepared corpus of words stands in its training split, in lower case."""
    from ctxjax.data.corpus import Corpus

    opened = Corpus(corpus)
    if opened.manifest["tokenizer"]["kind"] != "words":
        raise ConfigError(f"config.evals.corpus={corpus!r} was not prepared with --tokenizer words")
    counts = np.zeros(len(opened.tokenizer), np.int64)
    for start in range(0, opened.num_tokens, 1 << 20):
        tokens, _ = opened.read_tokens(start, min(opened.num_tokens, start + (1 << 20)))
        counts += np.bincount(tokens, minlength=len(counts))
    found: collections.Counter[str] = collections.Counter()
    for word, count in zip(opened.tokenizer.pieces, counts.tolist()):
        found[word.lower()] += count
    return found
