"""The loop: cut anywhere it ends with the same bits, on any mesh with the same losses, and never with a NaN."""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, digests, loop, metrics, progress
from ctxjax.checkpoint import RunError
from ctxjax.config import ConfigError, override
from tests.engine import outside

ROOT = pathlib.Path(__file__).parent.parent.parent
ONE = slice(0, 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return outside.write_corpus(tmp_path_factory.mktemp("corpus"))


def make(corpus, **settings):
    """The config of `outside`, with dotted fields changed: `optim__lr="0.1"` sets optim.lr."""
    config = outside.get_config(f"corpus={corpus}").lock()
    override(config, {name.replace("__", "."): str(value) for name, value in settings.items()})
    return config


def run(config, workdir, stop_at=None, devices=ONE):
    return loop.train(config, workdir, stop_at=stop_at, devices=jax.devices()[devices])


def digest_of(workdir, step=None):
    """One sha256 over name, dtype, shape and bytes of everything in a checkpoint."""
    arrays, _ = checkpoint.read(workdir, step=step)
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()


def logged(workdir, name="loss"):
    return {line["step"]: line[name] for line in metrics.read(workdir) if name in line}


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """30 steps in one go."""
    workdir = tmp_path_factory.mktemp("straight")
    assert run(make(corpus), workdir) == 0
    return workdir


# --- resuming ---


def test_cut_at_five_places_is_the_same_to_the_last_bit(corpus, straight, tmp_path):
    """Parameters, optimiser state, carry and every loss, with dropout on."""
    for stop in (3, 10, 11, 19, 29):
        assert run(make(corpus), tmp_path, stop_at=stop) == 0
        assert checkpoint.read(tmp_path)[1]["step"] == stop
    assert run(make(corpus), tmp_path) == 0
    assert digest_of(tmp_path) == digest_of(straight)
    assert logged(tmp_path) == logged(straight) and len(logged(straight)) == 30
    assert logged(tmp_path, "heldout/next") == logged(straight, "heldout/next")
    assert {name.split("/")[0] for name in checkpoint.read(straight)[0]} == {"params", "opt_state", "carry", "step"}


def test_the_comparison_can_fail(corpus, straight, tmp_path):
    """Another seed, or the same without dropout, gives other bits; a carry that is not zero is in the checkpoint."""
    for changed in ({"seed": 8}, {"model__dropout": 0.0}):
        workdir = tmp_path / next(iter(changed))
        run(make(corpus, **changed), workdir)
        assert digest_of(workdir) != digest_of(straight)
    assert np.abs(checkpoint.read(straight, "^carry/")[0]["carry/layer_0"]).max() > 0.01


def test_a_finished_run_is_left_as_it_is(corpus, straight):
    before = digest_of(straight)
    assert run(make(corpus), straight) == 0
    assert digest_of(straight) == before and len(logged(straight)) == 30


def test_a_longer_run_goes_on_and_says_what_that_changes(corpus, tmp_path):
    run(make(corpus, total="5 steps"), tmp_path)
    run(make(corpus, total="8 steps", log_every="2 steps", mesh__data=2), tmp_path, devices=slice(0, 2))
    assert checkpoint.read(tmp_path)[1]["step"] == 8
    log = (tmp_path / "train.log").read_text()
    assert "config.total is '8 steps' here and '5 steps' in the checkpoint" in log
    assert "the length of the run changes its learning-rate schedule" in log
    assert "config.log_every" in log and "config.mesh.data is 2 here and -1 in the checkpoint" in log


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"seed": 8}, r"config\.seed is 8 here and 7 in the checkpoint"),
        ({"model__width": 32}, r"config\.model\.width is 32 here and 16 in the checkpoint"),
        ({"objective__smoothing": 0.1}, r"config\.objective\.smoothing is 0.1 here and 0.0"),
        ({"optim__lr": 0.02}, r"config\.optim\.lr is 0.02 here and 0.01"),
        ({"optim__schedule__warmup": "20%"}, r"config\.optim\.schedule\.warmup is '20%' here and '10%'"),
        ({"batch_size": 16}, r"config\.batch_size is 16 here and 8"),
        ({"accum_steps": 2}, r"config\.accum_steps is 2 here and 1"),
        ({"source__length": 4}, r"config\.source\.length is 4 here and 8"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_checkpoint_fixes_is_refused_by_name(corpus, straight, changed, words):
    before = sorted((straight / "checkpoints").iterdir())
    with pytest.raises(ConfigError, match=words):
        run(make(corpus, **changed), straight)
    assert sorted((straight / "checkpoints").iterdir()) == before


def test_other_data_and_another_tokenizer_are_refused_by_name(corpus, straight, tmp_path):
    data = outside.write_corpus(tmp_path / "data", seed=1)
    with pytest.raises(ConfigError, match=r"the data's shards is \w+ here and \w+ in the checkpoint"):
        run(make(data), straight)
    pieces = pathlib.Path(outside.write_corpus(tmp_path / "pieces")) / "vocab.txt"
    pieces.write_text(pieces.read_text().replace("n5", "five"))
    with pytest.raises(ConfigError, match=r"the tokenizer is \w+ here and \w+ in the checkpoint"):
        run(make(pieces.parent), straight)
    # The same data somewhere else is the same data.
    assert run(make(outside.write_corpus(tmp_path / "copy")), straight) == 0


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(corpus, straight, tmp_path):
    run(make(corpus, save_every="5 steps"), tmp_path, stop_at=15)
    path = max((tmp_path / "checkpoints" / "00000015" / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    run(make(corpus), tmp_path)
    log = (tmp_path / "train.log").read_text()
    assert f"{path} is not what was written" in log and "using step 10" in log and "continuing from step 10" in log
    assert digest_of(tmp_path) == digest_of(straight)
    assert logged(tmp_path) == logged(straight)


# --- stopping, with real processes ---


@contextlib.contextmanager
def start(corpus, workdir, *flags):
    """A training process that does not outlive its test."""
    command = [sys.executable, "-m", "ctxjax.train", "--config", f"tests/engine/outside.py:corpus={corpus}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    command += ["--workdir", str(workdir), *flags]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_step(process, step):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"step {step}/"):
            return
    pytest.fail("".join(lines))


def test_sigterm_saves_and_exits_and_the_same_command_continues(corpus, straight, tmp_path):
    with start(corpus, tmp_path, "--config.total=100000 steps", "--config.save_every=100000 steps") as process:
        wait_for_step(process, 20)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output = process.stderr.read()
        assert process.wait(timeout=30) == progress.PREEMPTED == 143, output
        assert time.monotonic() - began < 10
    step = checkpoint.read(tmp_path)[1]["step"]
    assert step >= 20 and digests.steps(tmp_path / "checkpoints") == [step]
    assert "the same command continues" in output
    more = f"--config.total={step + 5} steps"
    with start(corpus, tmp_path, more) as process:
        output = process.stderr.read()
        assert process.wait(timeout=60) == 0, output
    assert f"continuing from step {step}" in output
    assert checkpoint.read(tmp_path)[1]["step"] == step + 5
    assert json.loads((tmp_path / "record.json").read_text())["steps"] == step + 5


@pytest.mark.slow
def test_killed_while_training_again_and_again_it_ends_the_same(corpus, straight, tmp_path):
    """kill -9 at random instants of a run that saves after every step; then it runs to its end."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        with start(corpus, tmp_path, "--config.save_every=1 steps") as process:
            time.sleep(rng.uniform(4, 9))
            process.kill()
    with start(corpus, tmp_path, "--config.save_every=1 steps") as process:
        output = process.stderr.read()
        assert process.wait(timeout=60) == 0, output
    assert digest_of(tmp_path) == digest_of(straight)
    assert logged(tmp_path) == logged(straight)


# --- numbers that are not finite ---


def test_a_step_that_is_not_finite_is_skipped_and_counted(corpus, tmp_path):
    settings = {"source__poison_from": 5, "source__poison_to": 7}
    for stop in (5, 6, 7, 8):
        run(make(corpus, **settings), tmp_path, stop_at=stop)
    three = [checkpoint.read(tmp_path, step=step)[0] for step in (6, 7, 8)]
    for name in three[0]:
        if name != "step":
            assert three[0][name].tobytes() == three[1][name].tobytes(), f"{name} changed in a skipped step"
    assert any(three[1][name].tobytes() != three[2][name].tobytes() for name in three[0])
    assert [int(arrays["step"]) for arrays in three] == [6, 7, 8]
    assert [logged(tmp_path, "skipped")[step] for step in (5, 6, 7, 8)] == [0, 1, 1, 0]
    assert np.isnan(logged(tmp_path)[6]) and np.isfinite(logged(tmp_path)[8])


def test_too_many_in_a_row_end_the_run_without_a_checkpoint_that_is_not_finite(corpus, tmp_path):
    settings = {"source__poison_from": 12, "source__poison_to": 100, "max_skipped": 3, "save_every": "2 steps"}
    with pytest.raises(RunError, match="3 steps in a row"):
        run(make(corpus, **settings), tmp_path)
    steps = digests.steps(tmp_path / "checkpoints")
    assert steps[-1] in (12, 14)
    for step in steps:
        arrays, _ = checkpoint.read(tmp_path, step=step)
        assert all(np.isfinite(array).all() for array in arrays.values())
    # Fewer than that in a row, again and again, do not end it.
    scattered = make(corpus, source__poison_from=3, source__poison_to=5, max_skipped=3)
    assert run(scattered, tmp_path / "scattered") == 0


def test_log_intervals_count_skipped_steps_and_leave_them_out_of_the_mean(corpus, straight, tmp_path):
    settings = {"source__poison_from": 5, "source__poison_to": 7, "log_every": "10 steps"}
    run(make(corpus, **settings), tmp_path, stop_at=10)
    assert logged(tmp_path, "skipped") == {10: 2}
    losses = logged(straight)
    before = [losses[step] for step in range(1, 6)]
    assert min(before) - 0.5 < logged(tmp_path)[10] < max(before) + 0.5


# --- meshes ---


@pytest.mark.parametrize(
    "sizes, count",
    [((8, 1, 1), 8), ((1, 8, 1), 8), ((2, 2, 2), 8), ((2, 1, 1), 2), ((4, 1, 1), 4)],
    ids=str,
)
def test_every_mesh_has_the_losses_of_one_device(corpus, straight, tmp_path, sizes, count):
    data, fsdp, tensor = sizes
    config = make(corpus, mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor)
    run(config, tmp_path, devices=slice(0, count))
    want, have = logged(straight), logged(tmp_path)
    assert want.keys() == have.keys()
    np.testing.assert_allclose([have[step] for step in want], list(want.values()), rtol=1e-5)
    np.testing.assert_allclose(
        list(logged(tmp_path, "heldout/next").values()), list(logged(straight, "heldout/next").values()), rtol=1e-5
    )


def test_a_run_may_move_to_another_mesh(corpus, straight, tmp_path):
    run(make(corpus, mesh__fsdp=2, mesh__tensor=2), tmp_path, stop_at=12, devices=slice(0, 8))
    run(make(corpus), tmp_path)
    want, have = logged(straight), logged(tmp_path)
    np.testing.assert_allclose([have[step] for step in want], list(want.values()), rtol=1e-5)


def test_accumulation_has_the_losses_of_the_whole_batch(corpus, tmp_path):
    """Without dropout, whose draws go by micro-batch."""
    for accum in (1, 2, 4):
        run(make(corpus, accum_steps=accum, model__dropout=0.0), tmp_path / str(accum))
    want = logged(tmp_path / "1")
    for accum in (2, 4):
        have = logged(tmp_path / str(accum))
        np.testing.assert_allclose([have[step] for step in want], list(want.values()), rtol=1e-5)


# --- the run folder ---


def test_the_run_folder_tells_everything(straight):
    names = {path.name for path in straight.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "tokenizer", "record.json", "train.log"} <= names
    last = [line for line in metrics.read(straight) if "loss" in line][-1]
    for name in (
        "loss next next_perplexity accuracy grad_norm lr tokens epoch step_seconds tokens_per_second flops_per_second "
        "data_wait checkpoint_stall_seconds padding skipped"
    ).split():
        assert name in last, name
    assert last["tokens"] == 30 * 64 and last["next_perplexity"] == pytest.approx(np.exp(last["next"]))
    record = json.loads((straight / "record.json").read_text())
    assert record["steps"] == 30 and record["parameters"] == 1287
    assert record["evaluation"]["heldout/next_perplexity"] < 23
    assert record["config"]["source"]["corpus"].count("/") == 0
    text = json.dumps(record)
    assert str(straight) not in text and os.uname().nodename not in text
    for session in record["sessions"]:
        spans = sum(seconds for name, seconds in session.items() if name != "wall")
        assert spans == pytest.approx(session["wall"], rel=0.01)
        assert {"start", "compile", "step", "save", "eval", "data_wait"} <= set(session)
    meta = checkpoint.read(straight, "^step$")[1]
    assert meta["config"]["model"]["width"] == 16 and meta["data"]["shards"] and meta["tokenizer"]
    folder = digests.step_folder(straight / "checkpoints", 30)
    assert (folder / "tokenizer" / "vocab.txt").read_text() == (straight / "tokenizer" / "vocab.txt").read_text()


def test_an_evaluation_off_the_log_lines_knows_its_tokens(corpus, tmp_path):
    """Or curves over tokens would lose it."""
    run(make(corpus, total="6 steps", log_every="6 steps", eval_every="2 steps"), tmp_path)
    held = [line for line in metrics.read(tmp_path) if "heldout/next" in line]
    assert [line["tokens"] for line in held] == [2 * 64, 4 * 64, 6 * 64]


def test_training_learns(straight):
    losses = list(logged(straight).values())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


def test_profile_and_tensorboard_when_asked(corpus, tmp_path):
    run(make(corpus, total="6 steps", profile_steps="2:4", tensorboard=True), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_on_a_terminal_there_is_a_bar_with_the_time_left(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    run(make(corpus, total="6 steps", log_every="3 steps"), tmp_path)
    shown = capsys.readouterr().err
    assert "6/6 [" in shown and "tokens/s]" in shown and "loss 3." in shown
    assert "step 3/6" not in shown, "the bar takes the place of the lines, which are in train.log"
    assert "step 3/6" in (tmp_path / "train.log").read_text()
