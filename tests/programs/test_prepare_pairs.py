"""`python -m ctxjax.prepare --pairs`: pairs stay pairs, whatever is wrong with a line or when it is killed."""

import gzip
import json
import random

import pytest

from ctxjax.config import ConfigError
from ctxjax.data import building, cleaning, parallel, reading
from ctxjax.data.corpus import Corpus
from ctxjax.prepare import main
from tests.programs.test_prepare import files


def sentences(count, seed):
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 7))) for _ in range(300)] + [
        "Büsche",
        "weiße",
        "中文",
    ]
    return [" ".join(rng.choices(words, k=rng.randint(1, 12))).capitalize() + "." for _ in range(count)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Three hundred pairs, one file compressed."""
    folder = tmp_path_factory.mktemp("pairs")
    one, two = sentences(300, 0), sentences(300, 1)
    (folder / "a.en").write_text("\n".join(one) + "\n")
    with gzip.open(folder / "a.de.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(two))  # without a break behind the last line
    return folder / "a.en", folder / "a.de.gz", list(zip(one, two))


OPTIONS = ["--tokenizer", "byte_bpe", "--vocab_size", "400", "--heldout", "0.1", "--workers", "1"]


def run(source, target, output, *more, options=OPTIONS):
    return main(["--pairs", str(source), str(target), "--output", str(output), *options, *more])


def read(folder):
    """split -> its pairs as text."""
    found = {}
    for split in ("train", "heldout"):
        corpus = Corpus(folder, split)
        assert corpus.num_sentences == 2 * corpus.num_documents
        sides = [corpus.tokenizer.decode(corpus.read(n, n + 1)[0]) for n in range(corpus.num_sentences)]
        found[split] = list(zip(sides[::2], sides[1::2]))
    return found


def test_every_pair_is_there_once_and_as_it_was(texts, tmp_path):
    run(*texts[:2], tmp_path / "c")
    found = read(tmp_path / "c")
    assert sorted(found["train"] + found["heldout"]) == sorted(texts[2])
    assert 10 < len(found["heldout"]) < 60
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert manifest["inputs"]["formats"] == ["pairs"] and manifest["dropped"] == {}
    pieces = (tmp_path / "c" / "tokenizer" / "vocab.txt").read_text()
    assert "Ã¼" in pieces  # learned from both sides: u with an umlaut is in the second alone


def test_pieces_of_any_size_give_the_same_corpus(texts, tmp_path, monkeypatch):
    run(*texts[:2], tmp_path / "one")
    monkeypatch.setattr(reading, "PIECE_BYTES", 700)
    monkeypatch.setattr(parallel, "_BLOCK", 100)
    run(*texts[:2], tmp_path / "many")
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_it_continues_where_it_was_killed(texts, tmp_path, monkeypatch):
    run(*texts[:2], tmp_path / "one")
    monkeypatch.setattr(reading, "PIECE_BYTES", 700)
    write, seen = building.piecework.write_file, []

    def killed(path, content):
        seen.append(path)
        if len(seen) in (5, 40):
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(building.piecework, "write_file", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(*texts[:2], tmp_path / "killed")
    assert run(*texts[:2], tmp_path / "killed") == 0
    assert files(tmp_path / "one") == files(tmp_path / "killed")


def test_lines_that_are_no_pair_are_counted(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(building.piecework, "SECTION_TOKENS", 60)
    monkeypatch.setattr(reading, "LINE_BYTES", 2000)
    pairs = [*(pair for pair in texts[2][:40])]
    bad = [("", "leer"), ("empty", "   "), ("", ""), ("\x00\x01", "x"), ("long", "y " * 100), ("z" * 3000, "lang")]
    good = [("two\u2028parts", "zwei\rTeile")]
    for side, name in ((0, "x"), (1, "y")):
        (tmp_path / name).write_bytes("".join(f"{pair[side]}\n" for pair in pairs + bad + good).encode())
    run(tmp_path / "x", tmp_path / "y", tmp_path / "c")
    found = read(tmp_path / "c")
    assert sorted(found["train"] + found["heldout"]) == sorted([*pairs, ("two parts", "zwei Teile")])
    dropped = json.loads((tmp_path / "c" / "manifest.json").read_text())["dropped"]
    assert dropped == {cleaning.EMPTY_PAIRS: 4, cleaning.LONG_PAIRS: 1, cleaning.LONG_LINES: 1}


def test_mistakes_are_one_sentence_before_any_work(texts, tmp_path):
    short = tmp_path / "short"
    short.write_text("one line\n")
    with pytest.raises(ConfigError, match=r"a.en has 300 lines and .*short has 1;"):
        run(texts[0], short, tmp_path / "c")
    with pytest.raises(ConfigError, match="nowhere is not a file"):
        run(texts[0], tmp_path / "nowhere", tmp_path / "c")
    with pytest.raises(ConfigError, match="leave out --input and --format"):
        run(*texts[:2], tmp_path / "c", "--input", str(short))
    assert not (tmp_path / "c").exists()
    run(*texts[:2], tmp_path / "c")
    with pytest.raises(ConfigError, match="other --input files or contents"):
        run(texts[1], texts[0], tmp_path / "c")


def test_wordpiece_learns_from_both_sides_too(texts, tmp_path):
    run(*texts[:2], tmp_path / "c", options=["--vocab_size", "300", "--heldout", "0.1", "--workers", "1", "--cased"])
    corpus = Corpus(tmp_path / "c", "train")
    assert corpus.num_sentences == 2 * corpus.num_documents and corpus.tokenizer.kind == "wordpiece"
