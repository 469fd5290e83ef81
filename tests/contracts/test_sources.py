"""What every source promises, found by itself: a new file under `ctxjax/data/sources/` is under test at once."""

import importlib
import json
import pickle
import pkgutil

import numpy as np
import pytest

import ctxjax.data.sources
from ctxjax.data.pipeline import Source, batch_at, batches
from ctxjax.tree import flatten

NAMES = [module.name for module in pkgutil.iter_modules(ctxjax.data.sources.__path__)]
INPUTS = {"tokens": np.int32, "chars": np.int32, "segment_ids": np.int32, "positions": np.int32, "mask": np.bool_}
INPUTS |= {"cls_positions": np.int32, "pack_ids": np.int32, "subwords": np.int32, "features": np.float32}
INPUTS |= {f"decoder_{name}": np.int32 for name in ("tokens", "pack_ids", "positions")}
OTHERS = {"weights": np.float32, "is_first": np.bool_, "counts": np.float32}
OTHERS |= {"pair_weights": np.float32}  # everything else is a label: int32
SEED, BATCH = 5, 8


@pytest.fixture(scope="module", params=NAMES)
def module(request):
    return importlib.import_module(f"ctxjax.data.sources.{request.param}")


@pytest.fixture(scope="module")
def source(module):
    return module.example()


def same(one, two):
    one, two = flatten(one), flatten(two)
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_the_protocol(module, source):
    assert isinstance(source, Source) and isinstance(source, module.Source)
    assert source.steps_per_pass(BATCH) >= 4 and source.tokens_per_row >= 1
    assert source.vocab_size == len(source.tokenizer)
    assert json.loads(json.dumps(source.fingerprint)) == source.fingerprint


def test_deterministic(module, source):
    other = module.example()
    assert other.fingerprint == source.fingerprint
    for step in (0, 3, source.steps_per_pass(BATCH) + 1):
        assert same(batch_at(source, SEED, BATCH, step), batch_at(other, SEED, BATCH, step))
    sent = pickle.loads(pickle.dumps(source))
    assert same(batch_at(sent, SEED, BATCH, 1), batch_at(source, SEED, BATCH, 1))
    assert not same(batch_at(source, SEED, BATCH, 0), batch_at(source, SEED + 1, BATCH, 0))
    assert not same(batch_at(source, SEED, BATCH, 0), batch_at(source, SEED, BATCH, 1))


def test_leaves_are_batch_first_and_of_the_right_types(source):
    batch = batch_at(source, SEED, BATCH, 0)
    assert set(batch) >= {"inputs", "targets", "weights"} and set(batch["inputs"]) & {"tokens", "chars"}
    for name, leaf in flatten(batch).items():
        assert isinstance(leaf, np.ndarray) and leaf.shape[0] == BATCH, name
        group, _, last = name.rpartition("/")
        expected = INPUTS[last] if group == "inputs" else OTHERS.get(last, np.int32)
        assert leaf.dtype == expected, name
    assert batch["weights"].shape == batch["targets"].shape and set(np.unique(batch["weights"])) <= {0.0, 1.0}
    for name in ("tokens", "targets"):
        ids = batch["inputs"]["tokens"] if name == "tokens" else batch["targets"]
        assert ids.min() >= 0 and ids.max() < source.vocab_size, name


def test_rows_are_the_rows_of_batches(source):
    rows = source.rows(SEED, BATCH)
    for step in (0, 2):
        batch = flatten(batch_at(source, SEED, BATCH, step))
        for row in (0, BATCH - 1):
            single = flatten(rows[step * BATCH + row])
            assert single.keys() == batch.keys()
            assert all(np.array_equal(single[name], batch[name][row]) for name in single)


def test_process_shards_are_disjoint_and_complete(source):
    for processes in (2, 4):
        parts = []
        for index in range(processes):
            options = {"process_index": index, "process_count": processes, "start_step": 1}
            with batches(source, seed=SEED, batch_size=BATCH, **options) as stream:
                parts.append(flatten(next(stream)))
        whole = flatten(batch_at(source, SEED, BATCH, 1))
        for name, leaf in whole.items():
            assert all(len(part[name]) == BATCH // processes for part in parts)
            assert np.array_equal(np.concatenate([part[name] for part in parts]), leaf), name


def test_a_pass_repeats_no_row(source):
    steps = min(200, source.steps_per_pass(BATCH))
    rows = [batch_at(source, SEED, BATCH, step) for step in range(steps)]
    seen = [row.tobytes() for batch in rows for row in batch["inputs"]["tokens"]]
    assert len(set(seen)) > 0.99 * len(seen)
