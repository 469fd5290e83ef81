"""`python -m ctxjax.prepare --tokenizer byte_bpe`: corpora that give back their documents to the character."""

import itertools
import json
import lzma
import random

import pytest

from ctxjax.config import ConfigError
from ctxjax.data import building, cleaning, corpus, preparation, reading
from ctxjax.prepare import main
from ctxjax.text import byte_bpe, open_tokenizer

OPTIONS = ["--tokenizer", "byte_bpe", "--vocab_size", "400", "--heldout", "0.1", "--workers", "1"]


def run(source, folder, *more, options=OPTIONS):
    return main(["--input", str(source), "--output", str(folder), *options, *more])


def generated(documents, seed=0):
    """Prose with every kind of white space, line breaks and signs of several bytes."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinsh", k=rng.randint(1, 9))) for _ in range(300)]
    words += [
        "Zoë’s",
        "don't",
        "3.5",
        "中文。字",
        "\U0001f600",
        "e\u0301",
        "I'LL",
        "a\xa0b",
        "x\u3000y",
        "<|endoftext|>",
    ]
    gaps = [" "] * 9 + ["  ", "\n", "\n\n", " \n\t", "\u2003"]
    texts = []
    for _ in range(documents):
        parts = []
        for _ in range(rng.randint(1, 120)):
            parts += [rng.choice(words), rng.choice(["", "", "", ".", "!", ",", "?"]), rng.choice(gaps)]
        texts.append("".join(parts))
    return texts


@pytest.fixture(scope="module")
def texts():
    return generated(120)


@pytest.fixture(scope="module")
def source(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def decoded(folder):
    """The documents of a corpus as text."""
    whole = []
    for split in corpus.read_manifest(folder)["splits"]:
        opened = corpus.Corpus(folder, split, verify=True)
        for first, last in itertools.pairwise(opened.document_sentences.tolist()):
            tokens, unknown = opened.read(first, last)
            assert unknown == []
            whole.append(opened.tokenizer.decode(tokens))
    return whole


def decoded_sentences(folder):
    """The same sentence by sentence, of the training documents."""
    opened = corpus.Corpus(folder)
    texts = [opened.tokenizer.decode(opened.read(i, i + 1)[0]) for i in range(opened.num_sentences)]
    bounds = opened.document_sentences.tolist()
    return [texts[first:last] for first, last in itertools.pairwise(bounds)]


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_documents_come_back_to_the_character(texts, source, tmp_path, monkeypatch):
    monkeypatch.setattr("ctxjax.data.piecework.SECTION_TOKENS", 64)  # so that documents are of several sections
    run(source, tmp_path)
    tokenizer = open_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.kind == "byte_bpe" and len(tokenizer) == 400 and tokenizer.pieces[-1] == byte_bpe.END_OF_TEXT
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == {"vocab.txt", "merges.txt", "tokenizer.json"}
    assert sorted(decoded(tmp_path)) == sorted(cleaning.clean(text, {}) for text in texts)
    documents = decoded_sentences(tmp_path)
    assert sum(map(len, documents)) > 3 * len(documents)
    assert any(sentence.startswith("\n\n") for document in documents for sentence in document[1:])
    manifest = corpus.read_manifest(tmp_path)
    assert manifest["dropped"] == {} and manifest["settings"]["lowercase"] is False


def test_pieces_of_work_do_not_matter(source, tmp_path, monkeypatch):
    run(source, tmp_path / "one")
    monkeypatch.setattr(reading, "PIECE_BYTES", 5000)
    monkeypatch.setattr(reading, "_BLOCK", 500)
    run(source, tmp_path / "many")
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_the_tokens_are_those_of_the_whole_document(tmp_path):
    """A sentence ends before white space, where the published expression cuts too."""
    text = "One thing. Two  things!\n\nThree \n things?\tFour 'things'. And we've \U0001f600 more."
    (tmp_path / "a.txt").write_text(text)
    run(tmp_path / "a.txt", tmp_path / "out", "--format", "documents")
    opened = corpus.Corpus(tmp_path / "out")
    assert opened.num_sentences > 3
    assert opened.read(0, opened.num_sentences)[0].tolist() == opened.tokenizer.encode(text).ids.tolist()


def test_lines_are_joined_by_line_breaks(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mr. x came .\n  he left .  \nno stop here\n\nsecond document\n")
    run(path, tmp_path / "out", "--format", "sentences", "--heldout", "0")
    assert sorted(decoded(tmp_path / "out")) == ["mr. x came .\nhe left .\nno stop here", "second document"]
    assert ["mr. x came .", "\nhe left .", "\nno stop here"] in decoded_sentences(tmp_path / "out")


def test_lower_case_is_all_that_is_lost(texts, source, tmp_path):
    run(source, tmp_path, "--lowercase")
    assert sorted(decoded(tmp_path)) == sorted(cleaning.clean(text, {}).lower() for text in texts)
    with pytest.raises(ConfigError, match="--lowercase True, not False"):
        run(source, tmp_path)


def test_a_given_vocabulary(source, tmp_path):
    made = byte_bpe.learn(["the cat sat on the mat"] * 3, 280)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "encoder.json").write_text(json.dumps(made.ids))
    (theirs / "vocab.bpe").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in made.merges))
    options = ["--heldout", "0.1", "--workers", "1"]
    run(source, tmp_path / "a", "--vocab", str(theirs / "encoder.json"), options=options)
    run(source, tmp_path / "b", "--vocab", str(theirs), "--tokenizer", "byte_bpe", options=options)
    run(source, tmp_path / "c", "--vocab", str(tmp_path / "a" / "tokenizer"), options=options)
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")
    assert open_tokenizer(tmp_path / "a" / "tokenizer").digest() == made.digest()
    with pytest.raises(ConfigError, match="is of kind byte_bpe, not wordpiece"):
        run(source, tmp_path / "d", "--vocab", str(theirs), "--tokenizer", "wordpiece", options=options)
    (theirs / "vocab.bpe").unlink()
    with pytest.raises(ConfigError, match=r"vocab.bpe do not exist"):
        run(source, tmp_path / "d", "--vocab", str(theirs), options=options)
    assert not (tmp_path / "d").exists()


def test_work_that_was_cut_short_is_continued(source, tmp_path, monkeypatch):
    run(source, tmp_path / "straight")
    monkeypatch.setattr(reading, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(reading, "_BLOCK", 1_000)
    real, made = building.piecework.encode_piece, []

    def dies(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(building.piecework, "encode_piece", dies)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "cut")
    assert (tmp_path / "cut" / ".prepare" / "tokenizer" / "merges.txt").exists()
    monkeypatch.setattr(building.piecework, "encode_piece", real)
    run(source, tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "straight")


def test_bad_input_is_counted_and_never_a_crash(tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.txt").write_bytes(b"")
    (bad / "nul.txt").write_bytes(b"one\x00two three.\x07 Four.\x0cFive.")
    (bad / "latin.txt").write_bytes("Ein schöner Tag. Größe zählt.".encode("latin-1"))
    (bad / "word.txt").write_text("w" * 200_000)
    (bad / "only_marks.txt").write_text("\u200b\u200d")
    (bad / "lines.jsonl").write_text('{"text": "A lone \\ud800 surrogate."}\n{"text": ""}\n')
    run(bad, tmp_path / "out", "--heldout", "0", "--vocab_size", "257")
    manifest = corpus.read_manifest(tmp_path / "out")
    assert manifest["dropped"] == {cleaning.EMPTY_FILES: 1, cleaning.EMPTY_DOCUMENTS: 1}
    assert manifest["repaired"] == {
        cleaning.NULS: 1,
        cleaning.CONTROLS: 1,
        cleaning.BREAKS: 1,
        cleaning.BAD_UTF8: 4,
        cleaning.SURROGATES: 1,
        cleaning.CUT_SENTENCES: 48,
    }
    assert sorted(decoded(tmp_path / "out")) == sorted(
        [
            "onetwo three. Four.\nFive.",
            "Ein sch\ufffdner Tag. Gr\ufffd\ufffde z\ufffdhlt.",
            "w" * 200_000,
            "\u200b\u200d",
            "A lone \ufffd surrogate.",
        ]
    )
    with pytest.raises(ConfigError, match="256 pieces has no room"):
        run(bad, tmp_path / "small", options=[*OPTIONS[:3], "256"])


def test_the_published_size_is_the_default():
    settings = preparation.Settings(input=("a",), output="b", tokenizer="byte_bpe")
    assert preparation.make_plan(settings, [], None)["settings"]["vocab_size"] == 50257


@pytest.mark.real_data
def test_real_textbooks(data_root, tmp_path):
    with lzma.open(data_root / "pretrain" / "openstax_textbooks.jsonl.xz", "rt") as file:
        lines = [next(file) for _ in range(3)]
    (tmp_path / "books.jsonl").write_text("".join(lines))
    options = ["--vocab", str(data_root / "vocab"), "--workers", "1"]
    run(tmp_path / "books.jsonl", tmp_path / "out", options=options)
    assert sorted(decoded(tmp_path / "out")) == sorted(cleaning.clean(json.loads(line)["text"], {}) for line in lines)
