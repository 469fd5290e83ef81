"""`python -m ctxjax.inspect`: what is there, whether it is whole, and no device."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from ctxjax import inspect
from ctxjax.checkpoint import Checkpoints
from ctxjax.config import ConfigError
from ctxjax.data import generated
from tests.engine.states import state_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    vocab = folder / "vocab.txt"
    vocab.write_text("a\n")
    checkpoints = Checkpoints(folder / "checkpoints")
    meta = {"config": {"seed": 3, "model": {"name": "bert"}}, "tokenizer": "abc", "code": {"jax": "0.10"}, "data": {}}
    for step in (1, 2):
        checkpoints.save(step, state_of(step), meta, {"tokenizer/vocab.txt": vocab})
    checkpoints.close()
    return folder


def test_a_run_folder(saved, capsys):
    assert inspect.main([str(saved)]) == 0
    text = capsys.readouterr().out
    assert "steps        1, 2; this is 2" in text
    assert "params/layer_0/mlp/in/kernel  float32[32, 64]" in text and "params/head/half  bfloat16[8, 4]" in text
    assert "model.name = 'bert'" in text and "seed = 3" in text and "jax 0.10" in text
    elements = 64 * 32 + 32 * 64 + 64 + 1 + 32
    assert f"params       5 arrays, {elements:,} elements" in text
    assert "opt_state/" not in text.split("arrays that match")[1]


def test_a_step_folder_and_other_arrays(saved, capsys):
    assert inspect.main([str(saved / "checkpoints" / "00000001"), "--match", "^carry/"]) == 0
    text = capsys.readouterr().out
    assert "this is 1" in text and "carry/0  float32[8, 2, 3]" in text and "params/head" not in text
    assert inspect.main([str(saved), "--step", "1", "--json", "--verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 1 and found["steps"] == [1, 2] and found["problems"] == {"1": [], "2": []}


def test_verify_names_the_damaged_file(saved, tmp_path, capsys):
    copy = pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))
    path = copy / "checkpoints" / "00000001" / "tokenizer" / "vocab.txt"
    path.write_text("b\n")
    assert inspect.main([str(copy), "--verify"]) == 1
    text = capsys.readouterr().out
    assert f"step 1: {path} is not what was written" in text and "step 2: every file is as written" in text


def test_a_prepared_corpus(tmp_path, capsys):
    generated.write_corpus(tmp_path, "wordpiece", count=20)
    assert inspect.main([str(tmp_path), "--verify"]) == 0
    text = capsys.readouterr().out
    assert "every one as written" in text and "tokenizer.kind = 'wordpiece'" in text
    assert inspect.main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"]["kind"] == "wordpiece"
    shard = next(tmp_path.glob("train-*.array_record"))
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    assert inspect.main([str(tmp_path), "--verify"]) == 1
    assert f"{shard} is not what was written" in capsys.readouterr().out


def test_mistakes(saved, tmp_path):
    for arguments, words in [
        ([str(tmp_path)], "neither a complete checkpoint nor a prepared corpus"),
        ([str(saved), "--step", "5"], r"no checkpoint of step 5; it has \[1, 2\]"),
        ([str(saved), "--match", "["], "not a regular expression"),
    ]:
        with pytest.raises(ConfigError, match=words):
            inspect.main(arguments)


def test_no_device_and_a_closed_pipe(saved):
    """The backend is never started, and `inspect | head` is quiet."""
    script = (
        "import sys; from ctxjax import inspect; inspect.main([sys.argv[1], '--verify'])\n"
        "bridge = sys.modules.get('jax._src.xla_bridge')\n"
        "assert bridge is None or not bridge.backends_are_initialized(), 'a device was started'"
    )
    done = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = f"{sys.executable} -m ctxjax.inspect {saved} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("checkpoints") and not done.stderr
