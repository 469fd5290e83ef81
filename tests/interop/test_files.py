"""Files from elsewhere: nothing is unpickled, no header is believed, no name leads out of the folder."""

import json
import os
import pickle
import struct

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

import ctxjax
from ctxjax.config import ConfigError
from ctxjax.interop import files, hf_bert
from ctxjax.interop.hdf5 import Arrays


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


BERT = {
    "model_type": "bert",
    "vocab_size": 11,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
    "hidden_act": "gelu_new",
}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.joblib", "x.pth"])
def test_pickles_are_refused_by_name_and_never_run(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BERT))
    with open(folder / name, "wb") as file:
        pickle.dump({"bomb": Bomb(tmp_path / "exploded")}, file)
    for path in (folder, folder / name):
        with pytest.raises(ConfigError, match="is a pickle") as error:
            ctxjax.load(path)
        assert str(error.value).count(". ") == 0  # one sentence
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_called_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    with open(tmp_path / "model.safetensors", "wb") as file:
        pickle.dump({"bomb": Bomb(tmp_path / "exploded")}, file)
    with pytest.raises(ConfigError, match="not a safetensors file"):
        ctxjax.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


def header(path, entries, data=b"", length=None):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


@pytest.mark.parametrize(
    "entries, data, length, message",
    [
        ({}, b"", 2**62, "claims"),
        ({}, b"", files.HEADER_LIMIT + 1, "claims"),
        (b"[]", b"", None, "cannot be read"),
        (b"[" * 100_000, b"", None, "cannot be read"),
        (b"\x80\x04not json", b"", None, "cannot be read"),
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"\0" * 4, None, "not where"),
        ({"a": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 4]}}, b"\0" * 4, None, "not where"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, b"\0" * 4, None, "has 4 bytes"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, None, "not where"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8, None, "not where"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8, None, "belong to no tensor"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"", None, "damaged"),
        ({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4, None, "cannot be read"),
        ({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, b"\0" * 4, None, "not where"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4, None, "not where"),
    ],
)  # fmt: skip
def test_a_safetensors_header_is_not_believed(tmp_path, entries, data, length, message):
    header(tmp_path / "x.safetensors", entries, data, length)
    with pytest.raises(ConfigError, match=message):
        files.read_safetensors(tmp_path / "x.safetensors")


def test_a_truncated_file_is_refused_at_every_length(tmp_path):
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.int64)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    assert set(files.read_safetensors(tmp_path / "whole")) == {"a", "b"}
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ConfigError):
            files.read_safetensors(tmp_path / "cut")


def test_what_safetensors_writes_is_read(tmp_path):
    arrays = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([0.5, -2.0], np.float16),
        "scalar": np.array(3.5, np.float64),
        "empty": np.zeros((0, 4), np.float32),
        "ids": np.arange(4).reshape(1, 4),
    }
    save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    read = files.read_safetensors(tmp_path / "x")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and np.array_equal(read[name], array)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "..", ".hidden", "a\0b", "", "~"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="not a plain file name"):
        files.inside(tmp_path, name)
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    (tmp_path / hf_bert.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ConfigError, match="not a plain file name"):
        ctxjax.load(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(BERT))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(secret)
    with pytest.raises(ConfigError, match="link out of its folder"):
        ctxjax.load(folder)
    (folder / "config.json").unlink()
    (folder / "real.json").write_text("{}")
    (folder / "config.json").symlink_to("real.json")
    assert files.read_json(files.inside(folder, "config.json")) == {}


def test_links_of_the_hub_cache_are_followed(tmp_path):
    home = tmp_path / "models--some--bert"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / "abc").write_text("{}")
    snapshot = home / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert files.read_json(files.inside(snapshot, "config.json")) == {}
    (snapshot / "vocab.txt").symlink_to("../../../elsewhere")
    with pytest.raises(ConfigError, match="link out of its folder"):
        files.inside(snapshot, "vocab.txt")


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\ufeff[]", "nul\0"])
def test_bad_json_is_one_sentence(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.json is not"):
        files.read_json(tmp_path / "x.json")


def test_a_huge_description_is_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        os.truncate(file.fileno(), files.JSON_LIMIT + 1)
    with pytest.raises(ConfigError, match="no description"):
        files.read_json(tmp_path / "config.json")


def test_hdf5_links_and_outside_storage_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones(4, np.float32)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(np.ones(4, np.float32).tobytes())
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", (4,))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["outside"] = h5py.ExternalLink("secret.h5", "x")
        file["group"] = h5py.ExternalLink("secret.h5", "/")
        file["soft"] = h5py.SoftLink("/fine")
        file["fine"] = np.ones(4, np.float32)
        file.create_dataset("raw", (4,), np.float32, external=[(str(raw), 0, 16)])
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (2**40,), np.float32, chunks=(1024,))
        file["text"] = h5py.Empty("f")
        file["ints"] = np.ones(4, np.int32)
        file["nan"] = np.array([1, np.nan, 1, 1], np.float32)
    with Arrays(tmp_path / "w.h5") as arrays:
        for name in ("outside", "group/x", "soft"):
            with pytest.raises(ConfigError, match="not followed"):
                arrays.read(name, (4,))
        for name in ("raw", "virtual"):
            with pytest.raises(ConfigError, match="another file"):
                arrays.read(name, (4,))
        with pytest.raises(ConfigError, match="are stored"):
            arrays.read("huge", (2**40,))
        for name, message in {"ints": "int32", "nan": "finite", "text": "shape", "none": "no array"}.items():
            with pytest.raises(ConfigError, match=message):
                arrays.read(name, (4,))
        assert np.array_equal(arrays.read("fine", (4,)), np.ones(4))
        assert "outside" not in set(arrays.names()) and "fine" in set(arrays.names())


def test_hdf5_loops_end(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/x"] = np.ones(1, np.float32)
        file["a/back"] = file["/"]
    with Arrays(tmp_path / "w.h5") as arrays:
        assert sorted(arrays.names()) == ["a/x"]
    (tmp_path / "not.h5").write_bytes(b"no")
    with pytest.raises(ConfigError, match="not an HDF5 file"):
        Arrays(tmp_path / "not.h5")
