"""Paths on disks and in buckets; the bucket is a dict here, and an emulator in tests/engine/test_object_store.py."""

import contextlib
import importlib.util
import pathlib

import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from ctxjax import metrics, paths, records
from ctxjax.config import ConfigError
from ctxjax.progress import Log
from ctxjax.text import open_tokenizer
from ctxjax.text.wordpiece import WordPiece


@pytest.fixture
def bucket(monkeypatch):
    """A run folder in a bucket of its own."""
    store = MemoryFileSystem(skip_instance_cache=True)
    store.store, store.pseudo_dirs = {}, [""]
    monkeypatch.setattr(backend.fsspec_backend, "fs", lambda path: store)
    monkeypatch.setattr(paths, "_check_bucket", lambda name: None)
    monkeypatch.setenv("EPATH_USE_TF", "false")
    return paths.at("gs://bucket/runs/x")


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path, bucket):
    return tmp_path if request.param == "disk" else bucket


def test_a_file_is_the_old_one_or_the_whole_new_one(folder):
    paths.write_text(folder / "a.json", "älter\n")
    assert (folder / "a.json").read_bytes() == "älter\n".encode()
    with pytest.raises(UnicodeEncodeError):
        paths.write_text(folder / "a.json", "new\ud800")
    with pytest.raises(TypeError):
        records.write_json(folder / "a.json", {"a": object()})
    assert files(folder) == {"a.json": "älter\n"}


def test_a_relative_path_is_of_this_folder_and_a_bucket_is_none(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.at("runs/../x") == tmp_path / "x" and not isinstance(paths.at("x"), str)
    assert str(bucket / "y") == "gs://bucket/runs/x/y" and str(paths.at("gs://bucket/runs/")) == "gs://bucket/runs"
    paths.write_text(bucket / "y", "here")
    assert not list(tmp_path.iterdir())
    assert paths.local("x", "--output") == pathlib.Path("x")
    with pytest.raises(ConfigError, match="--output gs://bucket/x must be on a file system"):
        paths.local("gs://bucket/x", "--output")


def test_what_cannot_be_opened_is_said_at_once(monkeypatch):
    with pytest.raises(ConfigError, match=r"http:// is not known; name a folder, or gs://BUCKET/FOLDER"):
        paths.at("http://bucket/x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gs:// needs the package gcsfs: pip install ctxjax\[gcs\]"):
        paths.at("gs://a_bucket_that_no_other_test_names/x")


def test_files_that_grow_go_on_in_the_next_session(folder):
    for session in range(3):
        with contextlib.closing(paths.Mirror(folder)) as mirror, contextlib.closing(Log(mirror.folder, True)) as log:
            log(f"session {session}")
            writer = metrics.JsonLines(mirror.folder / "metrics.jsonl")
            writer.write(session, {"loss": 1.0})
            writer.close()
    assert [line["step"] for line in metrics.read(folder)] == [0, 1, 2]
    assert [line[20:] for line in (folder / "train.log").read_text().splitlines()] == [f"session {n}" for n in range(3)]
    assert set(files(folder)) == {"train.log", "metrics.jsonl"}


def test_on_a_disk_nothing_is_copied(tmp_path):
    mirror = paths.Mirror(paths.at(tmp_path))
    assert mirror.folder == tmp_path
    mirror.close()
    assert paths.Mirror(None).folder is None


def test_a_kill_loses_what_was_not_uploaded_and_an_upload_writes_what_has_changed(bucket):
    mirror = paths.Mirror(bucket)
    writer = metrics.JsonLines(mirror.folder / "metrics.jsonl")
    (mirror.folder / "tensorboard").mkdir()
    (mirror.folder / "tensorboard" / "events").write_text("1")
    writer.write(1, {"loss": 1.0})
    mirror.upload()
    assert (bucket / "tensorboard" / "events").read_text() == "1"
    (bucket / "tensorboard" / "events").write_text("not written again")
    writer.write(2, {"loss": 1.0})
    assert [line["step"] for line in metrics.read(bucket)] == [1]
    mirror.upload()
    assert [line["step"] for line in metrics.read(bucket)] == [1, 2]
    assert (bucket / "tensorboard" / "events").read_text() == "not written again"
    writer.close()
    mirror.close()
    assert not mirror.folder.exists()
    mirror.upload()  # nothing is left to write
    assert [line["step"] for line in metrics.read(bucket)] == [1, 2]


def test_a_tokenizer_is_saved_and_opened(folder):
    made = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##ä"], lowercase=False)
    made.save(folder / "pieces")
    assert open_tokenizer(folder / "pieces").digest() == made.digest()
    assert open_tokenizer(str(folder / "pieces" / "vocab.txt")).pieces == made.pieces
    with pytest.raises(ConfigError, match="does not exist"):
        open_tokenizer(folder / "nowhere")


def test_records_hold_no_bucket():
    config = {"init_from": {"path": "gs://mine/runs/bert"}, "models": ["gs://mine/a", "runs/b"], "pattern": "^(a|b)/"}
    assert records.without_paths(config) == {
        "init_from": {"path": "bert"},
        "models": ["a", "runs/b"],
        "pattern": "^(a|b)/",
    }
