"""The TensorFlow checkpoints of google-research/bert -> our parameters, once, by `python -m ctxjax.convert`.

TensorFlow is imported in `read_variables` alone, to read the checkpoint's arrays; nothing else of ctxjax needs it. The
mapping is over plain arrays. `hidden_act` "gelu" means the tanh approximation in these files.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop import hf_bert
from ctxjax.interop.files import Published, field, inside, read_json, take
from ctxjax.text import open_tokenizer

CONFIG, PREFIX = "bert_config.json", "bert_model.ckpt"
_OPTIMISER = re.compile(r"(/|^)(adam_[mv]|Adam(_1)?|LAMB(_1)?|global_step|beta[12]_power)$")


def is_tf_bert(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with bert_config.json, or the prefix of a checkpoint in one."""
    path = pathlib.Path(path)
    return ((path if path.is_dir() else path.parent) / CONFIG).is_file()


def names(depth: int) -> dict[str, str]:
    """Our path -> TensorFlow's variable, heads included. Kernels have the same axes, the NSP head's excepted."""
    found: dict[str, str] = {}
    for path, name in hf_bert.wanted(depth, ()).items():
        name = name if name.startswith("cls.") else f"bert.{name}"
        name = re.sub(r"encoder\.layer\.(\d+)", r"encoder.layer_\1", name).replace("_embeddings.weight", "_embeddings")
        last = {"kernel": "kernel", "scale": "gamma", "bias": "beta" if "LayerNorm" in name else "bias"}
        stem, _, end = name.rpartition(".")
        if path == "head/mlm/bias":
            found[path] = "cls/predictions/output_bias"
        elif path.startswith("head/nsp/"):
            found[path] = "cls/seq_relationship/" + ("output_weights" if path.endswith("kernel") else "output_bias")
        elif end in ("weight", "bias"):
            found[path] = f"{stem}.{last[path.rpartition('/')[2]]}".replace(".", "/")
        else:
            found[path] = name.replace(".", "/")
    return found


def read_config(described: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """Our `model` sub-dict for a bert_config.json."""
    if field(described, "hidden_act", str, where) != "gelu":
        raise ConfigError(f"{where}: hidden_act={described['hidden_act']!r} is not 'gelu', as BERT has it")
    return hf_bert.read_config(
        {"type_vocab_size": 16, **described, "model_type": "bert", "hidden_act": "gelu_new"}, where
    )


def from_variables(variables: Mapping[str, np.ndarray], described: Mapping[str, Any], where: Any) -> Published:
    """Our parameters of a checkpoint's variables.

    Args:
      variables: name -> array, as `tf.train.load_checkpoint` gives them.
      described: bert_config.json.
      where: the name of the checkpoint in messages.

    Raises:
      ConfigError: a variable that is missing or has another shape.
    """
    config = read_config(described, where)
    known = names(config["depth"])
    missing = tuple(
        head for head, parts in hf_bert.HEADS.items() if not any(known[path] in variables for path in parts)
    )
    config["next_sentence"] = "nsp" not in missing
    params: dict[str, np.ndarray] = {}
    for path in hf_bert.wanted(config["depth"], missing):
        shape = hf_bert.shape_of(path, config)
        if path == "head/nsp/kernel":  # stored as [2, width] and used transposed
            params[path] = np.ascontiguousarray(take(variables, known[path], shape[::-1], where).T)
        else:
            params[path] = take(variables, known[path], shape, where)
    slots = [name for name in variables if _OPTIMISER.search(name)]
    extra = sorted(set(variables) - set(known.values()) - set(slots))
    notes = []
    if slots:
        notes.append(f"{len(slots)} variables of the optimiser were left out")
    if extra:
        notes.append(f"{len(extra)} variables that are no part of BERT were left out: {', '.join(extra[:5])}")
    return Published(config, params, None, missing, tuple(notes))


def read_variables(prefix: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow checkpoint; needs TensorFlow.

    Raises:
      ConfigError: TensorFlow is not installed, or there is no such checkpoint.
    """
    prefix = pathlib.Path(prefix)
    if not prefix.with_name(prefix.name + ".index").is_file():
        raise ConfigError(f"there is no TensorFlow checkpoint {prefix} (no {prefix.name}.index)")
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("reading a TensorFlow checkpoint needs TensorFlow: pip install 'ctxjax[tf]'") from None
    reader = tf.train.load_checkpoint(os.fspath(prefix))
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}


def read(path: str | os.PathLike[str]) -> Published:
    """Read a released BERT: a folder of bert_config.json, vocab.txt and bert_model.ckpt.*, or a checkpoint's prefix."""
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    prefix = path / PREFIX if path.is_dir() else path.with_name(re.sub(r"\.(index|data-.*|meta)$", "", path.name))
    described = read_json(inside(folder, CONFIG))
    model = from_variables(read_variables(prefix), described, prefix)
    vocabulary = folder / "vocab.txt"
    tokenizer = open_tokenizer(folder) if vocabulary.is_file() else None
    notes = model.notes if tokenizer is not None else (*model.notes, f"{folder} has no vocab.txt")
    return model._replace(tokenizer=tokenizer, notes=notes)
