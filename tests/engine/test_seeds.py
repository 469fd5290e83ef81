"""Several seeds: one program gives what runs in turn give, wherever it is cut, and the record has them all."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, digests, folders, metrics, seeds
from ctxjax.config import ConfigError, override
from ctxjax.seeds import outcome
from tests.engine import outside
from tests.engine.test_loop import ROOT

FIGURE = "heldout/next"
SEEDS = (7, 8, 9)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


SETTINGS = {
    "seeds": 3,
    "best": f"lowest {FIGURE}",
    "eval_every": "3 steps",
    "save_every": "5 steps",
    "total": "15 steps",
    "optim.lr": 0.05,
}


def make(corpus, **settings):
    config = outside.get_config(f"corpus={corpus}").lock()
    mine = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    override(config, {name: str(value) for name, value in mine.items()})
    return config


def train(config, workdir, stop_at=None, count=1):
    return seeds.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:count])


def record(workdir):
    return json.loads((workdir / "record.json").read_text())


def held(workdir):
    return {line["step"]: line[FIGURE] for line in metrics.read(workdir) if FIGURE in line}


def digest(workdir):
    """Of every array of every seed, in its best and in its last step."""
    total = hashlib.sha256()
    for seed in SEEDS:
        for path in (f"{workdir}/seed_{seed}", f"{workdir}/seed_{seed}@best"):
            arrays, _ = checkpoint.read(path)
            for name in sorted(arrays):
                total.update(name.encode() + np.asarray(arrays[name]).tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def together(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("together")
    assert train(make(corpus, seeds_at_once=3), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def in_turn(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("in_turn")
    assert train(make(corpus, seeds_at_once=1), workdir) == 0
    return workdir


def same(ours, theirs, seeds=SEEDS):
    """Parameters, optimiser and carry of every seed's best and last step, and its figures: equal to 1e-5."""
    for seed in seeds:
        for path in (f"seed_{seed}", f"seed_{seed}@best"):
            one, other = checkpoint.read(f"{ours}/{path}")[0], checkpoint.read(f"{theirs}/{path}")[0]
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-5, err_msg=f"{path} {name}")
        here, there = held(ours / f"seed_{seed}"), held(theirs / f"seed_{seed}")
        assert here.keys() == there.keys() and len(here) >= 2
        np.testing.assert_allclose(list(here.values()), list(there.values()), rtol=1e-5)


def test_at_once_is_in_turn_to_1e_5(together, in_turn):
    """With dropout, a carry and their own data."""
    same(together, in_turn)
    one, other = (checkpoint.read(together / f"seed_{seed}")[0]["params/bias"] for seed in SEEDS[:2])
    assert np.abs(one - other).max() > 0.01, "seeds that do not differ would be equal too"


def test_what_was_logged_of_each_seed_is_that_of_its_run(together, in_turn):
    for seed in SEEDS:
        ours, theirs = (
            {line["step"]: line for line in metrics.read(folder / f"seed_{seed}") if "loss" in line}
            for folder in (together, in_turn)
        )
        assert ours.keys() == theirs.keys() and len(ours) == 15
        for name in ("loss", "next", "accuracy", "lr", "tokens", "skipped"):
            np.testing.assert_allclose(
                [line[name] for line in ours.values()], [line[name] for line in theirs.values()], rtol=1e-5
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "count, at_once, axes", [(2, 2, {}), (4, 3, {}), (4, 3, {"mesh__fsdp": 2, "mesh__tensor": 2})], ids=str
)
def test_every_mesh_gives_the_same(corpus, in_turn, tmp_path, count, at_once, axes):
    """Two devices have a seed each, and then rows of the third; four have rows, and parts of the parameters."""
    assert train(make(corpus, seeds_at_once=at_once, **axes), tmp_path, count=count) == 0
    same(tmp_path, in_turn)


def test_the_record_has_every_seed_mean_and_deviation(together):
    found = record(together)
    figures = [outcome.figures(record(together / f"seed_{seed}"))[FIGURE] for seed in SEEDS]
    assert [found["seeds"][str(seed)]["figures"][FIGURE] for seed in SEEDS] == figures
    assert found["evaluation"][FIGURE] == pytest.approx(np.mean(figures))
    assert found["deviation"][FIGURE] == pytest.approx(np.std(figures, ddof=1)) and found["deviation"][FIGURE] > 0
    assert found["failed"] == {} and found["config"]["seeds"] == 3 and found["config"]["seed"] == 7
    assert found["tokens"] == 3 * 15 * 64
    for seed in SEEDS:
        one = record(together / f"seed_{seed}")
        assert one["config"]["seed"] == seed and "seeds" not in one["config"]
        assert one["best"]["step"] == min(held(together / f"seed_{seed}").items(), key=lambda item: item[1])[0]


@pytest.mark.slow
def test_cut_anywhere_it_ends_with_the_same_bits(corpus, together, tmp_path):
    config = make(corpus, seeds_at_once=3)
    for stop in (2, 3, 8):
        assert train(config, tmp_path, stop_at=stop) == 0
        assert not (tmp_path / "record.json").exists()
    assert train(config, tmp_path) == 0
    assert digest(tmp_path) == digest(together)
    assert record(tmp_path)["seeds"] == record(together)["seeds"]
    before = digests.steps(tmp_path / "seeds_7_to_9" / "checkpoints")
    assert train(config, tmp_path) == 0 and digests.steps(tmp_path / "seeds_7_to_9" / "checkpoints") == before
    # As if killed after the checkpoint of all and before those of the seeds.
    for folder in ("seed_8", "seeds_7_to_9", "."):
        (tmp_path / folder / "record.json").unlink()
    digests.delete(tmp_path / "seed_8" / "checkpoints" / "00000015")
    assert train(config, tmp_path) == 0 and digest(tmp_path) == digest(together)
    assert record(tmp_path)["seeds"] == record(together)["seeds"]


@pytest.mark.slow
def test_each_seed_waits_for_itself(corpus, tmp_path):
    """With patience the seeds end at their own steps, as they do in turn."""
    for name, at_once in (("together", 3), ("in_turn", 1)):
        config = make(corpus, seeds_at_once=at_once, patience=1, eval_every="1 steps")
        assert train(config, tmp_path / name) == 0
    same(tmp_path / "together", tmp_path / "in_turn")
    ours, theirs = record(tmp_path / "together")["seeds"], record(tmp_path / "in_turn")["seeds"]
    steps = [one["steps"] for one in ours.values()]
    assert steps == [one["steps"] for one in theirs.values()]
    assert min(steps) < 15 and len(set(steps)) > 1, "the seeds are meant to end at different steps"


@pytest.mark.slow
def test_two_at_once_and_then_one(corpus, in_turn, tmp_path):
    assert train(make(corpus, seeds_at_once=2), tmp_path) == 0
    same(tmp_path, in_turn)
    assert (tmp_path / "seeds_7_to_8").is_dir() and not (tmp_path / "seeds_9_to_9").exists()


@pytest.mark.slow
def test_how_many_at_once_follows_from_the_memory_and_is_kept(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "free_memory", lambda device: 0)
    assert train(make(corpus), tmp_path, stop_at=2) == 0
    assert json.loads((tmp_path / "config.json").read_text())["seeds_at_once"] == 1
    monkeypatch.undo()
    assert train(make(corpus), tmp_path) == 0
    assert not list(tmp_path.glob("seeds_*")), "it goes on as it has begun, though there is room for all"
    monkeypatch.setattr(seeds, "free_memory", lambda device: 2**40)
    assert train(make(corpus), tmp_path / "free", stop_at=2) == 0
    assert json.loads((tmp_path / "free" / "config.json").read_text())["seeds_at_once"] == 3


@pytest.mark.slow
def test_a_seed_that_diverges_fails_alone(corpus, in_turn, tmp_path):
    """The second seed reads batches that are not numbers; at once and in turn the others end as they do without it."""
    settings = {"source__name": "tests.engine.test_seeds", "max_skipped": 3}
    for name, at_once in (("together", 3), ("in_turn", 1)):
        workdir = tmp_path / name
        assert train(make(corpus, seeds_at_once=at_once, **settings), workdir) == 0
        found = record(workdir)
        assert list(found["failed"]) == ["8"] and "3 steps in a row" in found["failed"]["8"]
        same(workdir, in_turn, seeds=(7, 9))
        good = [found["seeds"][seed]["figures"][FIGURE] for seed in ("7", "9")]
        assert found["evaluation"][FIGURE] == pytest.approx(np.mean(good))


class Source(outside.Source):
    """The stream of `outside`, of which seed 8 never reads a number."""

    def batch(self, seed, batch_size, elements):
        batch = super().batch(seed, batch_size, elements)
        if seed == 8:
            batch["weights"] = np.full_like(batch["weights"], np.inf)
        return batch


def test_a_run_that_answers_as_the_majority_has_failed():
    base = {"evaluation": {"dev/accuracy": 70.0, "dev/majority_accuracy": 70.0, "dev/loss": 0.5}, "best": {}}
    assert "no better than one answer for all, 70" in outcome.failure(base)
    better = base | {"evaluation": base["evaluation"] | {"dev/accuracy": 71.0}}
    assert not outcome.failure(better)
    assert "not a number" in outcome.failure(base | {"evaluation": base["evaluation"] | {"dev/accuracy": "nan"}})
    assert outcome.failure(better | {"failed": "why"}) == "why"
    chosen = {"by": "highest dev/accuracy", "step": 3, "figures": base["evaluation"] | {"dev/accuracy": 90.0}}
    assert not outcome.failure(base | {"best": chosen}), "its best step counts, not its last"
    other = chosen | {"by": "lowest dev/loss"}
    assert not outcome.failure(base | {"best": other}), "it is chosen by something else"


@pytest.mark.slow
def test_the_folder_of_several_seeds_says_which_there_are(together, corpus, tmp_path):
    from ctxjax import formats

    for read in (folders.find, formats.read):
        with pytest.raises(ConfigError, match=r"holds runs of several seeds; name one of them, as in .*seed_7"):
            read(together)
    train(make(corpus, seeds_at_once=1), tmp_path, stop_at=2)
    with pytest.raises(ConfigError, match=r"seed_7 was begun by itself"):
        train(make(corpus, seeds_at_once=3), tmp_path)


@contextlib.contextmanager
def start(corpus, workdir):
    """A training process that does not outlive its test."""
    command = [sys.executable, "-m", "ctxjax.train", "--config", f"tests/engine/outside.py:corpus={corpus}"]
    command += [f"--config.{name}={value}" for name, value in (SETTINGS | {"seeds_at_once": 3}).items()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    with subprocess.Popen(
        [*command, "--workdir", str(workdir)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_killed_while_it_trains_it_ends_the_same(corpus, together, tmp_path):
    """kill -9 once steps have been saved, by the command line; then it runs to its end."""
    with start(corpus, tmp_path) as process:
        for line in process.stderr:
            if line.startswith("step 7/"):
                break
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "record.json").exists()
    with start(corpus, tmp_path) as process:
        output = process.stderr.read()
        assert process.wait(timeout=60) == 0, output
    assert "continuing from step" in output
    assert digest(tmp_path) == digest(together)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(corpus, together, tmp_path):
    """kill -9 at random instants, between the checkpoint of all and those of each seed too."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        with start(corpus, tmp_path) as process:
            time.sleep(rng.uniform(4, 9))
            process.kill()
    with start(corpus, tmp_path) as process:
        output = process.stderr.read()
        assert process.wait(timeout=60) == 0, output
    assert digest(tmp_path) == digest(together)
