"""Sense accuracy: hand-made vectors, a static model at the baseline, choosing words by rule."""

import gzip
import json

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.evaluators import senses
from ctxjax.pretrained import Embedded


def write(path, sentences):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for tokens in sentences:
            file.write(json.dumps({"tokens": tokens}) + "\n")
    return str(path)


def tag(word, lemma, number, part="NN"):
    return [word, lemma, part, [["WordNet", "1"], ["WordNet", f"1:0{number}:00::"], ["id", "x"]]]


def sentences_of(lemma, first, second):
    """Occurrences of a word in two senses, told by the word before it."""
    plain = lambda word: [word, word, "DT", []]
    for number, count in ((1, first), (2, second)):
        for i in range(count):
            yield [plain(f"c{number}"), tag(lemma, lemma, number), plain(f"w{i}")]


class Contextual:
    """Layer 0 is the word alone, layer 1 the word before it."""

    kind, path, can = "made", "made", ("embed",)

    def vector(self, word):
        return np.random.default_rng(sum(map(ord, word))).normal(size=6)

    def embed(self, texts):
        found = []
        for words in texts:
            alone = np.stack([self.vector(word) for word in words])
            found.append(Embedded(words, np.stack([alone, np.roll(alone, 1, axis=0)])))
        return found


def test_a_static_layer_is_at_the_baseline_and_context_tells(tmp_path):
    sentences = [*sentences_of("bank", 12, 20), *sentences_of("plant", 30, 10)]
    evaluator = senses.Evaluator(write(tmp_path / "s.jsonl.gz", sentences))
    assert list(evaluator.occurrences) == ["plant.N", "bank.N"]
    found = evaluator.run(Contextual())
    assert found["lemmas"] == 2 and found["occurrences"] == 72
    assert found["most_frequent_sense"] == pytest.approx((30 / 40 + 20 / 32) / 2)
    assert found["accuracy_0"] == pytest.approx(found["most_frequent_sense"])
    assert found["accuracy_1"] == found["accuracy"] == 1.0 and found["best_layer"] == 1
    assert found["apart_1"] > 0.5 and found["apart_0"] == pytest.approx(0.0)


def test_neighbours_by_hand():
    """Four points in two pairs and a fifth that lies with the wrong pair; their mean is the origin."""
    angles = np.radians([0, 10, 110, 125, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors[4] = -vectors[:4].sum(axis=0)
    hits, apart = senses.neighbours(vectors, np.array([0, 0, 1, 1, 0]))
    assert hits == pytest.approx(4 / 5)  # the fifth is nearer to 125 degrees than to 0
    cosine = vectors / np.linalg.norm(vectors, axis=1)[:, None] @ (vectors / np.linalg.norm(vectors, axis=1)[:, None]).T
    within = np.mean([cosine[0, 1], cosine[0, 4], cosine[1, 4], cosine[2, 3]])
    assert apart == pytest.approx(within - cosine[[0, 1, 4]][:, [2, 3]].mean())


def test_words_are_chosen_by_rule(tmp_path):
    three = [*sentences_of("line", 20, 20), [tag("line", "line", 3)]]
    rare = list(sentences_of("rare", 20, 3))
    joined = [[tag("new_york", "new_york", number)] for number in (1, 2) for _ in range(20)]
    path = write(tmp_path / "s.jsonl.gz", [*three, *rare, *joined, *sentences_of("bank", 10, 10)])
    assert list(senses.Evaluator(path).occurrences) == ["bank.N"]
    with pytest.raises(ConfigError, match="no lemma with two senses of 30"):
        senses.Evaluator(path, least=30)


def test_only_words_that_the_training_text_holds(tmp_path):
    from ctxjax.data.corpus import Corpus
    from ctxjax.data.generated import generated_corpus

    corpus = generated_corpus("words")
    word = Corpus(corpus).tokenizer.pieces[3]
    path = write(tmp_path / "s.jsonl.gz", [*sentences_of(word, 10, 10), *sentences_of("bank", 20, 20)])
    evaluator = senses.Evaluator(path, corpus=corpus)
    assert list(evaluator.occurrences) == [f"{word}.N"]
    assert evaluator.counts["bank.N"] == 0 and evaluator.counts[f"{word}.N"] >= 50


def test_broken_files_are_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"tokens": [["a"]]}\n')
    with pytest.raises(ConfigError, match="line 1: expected tokens of"):
        senses.Evaluator(str(tmp_path / "x.jsonl"))
    (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="cannot be read"):
        senses.Evaluator(str(tmp_path / "x.jsonl.gz"))
