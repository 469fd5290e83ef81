"""ELMo in the layout of bilm-tf and AllenNLP: options.json and HDF5 weights <-> our biLM parameters.

Gates stand in the file as i, j (candidate), f, o, as in ours; the forget bias of 1 is in neither, the cell adds it. A
cell's `W_0` is our input kernel above our recurrent kernel. The softmax is no part of this layout.

Reference: Peters et al. 2018; allenai/bilm-tf, README and bilm/model.py.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop.files import Published, field, inside, read_json, size, write_json
from ctxjax.interop.hdf5 import Arrays
from ctxjax.text.tokenizer import read_vocabulary
from ctxjax.text.words import SPECIALS, Words

OPTIONS, WEIGHTS, VOCABULARY = "options.json", "weights.hdf5", "vocab.txt"
TRAINED, USED = 261, 262  # n_characters while training, and in use, where id 0 is padding and all others are one higher
DIRECTIONS = 2


def character_rows(options_say: int, rows: int, where: Any) -> int:
    """The first row of the file's character table that is a character of ours: 0, or 1 where row 0 is padding.

    Ours is the training convention: bytes 0-255, sentence begin and end 256 257, word begin and end 258 259, padding
    within a word 260. In use bilm-tf adds 1 to every id and gives id 0, a row of zeros, to what is no token;
    options.json then says 262, yet the table in the file has 261 rows (bilm-tf issues 51, 144, 156). We mask instead,
    so ids are never shifted here.

    Raises:
      ConfigError: numbers that fit neither convention; one row off would give wrong vectors without any error.
    """
    if options_say not in (TRAINED, USED):
        raise ConfigError(f"{where}: n_characters={options_say} is neither {TRAINED} (training) nor {USED} (in use)")
    if rows == TRAINED:
        return 0
    if rows == USED == options_say:
        return 1
    raise ConfigError(f"{where}: the character table has {rows} rows, while n_characters={options_say} wants {TRAINED}")


def is_elmo(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with ELMo's options, or a weights file beside them."""
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    return (folder / OPTIONS).is_file() and (path.is_dir() or path.suffix in (".hdf5", ".h5"))


def read_config(options: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """Our `model` sub-dict for an options.json.

    Raises:
      ConfigError: a field that is missing or is not what a published biLM has.
    """
    lstm = field(options, "lstm", dict, where)
    if "char_cnn" not in options:
        raise ConfigError(f"{where} has no 'char_cnn': a biLM over word ids is not in ELMo's published layout")
    cnn = field(options, "char_cnn", dict, where)
    try:
        filters = tuple((int(width), int(number)) for width, number in field(cnn, "filters", list, where))
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: filters={cnn['filters']!r} is not a list of [width, number]") from None
    max_chars = size(cnn, "max_characters_per_token", where, 1 << 10)
    if not filters or any(not 0 < width <= max_chars or not 0 < number <= 1 << 16 for width, number in filters):
        raise ConfigError(f"{where}: filters={filters} do not fit words of {max_chars} characters")
    if len({width for width, _ in filters}) != len(filters):
        raise ConfigError(f"{where}: two of the filters have the same width")
    activation = field(cnn, "activation", str, where, "relu")
    if activation not in ("relu", "tanh"):
        raise ConfigError(f"{where}: activation={activation!r} is neither 'relu' nor 'tanh'")
    return {
        "name": "bilm",
        "width": size(lstm, "dim", where, 1 << 16),
        "projection": size(lstm, "projection_dim", where, 1 << 16),
        "depth": size(lstm, "n_layers", where, 1 << 6),
        "cell_clip": _clip(lstm, "cell_clip", where),
        "projection_clip": _clip(lstm, "proj_clip", where),
        "residual": field(lstm, "use_skip_connections", bool, where, False),
        "token": "chars",
        "char_dim": size(field(cnn, "embedding", dict, where), "dim", where, 1 << 12),
        "num_chars": TRAINED,
        "max_chars": max_chars,
        "filters": filters,
        "highways": field(cnn, "n_highway", int, where, 0) or 0,
        "char_activation": activation,
    }


def _clip(lstm: Mapping[str, Any], name: str, where: Any) -> float:
    """A clip, 0 where there is none."""
    value = lstm.get(name)
    return 0.0 if value is None else float(field(lstm, name, float, where))


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every array in the file but the character table, by its name there."""
    count = sum(number for _, number in config["filters"])
    cell, projection = config["width"], config["projection"]
    found: dict[str, tuple[int, ...]] = {}
    for index, (width, number) in enumerate(config["filters"]):
        found[f"CNN/W_cnn_{index}"] = (1, width, config["char_dim"], number)
        found[f"CNN/b_cnn_{index}"] = (number,)
    for index in range(config["highways"]):
        for part in ("carry", "transform"):
            found[f"CNN_high_{index}/W_{part}"] = (count, count)
            found[f"CNN_high_{index}/b_{part}"] = (count,)
    found["CNN_proj/W_proj"], found["CNN_proj/b_proj"] = (count, projection), (projection,)
    for direction in range(DIRECTIONS):
        for layer in range(config["depth"]):
            cell_name = _cell(direction, layer)
            found[f"{cell_name}/W_0"] = (2 * projection, 4 * cell)
            found[f"{cell_name}/B"] = (4 * cell,)
            found[f"{cell_name}/W_P_0"] = (cell, projection)
    return found


def _cell(direction: int, layer: int) -> str:
    return f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"


def read(path: str | os.PathLike[str]) -> Published:
    """Read an ELMo folder, or its weights file with options.json beside it.

    Raises:
      ConfigError: what is missing, does not fit, or leads out of the folder.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    options = read_json(inside(folder, OPTIONS))
    where = folder / OPTIONS
    config = read_config(options, where)
    weights = inside(folder, path.name) if not path.is_dir() else _find_weights(folder)
    with Arrays(weights) as file:
        stored = {name: file.read(name, shape) for name, shape in shapes(config).items()}
        rows = file.shape("char_embed")[0] if "char_embed" in file else 0
        first = character_rows(size(options["char_cnn"], "n_characters", where), rows, weights)
        characters = file.read("char_embed", (rows, config["char_dim"]))
        known = {*stored, "char_embed"}
        extra = sorted(name for name in file.names() if name not in known)
    if first and np.any(characters[0]):
        raise ConfigError(f"{weights}: row 0 of char_embed is the padding of {USED} rows, yet it is not zero")
    tokenizer, notes = _read_vocabulary(folder)
    if extra:
        notes.append(f"{len(extra)} arrays that are no part of ELMo were left out: {', '.join(extra[:5])}")
    config["vocab_size"] = len(tokenizer)
    params = from_arrays(stored | {"char_embed": characters[first:]}, config)
    return Published(config, params, tokenizer, ("softmax",), tuple(notes))


def _find_weights(folder: pathlib.Path) -> pathlib.Path:
    """The one HDF5 file of a folder that holds a biLM."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".hdf5", ".h5"):
            with Arrays(inside(folder, path.name)) as file:
                if "CNN_proj" in file and "char_embed" in file:
                    found.append(path)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found)
    problem = f"more than one: {names}; give the path of the one that is meant" if found else "none"
    raise ConfigError(f"{folder} should hold one HDF5 file of biLM weights and has {problem}")


def _read_vocabulary(folder: pathlib.Path) -> tuple[Words, list[str]]:
    """The words of a vocabulary file, the three marks moved to the front; no vector depends on them."""
    files = sorted(path.name for path in folder.glob("vocab*.txt"))
    if not files:
        return Words(list(SPECIALS)), []
    words = read_vocabulary(inside(folder, files[0]))
    known = dict.fromkeys(word for word in words if word not in SPECIALS)
    notes = [f"{folder} has several vocabularies; {files[0]} was taken"] if len(files) > 1 else []
    return Words([*SPECIALS, *known]), notes


def from_arrays(stored: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our parameters of the file's arrays; `char_embed` has 261 rows."""
    projection = config["projection"]
    params = {"embed/chars/embedding": stored["char_embed"]}
    for index, (width, _) in enumerate(config["filters"]):
        params[f"embed/conv_{width}/kernel"] = stored[f"CNN/W_cnn_{index}"][0]
        params[f"embed/conv_{width}/bias"] = stored[f"CNN/b_cnn_{index}"]
    for index in range(config["highways"]):
        for part in ("carry", "transform"):
            params[f"embed/highway_{index}/{part}/kernel"] = stored[f"CNN_high_{index}/W_{part}"]
            params[f"embed/highway_{index}/{part}/bias"] = stored[f"CNN_high_{index}/b_{part}"]
    params["embed/projection/kernel"] = stored["CNN_proj/W_proj"]
    params["embed/projection/bias"] = stored["CNN_proj/b_proj"]
    for layer in range(config["depth"]):
        cells = [_cell(direction, layer) for direction in range(DIRECTIONS)]
        both = {name: np.stack([stored[f"{cell}/{name}"] for cell in cells]) for name in ("W_0", "B", "W_P_0")}
        lstm = f"layer_{layer}/lstm"
        params[f"{lstm}/input_kernel"] = both["W_0"][:, :projection]
        params[f"{lstm}/recurrent_kernel"] = both["W_0"][:, projection:]
        params[f"{lstm}/bias"] = both["B"]
        params[f"{lstm}/projection"] = both["W_P_0"]
    return params


def to_arrays(params: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The file's arrays of our parameters; inverse of `from_arrays`."""
    stored = {"char_embed": params["embed/chars/embedding"]}
    for index, (width, _) in enumerate(config["filters"]):
        stored[f"CNN/W_cnn_{index}"] = params[f"embed/conv_{width}/kernel"][None]
        stored[f"CNN/b_cnn_{index}"] = params[f"embed/conv_{width}/bias"]
    for index in range(config["highways"]):
        for part in ("carry", "transform"):
            stored[f"CNN_high_{index}/W_{part}"] = params[f"embed/highway_{index}/{part}/kernel"]
            stored[f"CNN_high_{index}/b_{part}"] = params[f"embed/highway_{index}/{part}/bias"]
    stored["CNN_proj/W_proj"] = params["embed/projection/kernel"]
    stored["CNN_proj/b_proj"] = params["embed/projection/bias"]
    for layer in range(config["depth"]):
        lstm = f"layer_{layer}/lstm"
        kernels = np.concatenate([params[f"{lstm}/input_kernel"], params[f"{lstm}/recurrent_kernel"]], axis=1)
        for direction in range(DIRECTIONS):
            cell = _cell(direction, layer)
            stored[f"{cell}/W_0"] = kernels[direction]
            stored[f"{cell}/B"] = params[f"{lstm}/bias"][direction]
            stored[f"{cell}/W_P_0"] = params[f"{lstm}/projection"][direction]
    return stored


def write(folder: str | os.PathLike[str], model: Published) -> tuple[str, ...]:
    """Write options.json (262 characters, for use), weights.hdf5 (261 rows, as published) and vocab.txt.

    Returns:
      one sentence for everything that was left out.

    Raises:
      ConfigError: a model that this layout has no place for.
    """
    config = model.config
    if config.get("token", "chars") != "chars":
        raise ConfigError("ELMo's published layout has no place for a biLM over word ids (model.token='words')")
    if config["num_chars"] != TRAINED:
        raise ConfigError(f"ELMo's published layout has {TRAINED} characters, this model {config['num_chars']}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = to_arrays(model.params, config)
    for name, shape in shapes(config).items():
        if stored[name].shape != shape:
            raise ConfigError(
                f"the parameters: {name} has shape {list(stored[name].shape)} where {list(shape)} is expected"
            )
    part = folder / f".{WEIGHTS}.partial"
    with h5py.File(part, "w") as file:
        for name, array in stored.items():
            file.create_dataset(name, data=np.asarray(array, np.float32))
    os.replace(part, folder / WEIGHTS)
    if model.tokenizer is not None:
        (folder / VOCABULARY).write_text("".join(f"{word}\n" for word in model.tokenizer.pieces), encoding="utf-8")
    write_json(folder / OPTIONS, options_of(config, len(model.tokenizer) if model.tokenizer is not None else 0))
    notes = []
    if any(name.startswith("head/") for name in model.params):
        notes.append("the softmax over the vocabulary is no part of ELMo's layout: left out")
    if getattr(model.tokenizer, "lowercase", False):
        notes.append("ELMo's layout cannot say that this model reads lower-cased words: lower-case them before it")
    return tuple(notes)


def options_of(config: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """The options.json of a biLM."""
    return {
        "bidirectional": True,
        "lstm": {
            "use_skip_connections": bool(config["residual"]),
            "projection_dim": config["projection"],
            "cell_clip": config["cell_clip"] or None,
            "proj_clip": config["projection_clip"] or None,
            "dim": config["width"],
            "n_layers": config["depth"],
        },
        "char_cnn": {
            "activation": config["char_activation"],
            "filters": [list(pair) for pair in config["filters"]],
            "n_highway": config["highways"],
            "embedding": {"dim": config["char_dim"]},
            "n_characters": USED,
            "max_characters_per_token": config["max_chars"],
        },
        **({"n_tokens_vocab": vocabulary} if vocabulary else {}),
    }
