"""Checkpoints: exact on any mesh, complete or absent, and every damaged byte found and named."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax import checkpoint, digests, sharding
from ctxjax.checkpoint import Checkpoints, RunError
from ctxjax.config import ConfigError
from tests.engine.states import abstract_on, place, same, state_of

ROOT = pathlib.Path(__file__).parent.parent.parent
META = {"config": {"seed": 1}, "data": {}, "tokenizer": "t"}


@pytest.fixture
def one():
    return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1, 2, 3, saved once; tests copy the folder before they damage it."""
    folder = tmp_path_factory.mktemp("saved")
    vocab = folder / "vocab.txt"
    vocab.write_text("a\nb\n")
    checkpoints = Checkpoints(folder / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step), META, {"tokenizer/vocab.txt": vocab})
    checkpoints.close()
    return folder / "checkpoints"


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def test_what_is_restored_is_what_was_saved(saved, one):
    state, meta, step = Checkpoints(saved).restore(abstract_on(state_of(0), one))
    assert step == 3 and same(state, state_of(3))
    assert meta["config"] == {"seed": 1} and meta["step"] == 3
    assert (saved / "00000003" / "tokenizer" / "vocab.txt").read_text() == "a\nb\n"
    state, _, step = Checkpoints(saved).restore(abstract_on(state_of(0), one), step=1)
    assert step == 1 and same(state, state_of(1))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_any_mesh_opens_on_any_other(tmp_path, sizes):
    meshes = [sharding.make_mesh(*other) for other in [(8, 1, 1), (1, 8, 1), (2, 2, 2)]]
    meshes += [sharding.make_mesh(devices=jax.devices()[:count]) for count in (1, 2, 4)]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, place(state_of(5), sharding.make_mesh(*sizes)), META, block=True)
    for mesh in meshes:
        wanted = abstract_on(state_of(0), mesh)
        state, _, _ = checkpoints.restore(wanted)
        assert same(state, state_of(5))
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, wanted)
    checkpoints.close()


def test_a_donated_state_may_be_overwritten_while_it_is_saved(tmp_path, one):
    """On CPU the writer would otherwise read the very buffers that the next step reuses."""
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 + 7, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path)
    state = place(state_of(1, rows=8192, width=256), one)
    checkpoints.save(1, state, META)
    for _ in range(5):
        state = step(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    restored, _, _ = checkpoints.restore(abstract_on(state, one))
    assert same(restored, state_of(1, rows=8192, width=256))
    checkpoints.close()


def test_read_gives_numpy_by_path_name(saved):
    arrays, meta = checkpoint.read(saved.parent, "^params/")
    want = state_of(3).params
    assert set(arrays) == {
        "params/embed/tokens/embedding",
        "params/layer_0/mlp/in/kernel",
        "params/layer_0/mlp/in/bias",
        "params/head/scale",
        "params/head/half",
    }
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    np.testing.assert_array_equal(arrays["params/layer_0/mlp/in/kernel"], want["layer_0"]["mlp"]["in"]["kernel"])
    assert arrays["params/head/half"].dtype == jnp.bfloat16
    assert meta["state"]["params/head/half"] == ["bfloat16", [8, 4]]
    assert checkpoint.read(saved / "00000002")[1]["step"] == 2
    assert checkpoint.read(saved, step=1)[1]["step"] == 1
    with pytest.raises(ConfigError, match=r"no array of .* matches"):
        checkpoint.read(saved, "^nothing$")
    with pytest.raises(ConfigError, match="no checkpoint of step 9"):
        checkpoint.read(saved, step=9)


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state_of(step), META)
    checkpoints.close()
    assert checkpoints.steps() == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "00000004"]


def test_empty_unmarked_and_foreign_folders_are_no_steps(copy, one):
    (copy / "00000009").mkdir()
    shutil.copytree(copy / "00000003", copy / "00000008")
    (copy / "00000008" / digests.DIGESTS).unlink()
    (copy / "10").mkdir()
    (copy / "00000007").write_text("a file")
    (copy / "notes").mkdir()
    (copy / "00000006.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(copy, keep=2)
    assert checkpoints.steps() == [1, 2, 3] and checkpoints.latest() == 3
    assert checkpoints.restore(abstract_on(state_of(0), one))[2] == 3
    # None of them counts when old steps are deleted, and a save takes the place of what a kill has left.
    checkpoints.save(8, state_of(8), META, block=True)
    assert checkpoints.steps() == [3, 8]
    assert same(checkpoints.restore(abstract_on(state_of(0), one))[0], state_of(8))
    checkpoints.close()


def test_clean_removes_what_a_kill_left_and_nothing_else(copy):
    lines = []
    (copy / "00000003" / digests.DIGESTS).unlink()
    (copy / "00000004" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (copy / "00000005").mkdir()
    (copy / "00000006").mkdir()
    (copy / "00000006" / "thesis.tex").write_text("mine")
    Checkpoints(copy, report=lines.append).clean()
    assert sorted(path.name for path in copy.iterdir()) == ["00000001", "00000002", "00000005", "00000006"]
    assert len(lines) == 2 and all("never completed" in line for line in lines)


def test_a_flipped_bit_in_any_file_is_found_and_named(saved, tmp_path, one):
    """Every file of a step, one bit each: the file is named and the step before is used."""
    names = [*digests.files_of(saved / "00000003"), digests.DIGESTS]
    assert any(name.startswith("state/") for name in names) and "meta.json" in names
    rng = random.Random(0)
    for number, name in enumerate(names):
        copy = pathlib.Path(shutil.copytree(saved, tmp_path / str(number)))
        path = copy / "00000003" / name
        content = bytearray(path.read_bytes())
        if not content:
            continue  # an empty file has no bit to flip; it is deleted in the test below
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        lines = []
        checkpoints = Checkpoints(copy, report=lines.append)
        assert checkpoints.pick() == 2
        assert len(lines) == 1 and str(path) in lines[0] and "using step 2" in lines[0]
        assert checkpoints.steps() == [1, 2], "a damaged step is no step any more"
        shutil.rmtree(copy)
    assert same(Checkpoints(saved).restore(abstract_on(state_of(0), one))[0], state_of(3))


@pytest.mark.parametrize("how", ["delete", "halve"])
def test_a_deleted_or_truncated_file_is_found_and_named(saved, tmp_path, how):
    for number, name in enumerate(digests.files_of(saved / "00000003")):
        copy = pathlib.Path(shutil.copytree(saved, tmp_path / str(number)))
        path = copy / "00000003" / name
        if how == "delete":
            path.unlink()
        elif path.stat().st_size:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            continue
        lines = []
        assert Checkpoints(copy, report=lines.append).pick() == 2
        assert str(path) in lines[0]
        shutil.rmtree(copy)


def test_a_damaged_step_that_was_asked_for_is_an_error(copy, one):
    path = copy / "00000002" / "meta.json"
    path.write_text(path.read_text().replace("config", "c0nfig"))
    with pytest.raises(ConfigError, match=r"step 2 is damaged: .*meta\.json is not what was written"):
        Checkpoints(copy).restore(abstract_on(state_of(0), one), step=2)
    with pytest.raises(ConfigError, match=r"damaged: .*meta\.json"):
        checkpoint.read(copy, step=2)
    with pytest.raises(ConfigError, match="no checkpoint of step 7"):
        Checkpoints(copy).restore(abstract_on(state_of(0), one), step=7)


def test_nothing_good_is_one_sentence(copy, one):
    for step in (1, 2, 3):
        (copy / f"{step:08d}" / "meta.json").unlink()
    with pytest.raises(ConfigError, match="no checkpoint that can be restored"):
        Checkpoints(copy, report=lambda line: None).restore(abstract_on(state_of(0), one))


def _with_half(state, leaf):
    return state.replace(params={**state.params, "head": {**state.params["head"], "half": leaf}})


def _reshaped(state):
    return _with_half(state, jnp.zeros((8, 5), jnp.bfloat16))


def _recast(state):
    return _with_half(state, jnp.zeros((8, 4)))


def _more(state):
    return state.replace(params={**state.params, "extra": jnp.zeros(3)})


def _fewer(state):
    return state.replace(params={name: leaf for name, leaf in state.params.items() if name != "head"})


@pytest.mark.parametrize(
    "change, words",
    [
        (_reshaped, r"params/head/half is bfloat16\[8, 4\] where bfloat16\[8, 5\] is expected"),
        (_recast, r"params/head/half is bfloat16\[8, 4\] where float32\[8, 4\] is expected"),
        (_more, "params/extra is missing"),
        (_fewer, "params/head/half is not expected"),
    ],
)
def test_another_shape_dtype_or_path_is_refused_by_name(saved, one, monkeypatch, change, words):
    monkeypatch.setattr(checkpoint, "load_arrays", lambda *_: pytest.fail("arrays were read"))
    with pytest.raises(ConfigError, match=words):
        Checkpoints(saved).restore(abstract_on(change(state_of(0)), one))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    for bad in (np.nan, np.inf):
        state = state_of(1)
        state.params["head"]["half"] = state.params["head"]["half"].at[3, 1].set(bad)
        checkpoints = Checkpoints(tmp_path)
        with pytest.raises(RunError, match="step 1 are not finite"):
            checkpoints.save(1, state, META)
        assert not list(tmp_path.iterdir())


def test_a_failed_write_names_path_and_free_space_and_keeps_the_steps_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state_of(1), META, block=True)

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digests, "commit", full)
    checkpoints.save(2, state_of(2), META)
    with pytest.raises(
        RunError, match=r"00000002 could not be written .*No space left.* MiB are free.*step 1 is whole"
    ):
        checkpoints.wait()
    assert checkpoints.steps() == [1] and not (tmp_path / "00000002").exists()
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax drops its other failed writes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk(tmp_path, one):
    """A real file system of 24 MB, where mounting one is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        checkpoints = Checkpoints(disk, keep=50)
        with pytest.raises(RunError, match=r"could not be written .* MiB are free"):
            for step in range(1, 50):
                checkpoints.save(step, state_of(step, rows=8192, width=64), META)
        good = checkpoints.steps()
        assert len(good) >= 2 and good == list(range(1, len(good) + 1))
        state, _, step = checkpoints.restore(abstract_on(state_of(0, rows=8192, width=64), one))
        assert step == good[-1] and same(state, state_of(step, rows=8192, width=64))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_files_stay_within_the_step_folder(tmp_path):
    for name in ("../escape", "/etc/passwd", "a/../../b", ""):
        with pytest.raises(ConfigError, match="not a plain relative path"):
            Checkpoints(tmp_path / "checkpoints").save(1, state_of(1), META, {name: __file__})
    assert not (tmp_path / "checkpoints").exists()


def _kill_while_saving(folder: pathlib.Path, kills: int, one) -> None:
    """Kill a saving process at random instants; what it called committed must be there, and right to the bit."""
    rng = random.Random(kills)
    committed = 0
    for _ in range(kills):
        command = [sys.executable, "-m", "tests.engine.saver", str(folder), str(committed + 1)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as child:
            assert child.stdout is not None
            assert any(line.startswith("saving") for line in child.stdout), "the child ended by itself"
            time.sleep(rng.uniform(0, 0.4))
            child.kill()
            for line in child.stdout:
                if line.startswith("committed") and line.endswith("\n"):
                    committed = int(line.split()[1])
        lines = []
        checkpoints = Checkpoints(folder, keep=2, report=lines.append)
        there = checkpoints.steps()
        assert committed == 0 or (there and there[-1] >= committed), "a committed step is gone"
        for step in there:
            assert not digests.verify(digests.step_folder(folder, step))
        if there:
            state, _, step = checkpoints.restore(abstract_on(state_of(0, rows=4096, width=64), one))
            assert step == there[-1] and not lines
            assert same(state, state_of(step, rows=4096, width=64))
            committed = step
    assert committed > 0


def test_kill_9_while_saving_loses_nothing_committed(tmp_path, one):
    _kill_while_saving(tmp_path / "checkpoints", 5, one)


@pytest.mark.slow
def test_kill_9_twenty_times(tmp_path, one):
    _kill_while_saving(tmp_path / "checkpoints", 20, one)


def test_the_commit_lists_every_file_with_its_digest(saved):
    import xxhash

    content = json.loads((saved / "00000001" / digests.DIGESTS).read_text())
    files = {str(path.relative_to(saved / "00000001")) for path in (saved / "00000001").rglob("*") if path.is_file()}
    assert set(content["files"]) == files - {digests.DIGESTS}
    for name, about in content["files"].items():
        data = (saved / "00000001" / name).read_bytes()
        assert about == {"bytes": len(data), "xxh3_128": xxhash.xxh3_128(data).hexdigest()}
