"""Word-sense disambiguation of running text by the nearest sense: SemCor teaches, Senseval's all-words tasks test.

The vector of a sense is the mean of those of its occurrences in SemCor, layer by layer; a word has the sense of its
lemma and part of speech that is nearest by cosine. A lemma that SemCor does not have gets the first sense of WordNet,
where the config names its dictionary, and else no answer, which costs recall alone. Scored as the tasks were: precision
over what was answered, recall over all instances for which there is a right sense, F1 of both.

Reference: Peters et al. 2018, section 5.3; Melamud et al. 2016, "context2vec"; Palmer et al. 2001; Snyder and Palmer
2004.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ctxjax.config import ConfigError
from ctxjax.data.senses import CONCEPTS, PARTS, Instance, SenseSentence, read_senses
from ctxjax.evaluators import reading

Lemma = tuple[str, str]  # and its part of speech


class Sense(NamedTuple):
    """A sense of a lemma: its key, its synset in WordNet 3.0 ("" where unknown), and how often it was seen."""

    key: str
    synset: str
    count: int


class Evaluator:
    """F1 of every layer on every test.

    Args:
      train: SemCor as JSON lines; relative to `CTXJAX_DATA`, as the others.
      tests: the all-words tasks in the same layout.
      first_senses: WordNet's `index.sense`, for lemmas that are not in `train`; empty for none.
    """

    needs = "embed"

    def __init__(self, train: str, tests: Sequence[str], first_senses: str = ""):
        self.tests = {
            name.rpartition("/")[2].partition(".")[0]: list(read_senses(reading.existing("evals.tests", name)))
            for name in tests
        }
        wanted = {(one.lemma, one.part) for test in self.tests.values() for one in instances_of(test) if one.keys}
        if not wanted:
            raise ConfigError(f"config.evals.tests={tuple(tests)} have no word with a sense")
        path = reading.existing("evals.train", train)
        self.train = [one for one in read_senses(path) if any(_lemma(word) in wanted for word in one.instances)]
        self.first = _first_senses(reading.existing("evals.first_senses", first_senses)) if first_senses else {}
        counts: dict[Lemma, collections.Counter[tuple[str, str]]] = collections.defaultdict(collections.Counter)
        for word in instances_of(self.train):
            if word.keys and _lemma(word) in wanted:
                counts[_lemma(word)][word.keys[0], (*word.synsets, "")[0]] += 1
        if not counts:
            raise ConfigError(f"{path} has none of the lemmas of config.evals.tests={tuple(tests)}")
        self.known = {
            lemma: [Sense(*sense, count) for sense, count in found.most_common()] for lemma, found in counts.items()
        }

    def run(self, model: Any) -> dict[str, int | float]:
        """For every test TEST_f1_LAYER, TEST_precision, TEST_recall and TEST_f1 of the best layer (by F1 of all tests
        together: best_layer), TEST_most_frequent_sense, TEST_instances, TEST_unknown (lemmas not in train) and
        TEST_without_sense (instances that no sense fits, which are left out)."""
        centres = self._centres(model)
        layers = next(iter(centres.values())).shape[1]
        found: dict[str, int | float] = {}
        rights: dict[str, np.ndarray] = {}
        answered: dict[str, int] = {}
        for name, sentences in self.tests.items():
            words = [word for word in instances_of(sentences) if word.keys]
            told = [self._told(word, vector, centres) for word, vector in _vectors(model, sentences) if word.keys]
            right = [[_fits(sense, word) for sense in senses] for word, senses in zip(words, told) if senses]
            rights[name] = np.sum(right, axis=0) if right else np.zeros(layers)
            answered[name] = len(right)
            usual = [self._usual(word) for word in words]
            hits = sum(_fits(sense, word) for sense, word in zip(usual, words) if sense)
            found[f"{name}_most_frequent_sense"] = _f1(hits, answered[name], len(words))
            found[f"{name}_instances"] = len(words)
            found[f"{name}_unknown"] = sum(_lemma(word) not in self.known for word in words)
            found[f"{name}_without_sense"] = sum(not word.keys for word in instances_of(sentences))
            for layer, value in enumerate(rights[name]):
                found[f"{name}_f1_{layer}"] = _f1(value, answered[name], len(words))
        best = int(np.sum(list(rights.values()), axis=0).argmax())
        for name, right in rights.items():
            found[f"{name}_f1"] = found[f"{name}_f1_{best}"]
            found[f"{name}_precision"] = float(right[best] / max(1, answered[name]))
            found[f"{name}_recall"] = float(right[best] / int(found[f"{name}_instances"]))
        return found | {"best_layer": best}

    def _centres(self, model: Any) -> dict[Lemma, Float[np.ndarray, "S L D"]]:
        """The unit vector of every sense of a lemma, in the order of `known`."""
        sums: dict[Lemma, np.ndarray] = {}
        places = {lemma: {sense.key: n for n, sense in enumerate(senses)} for lemma, senses in self.known.items()}
        for part in reading.with_bar(self.train, "senses"):
            for word, vector in _vectors(model, part):
                if word.keys and (lemma := _lemma(word)) in places:
                    if lemma not in sums:
                        sums[lemma] = np.zeros((len(places[lemma]), *vector.shape), np.float32)
                    sums[lemma][places[lemma][word.keys[0]]] += vector
        return {lemma: _unit(total) for lemma, total in sums.items()}

    def _told(self, word: Instance, vector: Float[np.ndarray, "L D"], centres: dict[Lemma, np.ndarray]) -> list[Sense]:
        """The sense by each layer; nothing where there is no answer."""
        lemma = _lemma(word)
        if lemma not in centres:
            return [self.first[lemma]] * len(vector) if lemma in self.first else []
        cosines = np.einsum("sld,ld->sl", centres[lemma], _unit(vector))
        return [self.known[lemma][sense] for sense in cosines.argmax(0)]  # of equals the most frequent

    def _usual(self, word: Instance) -> Sense | None:
        lemma = _lemma(word)
        return self.known[lemma][0] if lemma in self.known else self.first.get(lemma)


def instances_of(sentences: Iterable[SenseSentence]) -> Iterator[Instance]:
    """Every word with a sense, in order."""
    return (word for one in sentences for word in one.instances)


def _lemma(word: Instance) -> Lemma:
    return word.lemma, word.part


def _fits(sense: Sense, word: Instance) -> bool:
    """By synset, where both have one of the same WordNet, else by key."""
    return sense.key in word.keys or bool(sense.synset and sense.synset in word.synsets)


def _f1(right: Any, answered: int, there: int) -> float:
    return float(2 * right / (answered + there)) if answered + there else 0.0


def _unit(vectors: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


def _vectors(model: Any, sentences: Sequence[SenseSentence]) -> Iterator[tuple[Instance, Float[np.ndarray, "L D"]]]:
    """Every instance with its vector by layer, the mean of its words."""
    told = model.stream([list(one.words) for one in sentences])
    for one, found in zip(sentences, told):
        for word in one.instances:
            yield word, found.layers[:, word.first : word.last].mean(1)


def _first_senses(path: pathlib.Path) -> dict[Lemma, Sense]:
    """The first sense of every lemma of WordNet 3.0, by its `index.sense`: key, offset, number of the sense, count."""
    found: dict[Lemma, Sense] = {}
    for number, line in reading.lines(path):
        fields = line.split()
        lemma, percent, key = fields[0].partition("%")
        if len(fields) != 4 or not percent or key.count(":") != 4 or not fields[2].isdigit():
            raise ConfigError(f"{path}, line {number}: expected lemma%key, offset, sense number and count")
        part = PARTS[key[0]]
        if int(fields[2]) == 1 or (lemma, part) not in found:  # satellites (5) are numbered with adjectives (3)
            found[lemma, part] = Sense(key, f"{CONCEPTS}{fields[1]}-{part}", 0)
    return found
