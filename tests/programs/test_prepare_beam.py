"""`python -m ctxjax.prepare --runner`: what Apache Beam writes is what the local driver writes, to the byte."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("apache_beam")
pytestmark = pytest.mark.filterwarnings("ignore")  # Beam's own

from ctxjax.config import ConfigError  # noqa: E402
from ctxjax.data import building, corpus, reading, word_counts  # noqa: E402
from ctxjax.prepare import main  # noqa: E402
from tests.data.stores import stored  # noqa: E402
from tests.programs.test_prepare import files, generated  # noqa: E402

OPTIONS = ["--vocab_size", "300", "--heldout", "0.1"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents in several files, one of them empty, one with equal documents and bad lines."""
    folder = tmp_path_factory.mktemp("texts")
    lines = generated(120).splitlines(keepends=True)
    (folder / "a.jsonl").write_text("".join(lines[:70]))
    (folder / "b.jsonl").write_text(
        "".join(lines[50:]) + '{broken\n{"other": 1}\n{"text": ""}\n{"text": "Nul\\u0000s."}\n'
    )
    (folder / "empty.jsonl").write_text("")
    return folder


def run(source, folder, *more, options=OPTIONS):
    return main(["--input", str(source), "--output", str(folder), "--workers", "1", *options, *more])


def beam(source, folder, *more, options=OPTIONS):
    return run(source, folder, "--runner", "DirectRunner", *more, options=options)


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        pytest.param(["--tokenizer", "words", "--vocab_size", "60", "--min_count", "2"], marks=pytest.mark.slow),
        pytest.param(["--tokenizer", "byte_bpe", "--vocab_size", "400"], marks=pytest.mark.slow),
        pytest.param(["--tokenizer", "bpe", "--vocab_size", "300", "--heldout", "0"], marks=pytest.mark.slow),
        pytest.param(["--format", "documents", "--vocab_size", "300"], marks=pytest.mark.slow),
    ],
)
def test_the_same_bytes(texts, tmp_path, monkeypatch, options):
    """Every file, in many shards, whatever the pieces are."""
    monkeypatch.setattr(building, "SHARD_BYTES", 6_000)
    run(texts, tmp_path / "local", options=options)
    monkeypatch.setattr(reading, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(reading, "_BLOCK", 1_000)
    beam(texts, tmp_path / "beam", options=options)
    ours, theirs = files(tmp_path / "beam"), files(tmp_path / "local")
    assert list(ours) == list(theirs) and not [name for name in ours if ours[name] != theirs[name]]
    assert sum(name.startswith("train-") for name in ours) > 4
    corpus.Corpus(tmp_path / "beam", verify=True)


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(texts, tmp_path):
    run(texts, tmp_path / "local")
    command = [sys.executable, "-m", "ctxjax.prepare", "--input", str(texts), "--output", str(tmp_path / "beam")]
    command += ["--runner", "DirectRunner", "--workers", "2", *OPTIONS]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=environment)
    assert files(tmp_path / "beam") == files(tmp_path / "local")


@pytest.mark.slow
def test_held_out_files_and_a_given_vocabulary(texts, tmp_path):
    run(texts, tmp_path / "vocab")
    more = ["--vocab", str(tmp_path / "vocab" / "tokenizer"), "--heldout_input", str(texts / "a.jsonl")]
    run(texts / "b.jsonl", tmp_path / "local", *more, options=[])
    beam(texts / "b.jsonl", tmp_path / "beam", *more, options=[])
    assert files(tmp_path / "beam") == files(tmp_path / "local")


@pytest.mark.slow
def test_from_a_store_into_a_store(texts, tmp_path, monkeypatch):
    """Nothing but the store is common to the driver and the workers."""
    store = stored(monkeypatch)
    for path in texts.iterdir():
        store.pipe(f"s3://bucket/texts/{path.name}", path.read_bytes())
    run(texts, tmp_path / "local")
    for _ in range(2):  # the second finds it finished
        beam("s3://bucket/texts", "s3://bucket/corpus")
    found = {path.removeprefix("/bucket/corpus/"): store.cat(path) for path in store.find("s3://bucket/corpus")}
    assert found == files(tmp_path / "local")


@pytest.mark.slow
def test_pairs(tmp_path):
    (tmp_path / "en").write_text("".join(f"line {i} of text\n" for i in range(50)))
    (tmp_path / "de").write_text("".join(f"Zeile {i} Text\n" if i % 7 else "\n" for i in range(50)))
    for name, more in (("local", []), ("beam", ["--runner", "DirectRunner"])):
        pairs = ["--pairs", str(tmp_path / "en"), str(tmp_path / "de"), "--output", str(tmp_path / name)]
        main([*pairs, "--workers", "1", "--vocab_size", "80", *more])
    assert files(tmp_path / "beam") == files(tmp_path / "local")


def test_a_finished_corpus_is_left_alone_and_others_are_refused(texts, tmp_path):
    """A corpus of the local driver is finished for Beam too."""
    run(texts, tmp_path / "made")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert beam(texts, tmp_path / "made") == 0
    with pytest.raises(ConfigError, match=r"--heldout 0\.1, not 0\.2"):
        beam(texts, tmp_path / "made", options=["--vocab_size", "300", "--heldout", "0.2"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*") if path.is_file()} == before


def test_mistakes_are_one_sentence(texts, tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00no archive")
    with pytest.raises(ConfigError, match=r"^input .*a.jsonl.gz is truncated or corrupt \(.*\); fetch or compress it"):
        beam(tmp_path / "a.jsonl.gz", tmp_path / "out", "--format", "jsonl")
    (tmp_path / "b.jsonl").write_text('{"body": 1}\n')
    with pytest.raises(ConfigError, match=r"1 JSON objects without the field\); --field text is none of .*: body"):
        beam(tmp_path / "b.jsonl", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="--runner Nonsense"):
        run(texts, tmp_path / "out", "--runner", "Nonsense")
    with pytest.raises(ConfigError, match="--runner_options is of a --runner"):
        run(texts, tmp_path / "out", "--runner_options", "project=p")
    with pytest.raises(ConfigError, match="is no folder of this machine"):
        run(texts, "gs://bucket/corpus")


@pytest.mark.slow
def test_more_words_than_a_vocabulary_is_learned_from(texts, tmp_path, monkeypatch):
    """The rarest are left out, by both drivers the same, though the local one adds up in parts."""
    monkeypatch.setattr(word_counts, "COUNTED_WORDS", 300)
    monkeypatch.setattr(word_counts, "MERGED_WORDS", 100)
    options = ["--tokenizer", "words", "--vocab_size", "60", "--heldout", "0.1"]
    monkeypatch.setattr(reading, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(reading, "_BLOCK", 1_000)
    run(texts, tmp_path / "local", options=options)
    beam(texts, tmp_path / "beam", options=options)
    assert files(tmp_path / "beam") == files(tmp_path / "local")


def test_results_are_json(texts, tmp_path):
    beam(texts, tmp_path / "made")
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert "runner" not in json.dumps(manifest) and manifest["dropped"]["empty files"] == 1
    assert not (tmp_path / "made" / ".prepare").exists()
