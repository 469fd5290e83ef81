"""Files from elsewhere, read without trust: no pickle, no name outside the folder, no array on a header's word alone.

A published folder is read by fixed names. JSON, safetensors and HDF5 hold data alone; what a header claims is
compared with the size of the file, and with the shapes that the model wants, before an array is made.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ctxjax.config import ConfigError
from ctxjax.text.tokenizer import Tokenizer

JSON_LIMIT = 64 << 20  # a tokenizer.json of 30,522 pieces is 0.5 MB
HEADER_LIMIT = 16 << 20  # BERT-large's safetensors header is 0.05 MB
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt.pt")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class Published(NamedTuple):
    """A model in our names, whatever format it came from or goes to.

    Attributes:
      config: the `model` sub-dict of a config: `name` and the arguments of its `Model`.
      params: path name -> float32 array.
      tokenizer: None where the folder has no vocabulary.
      missing: heads that the file does not have, of "pooler", "mlm", "nsp", "softmax".
      notes: one sentence for everything that was left out.
    """

    config: dict[str, Any]
    params: dict[str, np.ndarray]
    tokenizer: Tokenizer | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def inside(folder: str | os.PathLike[str], name: str) -> pathlib.Path:
    """The path of a file in a folder.

    A link is followed only if it stays in the folder, or leads into the `blobs` of the Hugging Face cache that the
    folder is a snapshot of.

    Raises:
      ConfigError: a name with folders in it, or a link that leads elsewhere.
    """
    folder = pathlib.Path(folder)
    if not _PLAIN.fullmatch(name):
        raise ConfigError(f"{folder} names the file {name!r}, which is not a plain file name")
    path = folder / name
    if path.is_symlink():
        home = folder.resolve()
        allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
        target = path.resolve()
        if not any(target.is_relative_to(place) for place in allowed):
            raise ConfigError(f"{path} is a link out of its folder, to {target}; copy the file there instead")
    return path


def refuse_pickle(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError for the name of a file that only unpickling could read."""
    path = pathlib.Path(path)
    if path.name.endswith(PICKLES):
        raise ConfigError(
            f"{path} is a pickle, which can run any code and is never opened; have its author write model.safetensors, "
            "or transformers' save_pretrained, where you trust the file"
        )


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An object in a JSON file of bounded size.

    Raises:
      ConfigError: no such file, too large, not JSON, or not an object.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    if path.stat().st_size > JSON_LIMIT:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes, more than {JSON_LIMIT}: that is no description")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({str(error)[:100]})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return value


def field(values: Mapping[str, Any], name: str, kind: type, where: Any, default: Any = ...) -> Any:
    """A field of a description, of the wanted type.

    Raises:
      ConfigError: absent without a default, or of another type.
    """
    value = values.get(name, default)
    if value is ...:
        raise ConfigError(f"{where} has no field {name!r}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ConfigError(f"{where}: {name}={value!r} is not of type {kind.__name__}")
    return value


def size(values: Mapping[str, Any], name: str, where: Any, most: int = 1 << 24) -> int:
    """A positive integer field, small enough to be one."""
    value = field(values, name, int, where)
    if not 0 < value <= most:
        raise ConfigError(f"{where}: {name}={value} is not between 1 and {most}")
    return value


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, memory-mapped, so that only what is used is read.

    Raises:
      ConfigError: a header that is too large, is not JSON, or does not fit the file.
    """
    path = pathlib.Path(path)
    refuse_pickle(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    total = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else total
        if length > HEADER_LIMIT or 8 + length > total:
            raise ConfigError(f"{path} is not a safetensors file: its header claims {length} of {total} bytes")
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        described = [(n, _DTYPES[e["dtype"]], tuple(e["shape"]), *e["data_offsets"]) for n, e in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a safetensors file: its header cannot be read ({error!r:.80})") from None
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if total > 8 + length else np.zeros(0, np.uint8)
    arrays: dict[str, np.ndarray] = {}
    end_before = 0
    for name, dtype, shape, begin, end in sorted(described, key=lambda entry: entry[3:]):
        numbers = (*shape, begin, end)
        if not all(type(number) is int and 0 <= number <= total for number in numbers) or begin != end_before:
            raise ConfigError(f"{path} is damaged: tensor {name!r} is not where its header says")
        if end > len(data) or end - begin != _count(shape) * dtype.itemsize:
            raise ConfigError(f"{path} is damaged: tensor {name!r} of shape {list(shape)} has {end - begin} bytes")
        arrays[name] = data[begin:end].view(dtype).reshape(shape)
        end_before = end
    if end_before != len(data):
        raise ConfigError(f"{path} is damaged: {len(data) - end_before} bytes belong to no tensor")
    return arrays


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write float32 tensors, whole or not at all, with the metadata that torch's readers ask for."""
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.partial")
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    save_file(tensors, part, metadata={"format": "pt"})  # readable by its owner alone, unlike any other file
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(part, 0o666 & ~mask)
    os.replace(part, path)


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.partial")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def take(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], where: Any) -> np.ndarray:
    """One array as float32, its shape compared first.

    Raises:
      ConfigError: it is missing, or of another shape, or not finite numbers.
    """
    if name not in arrays:
        raise ConfigError(f"{where} has no array {name!r}")
    found = arrays[name]
    if tuple(found.shape) != shape:
        raise ConfigError(f"{where}: {name} has shape {list(found.shape)} where {list(shape)} is expected")
    if found.dtype.kind not in "fV":
        raise ConfigError(f"{where}: {name} holds {found.dtype}, not floating-point numbers")
    array = np.array(found, np.float32)
    if not np.isfinite(array).all():
        raise ConfigError(f"{where}: {name} holds numbers that are not finite")
    return array
