"""BERT in Hugging Face's layout: config.json, model.safetensors and a vocabulary <-> our parameters.

The heads are optional: an encoder alone (`BertModel`) is read too, and says which heads it lacks. Names with and
without `bert.` in front are the same. Tied weights (`cls.predictions.decoder`) are left out: `transformers` ties them.

Hugging Face's "gelu" is the exact one; the published BERT has the tanh approximation, which they call "gelu_new".
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop import hf_tokenizer
from ctxjax.interop.files import (
    Published,
    field,
    inside,
    read_json,
    read_safetensors,
    refuse_pickle,
    size,
    take,
    write_json,
    write_safetensors,
)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
PUBLISHED_ACTIVATION = "gelu_tanh"
EPSILON = 1e-12
_SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
    "max_len": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
}


def names(depth: int) -> dict[str, str]:
    """Our path -> their name, without `bert.`; a kernel of ours `[in, out]` is their weight `[out, in]`."""
    found = {
        "embed/tokens/embedding": "embeddings.word_embeddings.weight",
        "embed/positions/embedding": "embeddings.position_embeddings.weight",
        "embed/segments/embedding": "embeddings.token_type_embeddings.weight",
    }
    found |= _norm("embed/norm", "embeddings.LayerNorm")
    for i in range(depth):
        ours, theirs = f"layer_{i}", f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            found |= _dense(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
        found |= _dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
        found |= _norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        found |= _dense(f"{ours}/mlp/in", f"{theirs}.intermediate.dense")
        found |= _dense(f"{ours}/mlp/out", f"{theirs}.output.dense")
        found |= _norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")
    return found


HEADS: dict[str, dict[str, str]] = {}


def _dense(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/kernel": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


HEADS = {
    "pooler": _dense("pooler", "pooler.dense"),
    "mlm": _dense("head/mlm/transform", "cls.predictions.transform.dense")
    | _norm("head/mlm/norm", "cls.predictions.transform.LayerNorm")
    | {"head/mlm/bias": "cls.predictions.bias"},
    "nsp": _dense("head/nsp", "cls.seq_relationship"),
}


def shape_of(path: str, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one of our BERT parameters."""
    width, mlp = config["width"], config["mlp_dim"]
    *_, parent, last = path.split("/")
    if last == "embedding":
        rows = {"tokens": "vocab_size", "positions": "max_len", "segments": "type_vocab_size"}[parent]
        return (config[rows], width)
    if path == "head/mlm/bias":
        return (config["vocab_size"],)
    kernel = {"in": (width, mlp), "out": (mlp, width) if "/mlp/" in path else (width, width), "nsp": (width, 2)}
    inputs, outputs = kernel.get(parent, (width, width))
    return (inputs, outputs) if last == "kernel" else (outputs,)


def read(folder: str | os.PathLike[str]) -> Published:
    """Read a Hugging Face BERT folder.

    Raises:
      ConfigError: another kind of model, a pickle instead of safetensors, a field or array that does not fit.
    """
    folder = pathlib.Path(folder)
    described = read_json(inside(folder, CONFIG))
    config = read_config(described, folder / CONFIG)
    where, arrays = read_arrays(folder)
    renamed = {_plain_name(name): array for name, array in arrays.items()}
    if len(renamed) != len(arrays):
        raise ConfigError(f"{where} holds tensors with and without 'bert.' in front of the same name")
    missing = tuple(head for head, parts in HEADS.items() if not any(name in renamed for name in parts.values()))
    config["next_sentence"] = "nsp" not in missing
    params: dict[str, np.ndarray] = {}
    for path, name in wanted(config["depth"], missing).items():
        shape = shape_of(path, config)
        if path.endswith("/kernel"):
            params[path] = np.ascontiguousarray(take(renamed, name, shape[::-1], where).T)
        else:
            params[path] = take(renamed, name, shape, where)
    notes = _check_tied(renamed, params, where)
    used = set(wanted(config["depth"], missing).values()) | _KNOWN_EXTRAS
    ignored = sorted(set(renamed) - used)
    if ignored:
        notes.append(f"{len(ignored)} tensors that are no part of BERT were left out: {', '.join(ignored[:5])}")
    tokenizer = hf_tokenizer.read(folder)
    if tokenizer is not None and len(tokenizer) > config["vocab_size"]:
        raise ConfigError(
            f"{folder}: the vocabulary has {len(tokenizer)} pieces, the model {config['vocab_size']} rows"
        )
    return Published(config, params, tokenizer, missing, tuple(notes))


_KNOWN_EXTRAS = {"embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


def wanted(depth: int, missing: tuple[str, ...]) -> dict[str, str]:
    """Our path -> their name, of the encoder and the heads that are there."""
    found = names(depth)
    for head, parts in HEADS.items():
        if head not in missing:
            found |= parts
    return found


def read_config(described: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """Our `model` sub-dict for a `config.json`.

    Raises:
      ConfigError: not a BERT encoder as we have it, naming the field.
    """
    kind = described.get("model_type")
    if kind != "bert":
        raise ConfigError(f"{where}: model_type={kind!r} is not 'bert', the one kind of model that is read here")
    fixed = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    for name, value in fixed.items():
        if described.get(name, value) != value:
            raise ConfigError(f"{where}: {name}={described[name]!r} is not {value!r}, as BERT has it")
    config: dict[str, Any] = {"name": "bert"}
    for ours, theirs in _SIZES.items():
        config[ours] = size(described, theirs, where)
    if config["width"] % config["num_heads"]:
        raise ConfigError(f"{where}: hidden_size={config['width']} is not a multiple of num_attention_heads")
    activation = field(described, "hidden_act", str, where, "gelu")
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{where}: hidden_act={activation!r} is not one of {', '.join(ACTIVATIONS)}")
    epsilon = field(described, "layer_norm_eps", float, where, EPSILON)
    if epsilon != EPSILON:
        raise ConfigError(f"{where}: layer_norm_eps={epsilon} is not {EPSILON}, as BERT has it")
    if ACTIVATIONS[activation] != PUBLISHED_ACTIVATION:
        config["activation"] = ACTIVATIONS[activation]
    config["dropout"] = field(described, "hidden_dropout_prob", float, where, 0.1)
    config["attention_dropout"] = field(described, "attention_probs_dropout_prob", float, where, 0.1)
    return config


def read_arrays(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """The tensors of a folder, in one file or in several named by an index."""
    if (folder / WEIGHTS).exists():
        path = inside(folder, WEIGHTS)
        return path, read_safetensors(path)
    if (folder / INDEX).exists():
        path = inside(folder, INDEX)
        arrays: dict[str, np.ndarray] = {}
        for name in sorted(set(field(read_json(path), "weight_map", dict, path).values())):
            arrays |= read_safetensors(inside(folder, str(name)))
        return path, arrays
    for path in sorted(folder.iterdir()):
        refuse_pickle(path)
    raise ConfigError(f"{folder} has no {WEIGHTS}")


def _plain_name(name: str) -> str:
    """Without `bert.` in front, and with today's names of the LayerNorm arrays."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _check_tied(arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], where: Any) -> list[str]:
    """Refuse an output layer that is not the embedding table: ours is tied, as published."""
    for name, path in (
        ("cls.predictions.decoder.weight", "embed/tokens/embedding"),
        ("cls.predictions.decoder.bias", "head/mlm/bias"),
    ):
        if name in arrays and path in params and not np.array_equal(np.asarray(arrays[name], np.float32), params[path]):
            raise ConfigError(f"{where}: {name} differs from what it is tied to in BERT")
    return []


def write(folder: str | os.PathLike[str], model: Published) -> tuple[str, ...]:
    """Write a folder that `transformers` loads without a missing or unexpected key.

    With both heads that is `BertForPreTraining`; without next sentence `BertForMaskedLM`, whose pooler, never trained,
    is left out; without heads `BertModel`.

    Returns:
      one sentence for everything that was left out.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, notes = model.config, []
    has = {head for head, parts in HEADS.items() if all(path in model.params for path in parts)}
    if {"mlm", "nsp", "pooler"} <= has:
        architecture, heads = "BertForPreTraining", {"mlm", "nsp", "pooler"}
    elif "mlm" in has:
        architecture, heads = "BertForMaskedLM", {"mlm"}
    else:
        architecture, heads = "BertModel", has & {"pooler"}
    if has - heads:
        notes.append(f"{architecture} has no {' and no '.join(sorted(has - heads))}: left out")
    absent = tuple(head for head in HEADS if head not in heads)
    arrays = {}
    for path, name in wanted(config["depth"], absent).items():
        array = take(model.params, path, shape_of(path, config), "the parameters")
        prefix = "" if architecture == "BertModel" or name.startswith("cls.") else "bert."
        arrays[prefix + name] = array.T if path.endswith("/kernel") else array
    described = {
        "architectures": [architecture],
        "model_type": "bert",
        **{theirs: config[ours] for ours, theirs in _SIZES.items()},
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new"}[config.get("activation", PUBLISHED_ACTIVATION)],
        "hidden_dropout_prob": config.get("dropout", 0.1),
        "attention_probs_dropout_prob": config.get("attention_dropout", 0.1),
        "initializer_range": 0.02,
        "layer_norm_eps": EPSILON,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
    }
    if model.tokenizer is not None:
        described["pad_token_id"] = hf_tokenizer.write(folder, model.tokenizer, config["max_len"])
    write_safetensors(folder / WEIGHTS, arrays)
    write_json(folder / CONFIG, described)
    return tuple(notes)
