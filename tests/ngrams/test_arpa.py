"""The ARPA format: what is written is read back, KenLM reads it to the same figures, and broken lines are named."""

import gzip
import shutil
import subprocess

import numpy as np
import pytest

import ctxjax
from ctxjax import convert
from ctxjax.config import ConfigError
from ctxjax.data.generated import documents
from ctxjax.ngrams import arpa, smoothing
from ctxjax.ngrams.model import NGrams
from ctxjax.text import words
from tests.ngrams import oracle
from tests.ngrams.test_counting import count

PIECES = ["<S>", "</S>", "<UNK>", "a", "b", "été", "d.", "e", "f"]
NAMES = [*arpa.MARKS, *PIECES[3:]]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arpa")
    grams, _ = count(oracle.text(), 3, folder)
    tables, _ = smoothing.estimate(grams, 9, oracle.BOS)
    arpa.write(folder / "model.arpa", tables, NAMES, 3)
    return folder / "model.arpa", NGrams(tables, 9, 3, oracle.BOS, oracle.EOS)


def test_read_back(written):
    path, model = written
    loaded = ctxjax.load(path)
    assert loaded.tokenizer.pieces == PIECES and loaded.kind == "ngram"
    for sentence, found in zip(oracle.text(seed=3, sentences=50), loaded.model.log_probs(oracle.text(3, 50))):
        np.testing.assert_allclose(found, model.log_probs([sentence])[0], atol=2e-6)
    text = "a b été unheard-of d."
    assert loaded.score(text)[0] == pytest.approx(model.log_probs([np.array([3, 4, 5, 2, 6])])[0].sum(), abs=1e-5)


def test_compressed(written, tmp_path):
    path, _ = written
    other = tmp_path / "model.arpa.gz"
    other.write_bytes(gzip.compress(path.read_bytes()))
    assert ctxjax.load(other).score("a b")[0] == ctxjax.load(path).score("a b")[0]


def test_kenlm_scores_the_file_alike(written):
    kenlm = pytest.importorskip("kenlm")
    path, model = written
    theirs = kenlm.Model(str(path))
    assert theirs.order == 3
    for sentence in oracle.text(seed=4, sentences=100):
        text = " ".join(PIECES[word] if word != 2 else "outside" for word in sentence)
        expected = [score * np.log(10) for score, _, _ in theirs.full_scores(text)]
        np.testing.assert_allclose(model.log_probs([sentence])[0], expected, atol=1e-4)


def test_an_arpa_file_becomes_a_run_and_comes_back(written, tmp_path):
    path, _ = written
    convert.convert(str(path), str(tmp_path / "run"), "ctxjax")
    convert.convert(str(tmp_path / "run"), str(tmp_path / "again.arpa"), "arpa")
    again, first = (
        sorted(line.split("\t")[1] for line in file.read_text().splitlines() if "\t" in line)
        for file in (tmp_path / "again.arpa", path)
    )
    assert again == first
    text = "a b été e f"
    one, two = (ctxjax.load(file).score(text)[0] for file in (tmp_path / "again.arpa", path))
    assert one == pytest.approx(two, rel=1e-6)


BROKEN = {
    "no data section": ("\\1-grams:\n-1\ta\n", "there is no .data. in its first 100 lines"),
    "count of another order": ("\\data\\\nngram 2=1\n\n", "line 2: expected the count of order 1"),
    "too few": (
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n\n\\end\\\n",
        "line 7: expected a log-probability, 1 words",
    ),
    "no number": ("\\data\\\nngram 1=2\n\n\\1-grams:\nx\t<s>\n-1\t</s>\n\n\\end\\\n", "line 5: .* not a number"),
    "a word too many": ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t<s> x y\n-1\t</s>\n", "line 5: expected"),
    "no sentence mark": ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", "has no <s> among its 1-grams"),
    "unknown word": (
        "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n\n\\2-grams:\n-1\t<s> x\n\n\\end\\\n",
        "the word 'x' is in an n-gram but not among the 1-grams",
    ),
    "cut": ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n", r"expected .end."),
    "huge order": ("\\data\\\n" + "".join(f"ngram {n}=1\n" for n in range(1, 20)) + "\n", "of 12 orders at most"),
    "no prefix": (
        "\\data\\\nngram 1=3\nngram 2=1\nngram 3=1\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ta\n\n\\2-grams:\n-1\t<s> a\n\n"
        "\\3-grams:\n-1\ta a a\n\n\\end\\\n",
        "3-grams without their first words",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name, tmp_path):
    text, message = BROKEN[name]
    path = tmp_path / "broken.arpa"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        ctxjax.load(path)


def test_a_piece_with_white_space_cannot_be_written(written, tmp_path):
    loaded = ctxjax.load(written[0])
    with pytest.raises(ConfigError, match="'two words' holds white space"):
        arpa.write(tmp_path / "x.arpa", loaded.params, [*NAMES[:-1], "two words"], 3)


@pytest.mark.slow
def test_lmplz_estimates_the_same_model(tmp_path):
    """KenLM's own estimator, where it is installed, on the same text: every probability and back-off weight."""
    lmplz = shutil.which("lmplz")
    if lmplz is None:
        pytest.skip("lmplz is not installed")
    texts = [sentence for text in documents(400) for sentence in text]
    made = subprocess.run([lmplz, "-o", "3", "-S", "20%"], input="\n".join(texts).encode(), capture_output=True)
    assert made.returncode == 0, made.stderr.decode()[-500:]
    (tmp_path / "theirs.arpa").write_bytes(made.stdout)
    tokenizer = words.learn(texts, 10_000, split="whitespace")
    encoded = [np.asarray(tokenizer.encode(text).ids) for text in texts]
    grams, _ = count(encoded, 3, tmp_path, len(tokenizer))
    tables, notes = smoothing.estimate(grams, len(tokenizer), oracle.BOS)
    assert not notes
    arpa.write(tmp_path / "ours.arpa", tables, arpa.arpa_words(tokenizer), 3)
    theirs, ours = (
        {line.split("\t")[1]: line.split("\t") for line in path.read_text().splitlines() if "\t" in line}
        for path in (tmp_path / "theirs.arpa", tmp_path / "ours.arpa")
    )
    assert theirs.keys() == ours.keys() and len(ours) > 5_000
    for gram, fields in ours.items():
        if gram != "<s>":
            assert float(fields[0]) == pytest.approx(float(theirs[gram][0]), abs=1e-4), gram
        if len(fields) > 2:
            assert float(fields[2]) == pytest.approx(float(theirs[gram][2]), abs=1e-4), gram
