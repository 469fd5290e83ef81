"""Evaluators of a suite on models whose answers are known, against hand-made cases, gensim and scipy."""

import io
import itertools
import json
import tarfile
import types

import numpy as np
import pytest

import ctxjax
from ctxjax import evaluate, suite
from ctxjax.config import ConfigError
from ctxjax.evaluators import analogies, blimp, lambada, perplexity, similarity, words
from ctxjax.pretrained import Embedded
from ctxjax.text.words import Words
from tests.interop.making import gpt2_run

WORDS = ["king", "queen", "man", "woman", "paris", "france", "rome", "italy", "walk", "walked", "go", "went"]


class Static:
    """Stands for a model of static vectors: words it knows, a vector each."""

    kind, path, can = "static", "static", ("embed",)

    def __init__(self, table):
        self.tokenizer = Words(["<S>", "</S>", "<UNK>", *table])
        self.table, self.config = table, {"name": "static"}

    def embed(self, texts):
        return [Embedded(text, np.stack([self.table[word] for word in text])[None]) for text in texts]


@pytest.fixture(scope="module")
def static():
    rng = np.random.default_rng(0)
    table = {word: rng.normal(size=8) for word in WORDS}
    table["queen"] = table["king"] - table["man"] + table["woman"]
    table["italy"] = table["france"] - table["paris"] + table["rome"] + 0.01 * rng.normal(size=8)
    return Static(table)


def file_of(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_analogies_by_hand(static, tmp_path):
    questions = [
        ": family", "man king woman queen", "Paris France Rome Italy",
        ": gram1-tense", "walk walked go went", "walk walked run ran",
    ]  # fmt: skip
    evaluator = analogies.Evaluator(file_of(tmp_path / "q.txt", questions))
    found = evaluator.run(static)
    assert found["questions"] == 4 and found["unknown"] == 1
    assert found["semantic_add"] == 1.0 and found["add"] >= 2 / 3
    assert found["add_total"] == pytest.approx(found["add"] * 3 / 4)


def test_analogies_are_gensims(tmp_path):
    models = pytest.importorskip("gensim.models")
    rng = np.random.default_rng(1)
    names = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    table = {name: rng.normal(size=5) for name in names}
    rows = [rng.permutation(names)[:4] for _ in range(300)]
    lines = [": first", *(" ".join(row) for row in rows)]
    # Some that come out right: the answer is made from the question.
    for row in rows[:150]:
        table[row[3]] = table[row[1]] / np.linalg.norm(table[row[1]]) - table[row[0]] / np.linalg.norm(table[row[0]])
        table[row[3]] += table[row[2]] / np.linalg.norm(table[row[2]])
    path = file_of(tmp_path / "q.txt", lines)
    vectors = models.KeyedVectors(5)
    vectors.add_vectors(names, np.stack([table[name] for name in names]).astype(np.float32))
    expected, _ = vectors.evaluate_word_analogies(path, case_insensitive=False)
    found = analogies.Evaluator(path, lowercase=False).run(Static(table))
    assert 0.05 < expected < 0.95 and found["add"] == pytest.approx(expected)


def test_3cosmul_by_hand(static):
    table = words.unit(np.random.default_rng(2).normal(size=(20, 6)).astype(np.float32))
    questions = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    expected = []
    for a, b, c, d in questions:
        best = max(
            (i for i in range(20) if i not in (a, b, c)),
            key=lambda i: (
                (1 + table[i] @ table[b]) / 2 * (1 + table[i] @ table[c]) / 2 / ((1 + table[i] @ table[a]) / 2 + 0.001)
            ),
        )
        expected.append(best == d)
        questions[len(expected) - 1, 3] = best
    assert analogies._answer(table, questions)[:, 1].all()


def test_similarity_is_scipys(static, tmp_path):
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    pairs = [(*pair, float(rng.random())) for pair in itertools.combinations(WORDS, 2)][:30]
    lines = [f"{one}\t{two}\t{score}" for one, two, score in pairs]
    found = similarity.Evaluator(file_of(tmp_path / "s.txt", [*lines, "king\tunheard\t5", "a\tb\t1"])).run(static)
    assert found["pairs"] == 32 and found["unknown"] == 2
    cosines = [
        static.table[a] @ static.table[b] / np.linalg.norm(static.table[a]) / np.linalg.norm(static.table[b])
        for a, b, _ in pairs
    ]
    assert found["spearman"] == pytest.approx(spearmanr(cosines, [score for *_, score in pairs]).statistic)


def pair(uid, good, bad, field="syntax"):
    return json.dumps({"UID": uid, "sentence_good": good, "sentence_bad": bad, "field": field})


def test_blimp_counts_by_paradigm_and_field(tmp_path):
    scores = {"good": 0.0, "bad": -1.0, "same": -1.0}
    model = types.SimpleNamespace(score=lambda texts: np.array([scores[text] for text in texts]))
    files = {
        "one.jsonl": [pair("one", "good", "bad"), pair("one", "bad", "good")],
        "two.jsonl": [pair("two", "bad", "same", "morphology")],
    }
    archive = tmp_path / "blimp.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for name, lines in files.items():
            content = "\n".join(lines).encode()
            info = tarfile.TarInfo(f"data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = blimp.Evaluator(str(archive)).run(model)
    assert found == {"accuracy": 0.5, "syntax": 0.5, "morphology": 0.5, "ties": pytest.approx(1 / 3), "pairs": 3}
    assert blimp.Evaluator(str(archive), limit=1).run(model)["accuracy"] == 0.75


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return ctxjax.load(gpt2_run(tmp_path_factory.mktemp("gpt2")))


def test_perplexity_and_bits_per_character(gpt2, tmp_path):
    texts = ["ba de fi go", "ku la"]
    found = perplexity.Evaluator(file_of(tmp_path / "t.txt", texts)).run(gpt2)
    total = sum(gpt2.score(texts))
    pieces = sum(len(gpt2.tokenizer.encode(text).ids) for text in texts)
    assert found["perplexity"] == pytest.approx(np.exp(-total / pieces)) and found["pieces"] == pieces
    assert found["bits_per_character"] == pytest.approx(-total / np.log(2) / sum(map(len, texts)))
    assert found["unknown"] == 0.0


def test_texts_beyond_the_models_length_are_read_whole(gpt2):
    """In windows that overlap by half; as far as one window goes, the figures are those of one reading."""
    long = " ".join(["ba de fi go ku la"] * 30)
    [values] = gpt2.log_probs([long], long="windows")
    ids = gpt2.tokenizer.encode(long).ids
    assert len(values) == len(ids) > gpt2.config["max_len"]
    room = gpt2.config["max_len"] - 1
    first = gpt2.tokenizer.decode(ids[:room])
    [alone] = gpt2.log_probs([first])
    np.testing.assert_allclose(values[: len(alone)], alone, atol=1e-5)
    with pytest.raises(ConfigError, match="reads"):
        gpt2.log_probs([long])


def test_last_words(gpt2, tmp_path):
    contexts = ["ba de fi", "go ku", " ".join(["la me ni"] * 30)]
    values, best = gpt2.score_next(contexts, ["go", "la", "po"])
    [whole], [front] = gpt2.score([f"{contexts[0]} go"]), gpt2.score([contexts[0]])
    assert values[0] == pytest.approx(whole - front, abs=1e-5)
    passages = [json.dumps({"text": f"{context} {word}"}) for context, word in zip(contexts, ["go", "la", "po"])]
    found = lambada.Evaluator(file_of(tmp_path / "l.jsonl", passages)).run(gpt2)
    assert found["accuracy"] == pytest.approx(best.mean())
    assert found["perplexity"] == pytest.approx(np.exp(-values.mean()))
    prompts = [" ".join(words) for words in itertools.permutations(["ba", "de", "fi", "go"], 3)]
    made = gpt2.generate(prompts, 1, temperature=0.0)
    whole_words = [(prompt, text[1:]) for prompt, text in zip(prompts, made) if text[:1] == " " and text[1:].isalpha()]
    assert whole_words
    assert gpt2.score_next(*zip(*whole_words))[1].all()


BROKEN = [
    (similarity, "pairs", "king queen 5", "line 1: expected two words and a number"),
    (similarity, "pairs", "a\tb\t1", "1 pairs, too few"),
    (analogies, "questions", ": x\na b c", "line 2: 3 words, and a question has four"),
    (lambada, "texts", "one", "a passage of one word"),
    (blimp, "pairs", "no tar", "cannot be read as a tar archive"),
]


@pytest.mark.parametrize(("module", "field", "content", "message"), BROKEN)
def test_broken_files_are_named(module, field, content, message, tmp_path):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(ConfigError, match=message):
        module.Evaluator(**{field: str(tmp_path / "x.txt")})
    with pytest.raises(ConfigError, match=f"config.evals.{field}=.* does not exist"):
        module.Evaluator(**{field: str(tmp_path / "nowhere")})


def test_the_table_and_what_is_left_out(static, tmp_path):
    path = file_of(tmp_path / "s.txt", ["king\tqueen\t1", "man\twoman\t2", "paris\trome\t3"])
    evaluators = {"words": similarity.Evaluator(path), "grammar": types.SimpleNamespace(needs="score")}
    said = []
    found = suite.run(evaluators, static, said.append)
    assert set(found) == {"words/spearman", "words/pairs", "words/unknown"}
    assert said == ["static (static) cannot score; left out: grammar"]
    text = suite.table({"one": found, "two": {"words/pairs": 12345.0}})
    assert "12,345" in text and len({len(line) for line in text.splitlines()}) == 1
    assert suite.names(["runs/a/x", "runs/b/x"]) == ["a/x", "b/x"] and suite.names(["runs/a", "b"]) == ["a", "b"]


def test_the_program_compares_models(tmp_path, capsys):
    paths = []
    for seed in ("one", "two"):
        (tmp_path / seed).mkdir()
        paths.append(str(gpt2_run(tmp_path / seed)))
    argv = ["--workdir", *paths, "--config", "experiments/evaluate/without_labels.py:smoke"]
    assert evaluate.main([*argv, "--record", str(tmp_path / "records")]) == 0
    out = capsys.readouterr().out
    assert "text/bits_per_character" in out and out.count("\n") == 7
    assert len(list((tmp_path / "records").glob("*.json"))) == 2
    with pytest.raises(ConfigError, match="has no 'grammar'"):
        evaluate.main([*argv, "--only", "grammar"])
