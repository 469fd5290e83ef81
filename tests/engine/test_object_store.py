"""Run folders in a bucket: the same bits, figures and files as on a disk, against an emulator of Google's store.

Skipped without gcsfs (extra [gcs]) and gcp-storage-emulator, to be installed by pip; arrays go through TensorStore's
own client.
"""

import json
import os
import pathlib
import socket

import jax
import numpy as np
import pytest

import ctxjax
from ctxjax import checkpoint, digests, evaluate, folders, inspect, metrics, page, paths, seeds, sweep
from ctxjax.config import ConfigError
from ctxjax.train import main
from tests.engine.test_loop import corpus, digest_of, logged, make  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
SHORT = {"total": "12 steps", "save_every": "4 steps", "eval_every": "4 steps", "keep": 2}
ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def bucket():
    """gs://BUCKET of an emulator in this process, which two clients find by environment variables."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google what kind of bucket it is
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="ctxjax-runs")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, f"http://127.0.0.1:{port}")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        patch.setenv("EPATH_USE_TF", "false")
        yield "gs://ctxjax-runs"
    server.stop()


@pytest.fixture(scope="module")
def short(corpus, tmp_path_factory):  # noqa: F811
    """12 steps in one go, on the disk."""
    workdir = tmp_path_factory.mktemp("short")
    assert train(make(corpus, **SHORT), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def run(bucket, corpus):  # noqa: F811
    """The same in the bucket, cut after step 5."""
    workdir = f"{bucket}/line/run"
    assert train(make(corpus, **SHORT), workdir, stop_at=5) == 0
    assert folders.find(workdir).name == "00000005"
    assert train(make(corpus, **SHORT), workdir) == 0
    return workdir


def train(config, workdir, stop_at=None):
    return seeds.train(config, workdir, stop_at=stop_at, devices=jax.devices()[:1])


def test_cut_and_continued_in_a_bucket_is_the_same_to_the_last_bit(short, run):
    assert digest_of(run) == digest_of(short)
    assert logged(run) == logged(short) and len(logged(short)) == 12
    assert logged(run, "heldout/next") == logged(short, "heldout/next")
    assert not (pathlib.Path("gs:")).exists(), "a folder of that name was made here"


def test_the_folder_in_a_bucket_is_that_on_a_disk(short, run):
    def names(folder):
        return {name for name in digests.files_of(folder) if "/state/" not in name}

    assert names(run) == names(short)
    assert digests.steps(paths.at(run) / "checkpoints") == digests.steps(short / "checkpoints") == [8, 12]
    log = (paths.at(run) / "train.log").read_text()
    assert "stopped; the same command continues" in log and "continuing from step 5 of 12" in log
    lines = metrics.read(run, everything=True)
    assert [line["resumed"] for line in lines if "resumed" in line] == [0, 5]
    record = json.loads((paths.at(run) / "record.json").read_text())
    assert record["evaluation"] == json.loads((short / "record.json").read_text())["evaluation"]
    assert len(record["sessions"]) == 2


def test_a_finished_run_has_nothing_left_to_do(corpus, run, capfd):  # noqa: F811
    assert train(make(corpus, **SHORT), run) == 0
    assert "nothing to do: all 12 steps are done" in capfd.readouterr().err


def test_a_run_begins_with_one_in_a_bucket(corpus, run, tmp_path):  # noqa: F811
    settings = {"total": "1 steps", "init_from__path": run, "optim__lr": 0.0}
    assert train(make(corpus, **settings), tmp_path) == 0
    kept, _ = checkpoint.read(tmp_path, "^params/")
    theirs, _ = checkpoint.read(run, "^params/")
    assert all(np.array_equal(kept[name], theirs[name]) for name in theirs)
    assert "ctxjax-runs" not in (tmp_path / "record.json").read_text(), "the bucket's name is in the record"


def test_programs_read_a_bucket(corpus, run, tmp_path, capsys):  # noqa: F811
    assert evaluate.main(["--workdir", run, "--record", f"{run}/records"]) == 0
    found = json.loads(capsys.readouterr().out)
    record = json.loads((paths.at(run) / "record.json").read_text())
    assert found["step"] == 12 and found["heldout/next"] == pytest.approx(
        record["evaluation"]["heldout/next"], rel=1e-6
    )
    assert [path.suffix for path in (paths.at(run) / "records").iterdir()] == [".json"]
    assert inspect.main([run, "--verify"]) == 0
    out = capsys.readouterr().out
    assert f"checkpoints  {run}/checkpoints" in out and "every file is as written" in out
    assert inspect.main([f"{run}/checkpoints/00000008"]) == 0
    assert "steps        8; this is 8" in capsys.readouterr().out
    assert page.read_runs([run])["run"]["steps"] == 12
    with pytest.raises(ConfigError, match="holds no complete checkpoint"):
        folders.find(f"{run}/elsewhere")
    with pytest.raises(ConfigError, match="the bucket gs://ctxjax-ruins does not exist"):
        folders.find(run.replace("runs", "ruins", 1))


def test_a_shortened_object_is_found_and_the_step_before_it_used(corpus, run, short, capfd):  # noqa: F811
    """What the store itself cannot know: that somebody wrote another object in its place."""
    copy = paths.at(run).parent / "damaged"
    for name, path in digests.files_of(run).items():
        (copy / name).write_bytes(path.read_bytes())
    for step in (8, 12):
        name = f"checkpoints/{step:08d}/{digests.DIGESTS}"
        (copy / name).write_bytes((paths.at(run) / name).read_bytes())
    (copy / "checkpoints/00000012/tokenizer/vocab.txt").write_text("n0")
    (copy / "checkpoints/00000013/state").write_text("half")
    assert train(make(corpus, **SHORT), copy) == 0
    err = capfd.readouterr().err
    assert "the checkpoint of step 12 is damaged" in err and "removed" in err and "continuing from step 8" in err
    assert digest_of(copy) == digest_of(short)


def test_seeds_at_once_and_a_sweep(bucket, corpus, tmp_path):  # noqa: F811
    settings = {"total": "6 steps", "save_every": "2 steps", "eval_every": "2 steps", "seeds": 2, "seeds_at_once": 2}
    config = make(corpus, **settings, best="lowest heldout/next")
    for workdir in (tmp_path / "grid", paths.at(f"{bucket}/grid")):
        assert sweep.train({"lr=0.01": config}, workdir) == 0
        rows = sweep.read(workdir, ["lr=0.01"])
        sweep.write(workdir, rows, ["lr=0.01"], "lowest heldout/next")
        for seed in (7, 8):
            one = workdir / "lr=0.01" / f"seed_{seed}"
            assert logged(one) == logged(tmp_path / "grid" / "lr=0.01" / f"seed_{seed}") and len(logged(one)) == 6
            assert digest_of(one) == digest_of(tmp_path / "grid" / "lr=0.01" / f"seed_{seed}")
        assert json.loads((workdir / "record.json").read_text())["sweep"]["runs"][0]["run"] == "lr=0.01"
    with pytest.raises(ConfigError, match="holds runs of several seeds"):
        folders.find(f"{bucket}/grid/lr=0.01")


def test_counts_and_a_language_model_are_loaded_from_a_bucket(bucket, tmp_path):
    """By the programs themselves; the same figures as from a disk."""
    for config in ("experiments/ngram/count.py:size=bigram,smoke", "experiments/nnlm/pretrain.py:smoke"):
        name = config.split("/")[1]
        for folder in (tmp_path, bucket):
            more = [] if name == "ngram" else ["--config.total=2 steps"]
            assert main(["--config", str(ROOT / config), "--workdir", f"{folder}/{name}", *more]) == 0
        here, there = (ctxjax.load(f"{folder}/{name}") for folder in (tmp_path, bucket))
        assert repr(there).replace(bucket, str(tmp_path)) == repr(here)
        text = "the man of the house"
        np.testing.assert_allclose(there.score([text]), here.score([text]), rtol=1e-6)


def test_a_profile_and_pictures_of_curves_are_uploaded(bucket, corpus, tmp_path):  # noqa: F811
    pytest.importorskip("tensorboardX")
    workdir = paths.at(f"{bucket}/profiled")
    made = make(corpus, total="4 steps", profile_steps="1:2", tensorboard=True)
    assert train(made, workdir) == 0
    names = set(digests.files_of(workdir))
    assert any(name.startswith("tensorboard/events") for name in names)
    assert any(name.startswith("profile/") for name in names)
