"""Indexes: built once, whole or not at all, by one of many processes, beside the corpus or in the cache."""

import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.index import cache_folder, open_index

KEY = {"index": "test", "seed": 1}


def builder(log=None, values=(1, 2, 3)):
    def build(folder):
        if log is not None:
            log.append(folder)
        np.save(folder / "numbers.npy", np.array(values))

    return build


def test_built_once_and_memory_mapped(tmp_path):
    log = []
    first = open_index(tmp_path, KEY, builder(log))["numbers"]
    again = open_index(tmp_path, KEY, builder(log))["numbers"]
    assert len(log) == 1 and first.tolist() == again.tolist() == [1, 2, 3]
    assert isinstance(again.base, np.memmap) and not again.flags.writeable
    open_index(tmp_path, KEY | {"seed": 2}, builder(log))
    assert len(log) == 2


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(folder):
        np.save(folder / "numbers.npy", np.arange(3))
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        open_index(tmp_path, KEY, build)
    assert [path.suffix for path in (tmp_path / "index").iterdir()] == [".lock"]
    assert open_index(tmp_path, KEY, builder())["numbers"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "key"])
def test_a_damaged_index_is_built_again(tmp_path, damage, capsys):
    open_index(tmp_path, KEY, builder())
    (path,) = (tmp_path / "index").glob("*/numbers.npy")
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "remove":
        path.unlink()
    else:
        (path.parent / "key.json").write_text("{")
    assert open_index(tmp_path, KEY, builder())["numbers"].tolist() == [1, 2, 3]
    assert "is damaged; building it again" in capsys.readouterr().err


def test_what_a_killed_builder_left_is_removed(tmp_path):
    open_index(tmp_path, KEY, builder())
    (built,) = [path for path in (tmp_path / "index").iterdir() if path.is_dir()]
    left = built.with_name(f".{built.name}.abc.part")
    built.rename(left)
    assert open_index(tmp_path, KEY, builder(values=[4]))["numbers"].tolist() == [4]
    assert not left.exists()


def test_a_corpus_that_cannot_be_written_uses_the_cache(tmp_path, monkeypatch):
    # A file where the folder should be refuses everyone, the superuser of a container included.
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "index").write_text("")
    monkeypatch.setenv("CTXJAX_CACHE", str(tmp_path / "cache"))
    log = []
    for _ in range(2):
        assert open_index(tmp_path / "corpus", KEY, builder(log))["numbers"].tolist() == [1, 2, 3]
    assert len(log) == 1 and (tmp_path / "cache" / "index") in log[0].parents
    monkeypatch.setenv("CTXJAX_CACHE", str(tmp_path / "corpus" / "index"))
    with pytest.raises(ConfigError, match="set CTXJAX_CACHE"):
        open_index(tmp_path / "corpus", KEY, builder())


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("CTXJAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == pathlib.Path("/x/ctxjax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == pathlib.Path("/h/.cache/ctxjax")


PROCESS = """
import pathlib, sys, time
import numpy as np
from ctxjax.data.index import open_index

def build(folder):
    pathlib.Path(sys.argv[1], f"built-{sys.argv[2]}").touch()
    if sys.argv[3] == "hang":
        time.sleep(60)
    time.sleep(1.0)
    np.save(folder / "numbers.npy", np.arange(100_000))

print(open_index(sys.argv[1], {"index": "race"}, build)["numbers"].sum())
"""


def start(folder, name, mode):
    command = [sys.executable, "-c", PROCESS, str(folder), name, mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).parents[2], text=True)


def test_of_two_processes_one_builds_and_a_killed_builder_is_replaced(tmp_path):
    hung = start(tmp_path, "hung", "hang")
    deadline = time.monotonic() + 60
    while not (tmp_path / "built-hung").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    others = [start(tmp_path, str(number), "build") for number in range(2)]
    time.sleep(1.0)
    assert not list(tmp_path.glob("built-[01]"))  # they wait for the lock
    hung.kill()
    hung.wait()
    outputs = [other.communicate(timeout=60)[0].strip() for other in others]
    assert outputs == [str(sum(range(100_000)))] * 2
    assert len(list(tmp_path.glob("built-[01]"))) == 1
    assert not list((tmp_path / "index").glob(".*.part"))
    hung.stdout.close()
