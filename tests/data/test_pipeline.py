"""Batches: one order for any number of processes, workers and threads and after any resume; errors keep their type."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import grain
import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data import generated
from ctxjax.data.corpus import CorpusError
from ctxjax.data.pipeline import batch_at, batches
from ctxjax.data.sources import sentence_pairs, streams
from ctxjax.tree import flatten

BATCH, STEPS = 8, 7
CASES = [(1, 2, 0), (2, 2, 5), (4, 1, 60)]  # processes, workers, start


def make_source(kind):
    if kind == "sentence_pairs":
        return sentence_pairs.Source(
            generated.generated_corpus("wordpiece", 20), length=32, max_predictions=5, passes=2
        )
    return streams.Source(generated.generated_corpus("words", 20), length=8)


def digest(batch):
    total = hashlib.sha256()
    for name, leaf in sorted(flatten(batch).items()):
        total.update(name.encode() + str((leaf.dtype, leaf.shape)).encode() + np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


def merge(parts):
    if isinstance(parts[0], dict):
        return {name: merge([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def global_digests(source, steps, start=0, processes=1, **options):
    options = {"seed": 3, "batch_size": BATCH, "start_step": start, "process_count": processes} | options
    iterators = [batches(source, process_index=index, **options) for index in range(processes)]
    try:
        return [digest(merge([next(iterator) for iterator in iterators])) for _ in range(steps)]
    finally:
        for iterator in iterators:
            iterator.close()


@pytest.fixture(scope="module", params=["sentence_pairs", "streams"])
def known(request):
    source = make_source(request.param)
    return source, [digest(batch_at(source, 3, BATCH, step)) for step in range(STEPS + 60)]


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_order_does_not_depend_on_processes_and_threads(known, processes, threads):
    source, expected = known
    assert len(set(expected)) == len(expected)
    assert global_digests(source, STEPS, processes=processes, threads=threads) == expected[:STEPS]


@pytest.mark.parametrize("start", [1, 5, 60])
def test_the_order_does_not_depend_on_where_it_resumes(known, start):
    source, expected = known
    for processes in (1, 4):
        assert global_digests(source, STEPS, start, processes) == expected[start : start + STEPS]


@pytest.mark.parametrize(
    "processes,workers,start", [(1, 2, 5), *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES)]
)
def test_the_order_does_not_depend_on_workers(known, processes, workers, start):
    source, expected = known
    assert global_digests(source, STEPS, start, processes, workers=workers) == expected[start : start + STEPS]


def test_seeds_differ(known):
    source, expected = known
    assert digest(batch_at(source, 4, BATCH, 0)) not in expected


def test_closing(known):
    source, _ = known
    with batches(source, seed=0, batch_size=4) as stream:
        next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_impossible_divisions_are_refused(known):
    source, _ = known
    with pytest.raises(ConfigError, match=r"config\.batch_size=8 is not a multiple of the 3 processes"):
        batches(source, seed=0, batch_size=8, process_count=3)
    with pytest.raises(ConfigError, match=r"config\.threads and config\.workers"):
        batches(source, seed=0, batch_size=8, workers=-1)


class Counting:
    """A source of plain rows that says which elements were read, and fails at one."""

    def __init__(self, fails_at=None):
        self.read, self.fails_at = [], fails_at

    fingerprint, tokenizer, vocab_size, tokens_per_row = {}, None, 1, 1

    def steps_per_pass(self, batch_size):
        return 1

    def rows(self, seed, batch_size):
        return grain.MapDataset.source(self)

    def __len__(self):
        return 2**40

    def __getitem__(self, element):
        if element == self.fails_at:
            raise ZeroDivisionError(f"element {element}")
        self.read.append(int(element))
        return {"inputs": {"tokens": np.full(3, element)}, "is_first": np.bool_(False)}


def test_a_process_reads_its_own_rows_alone_and_nothing_before_its_start():
    source = Counting()
    stream = batches(source, seed=0, batch_size=12, start_step=2, process_index=1, process_count=3, threads=0)
    assert next(stream)["inputs"]["tokens"].tolist() == [[28] * 3, [29] * 3, [30] * 3, [31] * 3]
    assert next(stream)["inputs"]["tokens"][:, 0].tolist() == [40, 41, 42, 43]
    assert source.read == [28, 29, 30, 31, 40, 41, 42, 43]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_exception_keeps_its_type_and_says_where(workers):
    stream = batches(Counting(fails_at=17), seed=0, batch_size=4, workers=workers)
    with stream:
        for _ in range(4):
            next(stream)
        with pytest.raises(ZeroDivisionError, match="element 17") as caught:
            next(stream)
    assert "while making the rows 0:4 of the batch of step 4" in caught.value.__notes__


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_breaks_while_training_is_named(tmp_path, workers):
    generated.write_corpus(tmp_path, "wordpiece", count=20, shards=1)
    source = sentence_pairs.Source(tmp_path, length=32)
    next(batches(source, seed=0, batch_size=4, threads=0))
    (path,) = tmp_path.glob("train-*.array_record")
    path.write_bytes(bytes(path.stat().st_size))  # the same size, all zeros
    with batches(sentence_pairs.Source(tmp_path, length=32), seed=0, batch_size=4, workers=workers) as stream:
        with pytest.raises(CorpusError, match=r"train-00000-of-00001\.array_record is truncated or corrupt") as caught:
            for _ in range(20):
                next(stream)
    assert caught.value.__notes__[0].startswith("while making the rows 0:4 of the batch of step")


ORPHANS = """
import multiprocessing, sys, time
from ctxjax.data import pipeline
from ctxjax.data.sources import streams

if __name__ == "__main__":
    stream = pipeline.batches(streams.Source(sys.argv[1]), seed=0, batch_size=4, workers=1)
    next(stream)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(100)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    generated.write_corpus(tmp_path / "corpus", "words", count=20)
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    root = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "corpus")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert workers
    deadline = time.monotonic() + 10
    while any(running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [worker for worker in workers if running(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def running(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
