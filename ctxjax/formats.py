"""A model from any place that holds one: a run, Hugging Face's BERT, GPT and GPT-2, ELMo, n-grams, word vectors."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from ctxjax import checkpoint, folders, optim, paths
from ctxjax.config import ConfigError, as_tuples
from ctxjax.interop import elmo, fasttext_bin, hf_bert, hf_gpt, hf_gpt2, tf_bert, word_vectors
from ctxjax.interop.files import Published, inside, read_json, refuse_pickle
from ctxjax.ngrams import arpa
from ctxjax.text import open_tokenizer

HF = {"bert": hf_bert, "gpt": hf_gpt, "gpt2": hf_gpt2}
_TYPES = {"bert": "bert", "openai-gpt": "gpt", "gpt2": "gpt2"}  # the model_type of a config.json
_HEADS = {"mlm": "head/mlm", "nsp": "head/nsp", "pooler": "pooler", "softmax": "head/softmax"}
_EXPECTED = {"bert": ("pooler", "mlm", "nsp"), "bilm": ("softmax",), "awd_lstm": ("softmax",)}


def read(path: str | os.PathLike[str], step: int | None = None) -> tuple[Published, dict[str, Any]]:
    """What `load` opens, as arrays on the host: the model, and meta.json of a run of ours."""
    name, best = folders.run_folder(path)
    if not paths.is_local(name):
        return read_run(path, step)
    place = pathlib.Path(name)
    if fasttext_bin.is_fasttext(place):
        return fasttext_bin.read(place), {}
    if word_vectors.kind_of(place):
        return word_vectors.read(place), {}
    refuse_pickle(place)
    if not place.exists():
        raise ConfigError(f"{place} does not exist")
    ours = any((place / file).exists() for file in ("checkpoints", "meta.json", "metrics.jsonl"))
    steps = place.is_dir() and any(child.name.isdigit() and child.is_dir() for child in place.iterdir())
    if ours or steps or (place / "record.json").exists():
        return read_run(path, step)
    if best or step is not None:
        raise ConfigError(f"{folders.BEST if best else f'step={step}'} is given, and {place} is no run folder")
    if place.is_dir() and is_hf(place):
        kind = read_json(place / hf_bert.CONFIG)["model_type"]
        if kind not in _TYPES:
            raise ConfigError(f"{place / hf_bert.CONFIG}: model_type={kind!r} is not one of {', '.join(_TYPES)}")
        return HF[_TYPES[kind]].read(place), {}
    if elmo.is_elmo(place):
        return elmo.read(place), {}
    if place.name.endswith((".arpa", ".arpa.gz")):
        config, tables, words = arpa.read(place)
        return Published(config, tables, words), {}
    if tf_bert.is_tf_bert(place):
        raise ConfigError(
            f"{place} is a TensorFlow checkpoint; convert it once: python -m ctxjax.convert {place} DIR --to ctxjax"
        )
    raise ConfigError(
        f"{place} is neither a run folder (checkpoints/), nor a Hugging Face model (config.json and "
        "model.safetensors), nor an ELMo (options.json and HDF5 weights), nor an n-gram model (.arpa), nor a file of "
        "word vectors (word2vec, GloVe, fastText)"
    )


def is_hf(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like a Hugging Face model."""
    path = pathlib.Path(folder) / hf_bert.CONFIG
    return path.is_file() and "model_type" in read_json(inside(folder, hf_bert.CONFIG))


def read_run(path: str | os.PathLike[str], step: int | None = None) -> tuple[Published, dict[str, Any]]:
    """The parameters, config and tokenizer of a checkpoint of ours; of a downstream run its encoder."""
    folder = folders.find(path, step)
    arrays, meta = checkpoint.read(folder, pattern=f"^params/|{optim.AVERAGED}|{optim.STEPS}$")
    config = {name: as_tuples(value) for name, value in meta["config"]["model"].items() if value is not None}
    params = {name.removeprefix("params/"): array for name, array in optim.exported(arrays).items()}
    if "encoder" in config:
        config = config["encoder"]
        params = {name: array for name, array in params.items() if not name.startswith("task/")}
    has = {head: any(name.startswith(f"{prefix}/") for name in params) for head, prefix in _HEADS.items()}
    tokenizer = open_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
    missing = tuple(head for head in _EXPECTED.get(config["name"], ()) if not has[head])
    return Published(config, params, tokenizer, missing), meta
