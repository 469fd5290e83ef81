"""`python -m ctxjax.prepare`: determinism, continuing, bad input, round trips, mistakes."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import building, cleaning, corpus, preparation, reading
from ctxjax.prepare import main, settings_from
from ctxjax.text import open_tokenizer
from ctxjax.text.sentences import split_sentences
from tests.text import oracle

# Cuts the inputs into small pieces, so that a little text makes many; the corpus does not depend on it.
SMALL_PIECES = """
import sys
from ctxjax import cli
from ctxjax.data import building, reading
reading.PIECE_BYTES, reading._BLOCK, building.SHARD_BYTES = 20_000, 1_000, 60_000
from ctxjax.prepare import main
if __name__ == "__main__":
    cli.main_guard(main)
"""


def generated(documents, seed=0, sentences=12):
    """JSON lines of made-up prose, some documents short, some of many sections."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(900)] + ["Zoë’s", "don't", "3.5", "中文"]
    lines = []
    for number in range(documents):
        prose = [
            " ".join(rng.choices(words, k=rng.randint(3, 20))).capitalize() + rng.choice([".", "!", "?"])
            for _ in range(1 if number % 9 == 0 else rng.randint(2, 2 * sentences))
        ]
        lines.append(json.dumps({"text": " ".join(prose), "id": number}))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "made.jsonl"
    path.write_text(generated(400))
    return path


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A corpus prepared in this process, in one piece."""
    folder = tmp_path_factory.mktemp("whole") / "corpus"
    run(text, folder)
    return folder


OPTIONS = ["--vocab_size", "600", "--heldout", "0.1"]


def run(source, folder, *more, workers=1, options=OPTIONS):
    sources = [source] if isinstance(source, (str, pathlib.Path)) else source
    return main(["--input", *map(str, sources), "--output", str(folder), "--workers", str(workers), *options, *more])


def start(source, folder, *more, script=None, workers=2):
    """The program in a process group of its own."""
    program = [str(script)] if script else ["-m", "ctxjax.prepare"]
    arguments = ["--input", str(source), "--output", str(folder), "--workers", str(workers), *OPTIONS, *more]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def settled(folder):
    """The content of a corpus without its manifest's list of shards, which depends on their size."""
    found = {}
    for split in ("train", "heldout"):
        opened = corpus.Corpus(folder, split, verify=True)
        found[split] = (
            opened.document_sentences.tolist(),
            opened.sentence_tokens.tolist(),
            opened.read(0, opened.num_sentences),
        )
    return {
        split: (documents, sentences, tokens.tolist(), unknown)
        for split, (documents, sentences, (tokens, unknown)) in found.items()
    }


def test_one_worker_and_two_give_the_same_bytes(text, whole, tmp_path):
    process = start(text, tmp_path / "two")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert files(tmp_path / "two") == files(whole)
    assert "documents" in out and "train" in out


def test_pieces_and_names_and_order_of_files_do_not_matter(text, whole, tmp_path, monkeypatch):
    lines = text.read_text().splitlines(keepends=True)
    random.Random(3).shuffle(lines)
    (tmp_path / "z.jsonl").write_text("".join(lines[:150]))
    (tmp_path / "a.jsonl").write_text("".join(lines[150:]))
    monkeypatch.setattr(reading, "PIECE_BYTES", 7000)
    monkeypatch.setattr(reading, "_BLOCK", 500)
    run(tmp_path, tmp_path.parent / "shuffled")
    assert settled(tmp_path.parent / "shuffled") == settled(whole)


def test_many_shards_hold_the_same_in_the_same_order(text, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "SHARD_BYTES", 10_000)
    run(text, tmp_path)
    shards = corpus.read_manifest(tmp_path)["splits"]["train"]["shards"]
    assert len(shards) > 4 and settled(tmp_path) == settled(whole)


@pytest.mark.parametrize("kind", ["wordpiece", pytest.param("words", marks=pytest.mark.slow)])
def test_killed_at_any_instant_and_continued(text, tmp_path, kind):
    """kill -9 to the whole process group, three times, as soon as there is more on disk; then an ordinary run."""
    script = tmp_path / "small.py"
    script.write_text(SMALL_PIECES)
    uninterrupted = start(text, tmp_path / "straight", "--tokenizer", kind, script=script)
    assert uninterrupted.communicate(timeout=120) and uninterrupted.returncode == 0
    cut = tmp_path / "cut"
    kept = []
    for number in range(3):
        process = start(text, cut, "--tokenizer", kind, script=script)
        wanted = ("words-*/[0-9]*", "pieces/[0-9]*", "shards/*.json")[number]
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list((cut / ".prepare").glob(wanted))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept.append(len(list((cut / ".prepare").glob("pieces/[0-9]*"))))
    assert kept[0] == 0 < kept[1]
    process = start(text, cut, "--tokenizer", kind, script=script)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert files(cut) == files(tmp_path / "straight")


def test_finished_pieces_are_not_made_again(text, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(reading, "_BLOCK", 1_000)
    real, made = building.piecework.encode_piece, []

    def dies(chunks, path, field, tokenizer):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(path.name)
        return real(chunks, path, field, tokenizer)

    monkeypatch.setattr(building.piecework, "encode_piece", dies)
    with pytest.raises(KeyboardInterrupt):
        run(text, tmp_path)
    made.clear()
    made.append("one less, so that the rest is not cut short")
    monkeypatch.setattr(building.piecework, "encode_piece", lambda *a: (made.append(a[1].name), real(*a))[1])
    run(text, tmp_path)
    assert "000003" in made and not {"000000", "000001", "000002"} & set(made)
    assert not (tmp_path / ".prepare").exists()


def test_a_finished_corpus_is_left_alone(text, whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    assert run(text, whole) == 0
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()} == before
    assert "documents" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, message",
    [
        (["--heldout", "0.2"], "--heldout 0.1, not 0.2"),
        (["--vocab_size", "700"], "--vocab_size 600, not 700"),
        (["--cased"], "--lowercase True, not False"),
        (["--tokenizer", "words"], "--tokenizer wordpiece, not words"),
        (["--format", "sentences"], "--format jsonl, not sentences"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_options_are_refused_by_name(text, whole, tmp_path, more, message, state):
    folder = whole
    if state == "unfinished":
        folder = tmp_path
        (folder / ".prepare").mkdir()
        manifest = corpus.read_manifest(whole)
        plan = {"settings": manifest["settings"], "inputs": manifest["inputs"], "cuts": []}
        (folder / ".prepare" / "plan.json").write_text(json.dumps(plan))
    options = [o for i, o in enumerate(OPTIONS) if not {o, OPTIONS[i - 1]} & set(more[:1])]
    with pytest.raises(ConfigError, match=message):
        run(text, folder, *more, options=options)


def test_other_input_is_refused(text, whole, tmp_path):
    other = tmp_path / "made.jsonl"
    other.write_text(text.read_text() + '{"text": "One more."}\n')
    with pytest.raises(ConfigError, match="other --input"):
        run(other, whole)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train-00000-of-00001.array_record").write_bytes(b"x")
    with pytest.raises(ConfigError, match="holds shards of something else"):
        run(text, tmp_path / "full")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Some text.")
    with pytest.raises(ConfigError, match="lies in the output folder"):
        run(tmp_path / "in", tmp_path / "in")


def test_two_at_once_are_refused(text, tmp_path):
    (tmp_path / ".prepare").mkdir()
    with preparation.lock(tmp_path, tmp_path / ".prepare"):
        with pytest.raises(ConfigError, match="another process is preparing"):
            run(text, tmp_path)


def test_what_is_in_the_corpus_is_what_was_written(text, whole):
    """Every document, by the published rules and the sentence splitter, is found in one split, whole and in order."""
    tokenizer = open_tokenizer(whole / "tokenizer")
    expected = {}
    for line in text.read_text().splitlines():
        document = json.loads(line)["text"]
        pieces = [
            oracle.tokenize(document[a:b], set(tokenizer.pieces), True, 200) for a, b in split_sentences(document)
        ]
        expected[tuple(map(tuple, pieces))] = 1
    found = {}
    sizes = {}
    for split in ("train", "heldout"):
        opened = corpus.Corpus(whole, split, verify=True)
        sizes[split] = opened.num_documents
        for first, last in zip(opened.document_sentences[:-1], opened.document_sentences[1:]):
            sentences = [opened.read(int(s), int(s) + 1)[0] for s in range(first, last)]
            found[tuple(tuple(tokenizer.pieces[i] for i in sentence) for sentence in sentences)] = 1
    assert found == expected and sum(sizes.values()) == 400
    assert 20 < sizes["heldout"] < 65


def test_words_keep_what_the_vocabulary_does_not_know(text, tmp_path, monkeypatch):
    monkeypatch.setattr("ctxjax.data.piecework.SECTION_TOKENS", 64)  # so that documents are of several sections
    run(text, tmp_path, "--tokenizer", "words", options=["--vocab_size", "50", "--heldout", "0.1"])
    tokenizer = open_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.kind == "words" and len(tokenizer) == 50 and tokenizer.pieces[:3] == ["<S>", "</S>", "<UNK>"]
    documents = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    expected = sorted([d[a:b] for a, b in tokenizer.split_words(d)] for d in documents)
    found = []
    for split in ("train", "heldout"):
        opened = corpus.Corpus(tmp_path, split)
        for first, last in zip(opened.document_sentences[:-1], opened.document_sentences[1:]):
            tokens, unknown = opened.read(int(first), int(last))
            surfaces = iter(unknown)
            found.append([next(surfaces) if i == tokenizer.unk_id else tokenizer.pieces[i] for i in tokens])
            assert next(surfaces, None) is None
    assert sorted(found) == expected


def test_sentences_one_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mr. x came . he left .\nno stop here\n\nsecond document\n" * 3)
    run(path, tmp_path / "out", "--format", "sentences", "--heldout", "0", options=["--vocab_size", "80"])
    opened = corpus.Corpus(tmp_path / "out")
    assert opened.num_documents == 4 and sorted(np.diff(opened.document_sentences).tolist()) == [1, 2, 3, 3]
    with pytest.raises(ConfigError, match="no split 'heldout'"):
        corpus.Corpus(tmp_path / "out", "heldout")
    assert corpus.read_manifest(tmp_path / "out")["repaired"] == {cleaning.DUPLICATES: 1}


@pytest.mark.parametrize("kind", ["wordpiece", "words"])
def test_bad_input_is_counted_and_never_a_crash(tmp_path, kind):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.txt").write_bytes(b"")
    (bad / "blank.txt").write_bytes(b" \n\t\r\n\xef\xbb\xbf ")
    (bad / "nul.txt").write_bytes(b"one\x00two three.\x07 Four.\x0cFive.")
    (bad / "latin.txt").write_bytes("Ein schöner Tag. Größe zählt.".encode("latin-1"))
    (bad / "bom.txt").write_bytes(b"\xef\xbb\xbfA mark at the beginning.\r\nAnd a line.\r\n\r\nAnd more.")
    (bad / "utf16.txt").write_bytes("Two bytes a letter.".encode("utf-16"))
    (bad / "rtl.txt").write_text("هذه جملة. وهذه أخرى. שלום עולם.")
    (bad / "one.txt").write_text("x")
    (bad / "word.txt").write_text("w" * 5_000_000)
    (bad / "dots.txt").write_text("." * 9000)
    (bad / "only_marks.txt").write_text("\u200b\u200d")
    lines = [
        '{"text": "A lone \\ud800 surrogate."}',
        '{"text": ""}',
        "{broken",
        '{"other": "x"}',
        '{"text": 7}',
        '{"text": "Twice."}',
        '{"text": "Twice."}',
    ]
    (bad / "lines.jsonl").write_text("\n".join(lines))
    run(bad, tmp_path / "out", "--tokenizer", kind, options=["--vocab_size", "300"])
    manifest = corpus.read_manifest(tmp_path / "out")
    expected = {
        cleaning.EMPTY_FILES: 1,
        cleaning.EMPTY_DOCUMENTS: 2,
        cleaning.BAD_JSON: 1,
        cleaning.NO_FIELD: 1,
        cleaning.NOT_TEXT: 1,
    }
    assert manifest["dropped"] == expected | ({cleaning.NO_TOKENS: 1} if kind == "wordpiece" else {})
    repaired = {
        cleaning.NULS: 1,
        cleaning.CONTROLS: 1,
        cleaning.BOMS: 2,
        cleaning.BREAKS: 1,
        cleaning.BAD_UTF8: 4,
        cleaning.SURROGATES: 1,
        cleaning.LONG_WORDS: 1 if kind == "wordpiece" else 2,  # a row of dots is one word there
        cleaning.DUPLICATES: 1,
    }
    # 9,000 dots are one sentence without end, cut twice
    assert manifest["repaired"] == repaired | ({cleaning.CUT_SENTENCES: 2} if kind == "wordpiece" else {})
    documents = sum(split["documents"] for split in manifest["splits"].values())
    assert documents == 8 + 3 + (kind == "words")
    for split in manifest["splits"]:
        opened = corpus.Corpus(tmp_path / "out", split, verify=True)
        assert opened.read(0, opened.num_sentences)[0].size == opened.num_tokens


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"nothing usable is left of the inputs \(1 empty files\)"),
        (b"\n \n", r"\(1 empty documents\)"),
        (b"\xe2\x80\x8b", r"\(no words\)"),
        (
            b'{"body": "x", "title": "y"}\n',
            r"1 JSON objects without the field\); --field text is none of .*: body, title",
        ),
        (b"{no json\n", r"1 lines that are not JSON objects"),
    ],
)
def test_nothing_left_is_one_clear_sentence(tmp_path, content, message):
    name = "a.jsonl" if content.startswith(b"{") else "a.txt"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / name, tmp_path / "out", options=["--vocab_size", "300"])
    assert not (tmp_path / "out").exists()  # so that the mended input is not refused as another


def test_mistakes_are_one_line_and_exit_2(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    process = start(tmp_path / "a.txt", tmp_path / "out")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert err.splitlines() == ["error: nothing usable is left of the inputs (1 empty files)"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--output", "x"], "--input is missing"),
        (["--input", "x"], "--output is missing"),
        (["--input", "nothing.txt", "--output", "x"], "nothing.txt does not exist"),
        (["--input", "nothing.txt", "--output", "x", "--heldout", "1.5"], "--heldout 1.5"),
        (["--input", "nothing.txt", "--output", "x", "--workers", "0"], "--workers 0"),
        (["--input", "a", "--output", "x", "--vocab", "no.txt"], "no.txt does not exist"),
        (["--input", "a", "--output", "x", "--vocab", "no.txt", "--vocab_size", "9"], "leave one of them out"),
        (["--input", "tfds:hf:squad", "--output", "x"], "a collection outside TFDS"),
    ],
)
def test_flags_that_cannot_be(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        main(argv)
    assert not (tmp_path / "x").exists()


def test_a_config_file_gives_what_flags_do_not(text, tmp_path):
    config = tmp_path / "corpus.py"
    config.write_text(
        "import ml_collections\n"
        "def get_config(arg=None):\n"
        f"    fields = dict(input=({str(text)!r},), output='out', vocab_size=500, heldout=0.5)\n"
        "    return ml_collections.ConfigDict(fields)\n"
    )
    found = settings_from(["--config", str(config), "--heldout", "0.25", "--config.vocab_size=600"])
    assert (found.input, found.output, found.vocab_size, found.heldout) == ((str(text),), "out", 600, 0.25)
    config.write_text(config.read_text().replace("vocab_size=500", "vocab_sice=500"))
    with pytest.raises(ConfigError, match="did you mean 'vocab_size'"):
        settings_from(["--config", str(config)])


def test_a_vocabulary_of_another_corpus(text, whole, tmp_path):
    run(text, tmp_path / "b", "--vocab", str(whole / "tokenizer"), options=["--heldout", "0.1"])
    assert settled(tmp_path / "b") == settled(whole)
    with pytest.raises(ConfigError, match="is of kind wordpiece, not words"):
        run(text, tmp_path / "c", "--vocab", str(whole / "tokenizer"), "--tokenizer", "words", options=[])


def test_a_document_is_held_out_wherever_there_are_two(tmp_path):
    for number in range(1, 4):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps({"text": f"Some words of text {i}."}) + "\n" for i in range(number)))
        run(path, tmp_path / f"out{number}", options=["--vocab_size", "100", "--heldout", "0.000001"])
        splits = corpus.read_manifest(tmp_path / f"out{number}")["splits"]
        found = {split: about["documents"] for split, about in splits.items()}
        assert found == ({"train": 1} if number == 1 else {"train": number - 1, "heldout": 1})


def test_a_dead_worker_is_said_and_orphans_do_not_stay(tmp_path):
    path = tmp_path / "made.jsonl"
    path.write_text(generated(6000, seed=1))
    script = tmp_path / "small.py"
    script.write_text(SMALL_PIECES)

    def workers(process):
        """Its worker processes, by what /proc says of their parents."""
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            found = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            spawned = [int(p) for p in found if b"spawn_main" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes()]
            if len(spawned) == 2 and list((tmp_path / "out" / ".prepare").glob("words-*/[0-9]*")):
                return spawned
            time.sleep(0.01)
        raise AssertionError("no workers")

    process = start(path, tmp_path / "out", script=script)
    os.kill(workers(process)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "a worker process died" in err and err.count("\n") == 1

    process = start(path, tmp_path / "out", script=script)
    children = workers(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def alive(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_room_is_one_sentence(text, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building.piecework, "write_file", full)
    with pytest.raises(ConfigError, match=r"cannot write under .* \(No space left on device\); the same command"):
        run(text, tmp_path)


@pytest.mark.real_data
def test_real_textbooks(data_root, tmp_path):
    source = data_root / "pretrain" / "openstax_textbooks.jsonl.xz"
    vocabulary = data_root / "vocab" / "bert_chinese_vocab.txt"
    run(source, tmp_path, "--vocab", str(vocabulary), options=[], workers=1)
    manifest = corpus.read_manifest(tmp_path)
    assert manifest["dropped"] == {} and sum(s["documents"] for s in manifest["splits"].values()) == 15
    opened = corpus.Corpus(tmp_path, verify=True)
    assert 15 < opened.num_tokens / opened.num_sentences < 45
