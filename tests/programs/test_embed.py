"""`python -m ctxjax.embed`: the file equals what `embed` gives, whatever the text holds, and is whole or not there."""

import json
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import ctxjax
from ctxjax import embed
from ctxjax.config import ConfigError
from ctxjax.interop import hf_bert
from tests.interop import making, test_elmo

LINES = ["The cat sat .", "", "the  bank\tof the river", "   ", "money", "The cat sat .", "on a mat"]
WORDS = {number: line.split() for number, line in enumerate(LINES) if line.split()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    hf_bert.write(folder, making.bert())
    return folder


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def run(*args):
    embed.main([str(arg) for arg in args])


def read(path):
    """Vectors by line number, and the index from sentence to number."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            index = json.loads(file["sentence_to_index.json"])
            return {int(name): file[name] for name in file.files if name.isdigit()}, index
    with h5py.File(path) as file:
        index = json.loads(file["sentence_to_index"][0])
        assert file["sentence_to_index"].shape == (1,)
        return {int(name): node[()] for name, node in file.items() if name.isdigit()}, index


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".npz"])
def test_every_line_has_its_vectors_under_its_number(model, text, tmp_path, suffix, capsys):
    output = tmp_path / f"out{suffix}"
    run(model, text, "--output", output)
    found, index = read(output)
    assert sorted(found) == sorted(WORDS)
    want = ctxjax.load(model).embed(list(WORDS.values()))
    for number, one in zip(WORDS, want, strict=True):
        assert found[number].dtype == np.float32 and np.array_equal(found[number], one.layers)
    assert index == {" ".join(words): str(number) for number, words in WORDS.items()}
    printed = capsys.readouterr().out
    assert f"wrote 5 lines of {sum(map(len, WORDS.values()))} words" in printed
    assert "2 without a word" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "text.txt"]


@pytest.mark.parametrize("options", [["--layers", "top"], ["--layers", "mix"], ["--layers", "mix", "--mix", "1,0,-2"]])
def test_layers(model, text, tmp_path, options):
    run(model, text, "--output", tmp_path / "out.npz", *options)
    found, _ = read(tmp_path / "out.npz")
    mix = [1.0, 0.0, -2.0] if "--mix" in options else None
    want = ctxjax.load(model).embed(list(WORDS.values()), layers=options[1], mix=mix)
    assert all(np.array_equal(found[number], one.layers) for number, one in zip(WORDS, want))


def test_words_of_the_models_own_tokenizer(model, tmp_path):
    (tmp_path / "raw.txt").write_text("The cat, he sat.\n")
    run(model, tmp_path / "raw.txt", "--output", tmp_path / "out.h5", "--split", "model", "--pool", "first")
    found, index = read(tmp_path / "out.h5")
    [want] = ctxjax.load(model).embed("The cat, he sat.", pool="first")
    assert np.array_equal(found[0], want.layers)
    assert index == {"The cat , he sat .": "0"}


def test_bad_text_is_counted_and_never_lost(model, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xef\xbb\xbfThe cat\r\n\xff\xfe bank\n\x00\n\n\x0b\xc2\x85\nlast\xed\xa0\x80 line")
    run(model, path, "--output", tmp_path / "out.npz")
    found, index = read(tmp_path / "out.npz")
    assert sorted(found) == [0, 1, 2, 5]  # numbers are those of the lines of the file
    assert found[0].shape[1] == 2 and index["The cat"] == "0"
    printed = capsys.readouterr().out
    assert "2 with bytes that are not UTF-8" in printed and "2 without a word" in printed


def test_long_lines_are_counted(model, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("the cat\n" + "the " * 50 + "\n")
    run(model, tmp_path / "long.txt", "--output", tmp_path / "out.h5")
    found, _ = read(tmp_path / "out.h5")
    assert found[1].shape == (3, 50, 16)
    assert "1 longer than the model reads at once" in capsys.readouterr().out


def test_small_batches_change_nothing(model, text, tmp_path):
    run(model, text, "--output", tmp_path / "a.npz")
    run(model, text, "--output", tmp_path / "b.npz", "--tokens-per-batch", 8)
    (a, _), (b, _) = read(tmp_path / "a.npz"), read(tmp_path / "b.npz")
    assert all(np.abs(a[number] - b[number]).max() < 1e-6 for number in a)


def test_state_goes_on_over_lines_and_chunks(tmp_path):
    test_elmo.write_file(tmp_path / "elmo")
    lines = [["a", "cat"], ["b"], ["c", "d", "e"], ["f"]] * 3
    (tmp_path / "text.txt").write_text("\n".join(map(" ".join, lines)))
    want = ctxjax.load(tmp_path / "elmo").embed(lines, stateful=True)
    run(tmp_path / "elmo", tmp_path / "text.txt", "--output", tmp_path / "o.h5", "--stateful", "--tokens-per-batch", 1)
    found, _ = read(tmp_path / "o.h5")
    assert all(np.array_equal(found[number], one.layers) for number, one in enumerate(want))


@pytest.mark.parametrize(
    "args, message",
    [
        (["text.txt", "--output", "out.txt"], "must end in one of"),
        (["text.txt", "--output", "none/out.h5"], "does not exist"),
        (["nothing.txt", "--output", "out.h5"], r"nothing\.txt does not exist"),
        (["empty.txt", "--output", "out.h5"], "no line with a word"),
        (["text.txt", "--output", "out.h5", "--mix", "a", "--layers", "mix"], "not a list of numbers"),
        (["text.txt", "--output", "out.h5", "--mix", "1,2", "--layers", "mix"], "3 layers"),
        (["text.txt", "--output", "out.h5", "--stateful"], "stateful"),
        (["text.txt", "--output", "out.h5", "--step", "3"], "no run folder"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_file(model, text, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConfigError, match=message):
        run(model, *args)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "text.txt"]


def test_a_failure_half_way_leaves_the_old_file(model, text, tmp_path, monkeypatch):
    output = tmp_path / "out.h5"
    output.write_bytes(b"old")
    monkeypatch.setattr(embed.Hdf5Sink, "finish", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(model, text, "--output", output)
    assert output.read_bytes() == b"old" and not list(tmp_path.glob(".*"))


def test_the_index_is_bounded_and_it_is_said(model, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed, "INDEX_LIMIT", 20)
    run(model, text, "--output", tmp_path / "out.npz")
    found, index = read(tmp_path / "out.npz")
    assert len(found) == 5 and index == {"The cat sat .": "0"}
    assert "4 left out of sentence_to_index" in capsys.readouterr().out


def test_npz_members_hold_no_objects(model, text, tmp_path):
    run(model, text, "--output", tmp_path / "out.npz")
    with zipfile.ZipFile(tmp_path / "out.npz") as file:
        for name in file.namelist():
            if name.endswith(".npy"):
                with file.open(name) as member:
                    np.lib.format.read_array(member, allow_pickle=False)


def test_the_program_itself(model, text, tmp_path):
    """As a user runs it: exit codes, standard input, one line for a mistake."""
    command = [sys.executable, "-m", "ctxjax.embed", str(model)]
    done = subprocess.run(
        [*command, "-", "--output", str(tmp_path / "out.h5")], input=text.read_bytes(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert sorted(read(tmp_path / "out.h5")[0]) == sorted(WORDS)
    done = subprocess.run([*command, "nothing", "--output", "x.h5"], capture_output=True, timeout=60)
    assert done.returncode == 2 and done.stderr == b"error: the text file nothing does not exist\n"
