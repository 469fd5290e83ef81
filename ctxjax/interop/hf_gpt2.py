"""GPT-2 in Hugging Face's layout: config.json, model.safetensors, vocab.json and merges.txt <-> our parameters.

Their kernels are `[in, out]` as ours, and query, key and value are one of them. The output layer is tied and left out.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop.files import Published, field, inside, read_json, size, take, write_json, write_safetensors
from ctxjax.interop.hf_bert import CONFIG, WEIGHTS, read_arrays
from ctxjax.text import bpe_files, open_tokenizer
from ctxjax.text.byte_bpe import ByteBPE
from ctxjax.text.tokenizer import Tokenizer

KIND = "gpt2"
EPSILON = 1e-5
_SIZES = {"vocab_size": "vocab_size", "width": "n_embd", "depth": "n_layer", "num_heads": "n_head"}
_SIZES |= {"max_len": "n_positions"}
_FIXED = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_PARTS = ("query", "key", "value")


def names(depth: int) -> dict[str, str]:
    """Our path -> their name, without `transformer.`; those of query, key and value share theirs."""
    found = {"embed/tokens/embedding": "wte.weight", "embed/positions/embedding": "wpe.weight"}
    found |= {"norm/scale": "ln_f.weight", "norm/bias": "ln_f.bias"}
    return found | layer_names(depth)


def layer_names(depth: int) -> dict[str, str]:
    """The same of the layers alone, which GPT names alike."""
    found: dict[str, str] = {}
    for i in range(depth):
        for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            found |= {f"layer_{i}/{ours}/scale": f"h.{i}.{theirs}.weight"}
            found |= {f"layer_{i}/{ours}/bias": f"h.{i}.{theirs}.bias"}
        kernels = {f"attention/{part}": "attn.c_attn" for part in _PARTS}
        kernels |= {"attention/out": "attn.c_proj", "mlp/in": "mlp.c_fc", "mlp/out": "mlp.c_proj"}
        for ours, theirs in kernels.items():
            found |= {f"layer_{i}/{ours}/kernel": f"h.{i}.{theirs}.weight"}
            found |= {f"layer_{i}/{ours}/bias": f"h.{i}.{theirs}.bias"}
    return found


def shape_of(path: str, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one of our GPT-2 parameters."""
    width, mlp = config["width"], config["mlp_dim"]
    *_, parent, last = path.split("/")
    if last == "embedding":
        return (config["vocab_size"] if parent == "tokens" else config["max_len"], width)
    kernel = {"in": (width, mlp), "out": (mlp, width) if "/mlp/" in path else (width, width)}
    inputs, outputs = kernel.get(parent, (width, width))
    return (inputs, outputs) if last == "kernel" else (outputs,)


def read(folder: str | os.PathLike[str]) -> Published:
    """Read a Hugging Face GPT-2 folder.

    Raises:
      ConfigError: another kind of model, a pickle instead of safetensors, a field or array that does not fit.
    """
    folder = pathlib.Path(folder)
    config = read_config(read_json(inside(folder, CONFIG)), folder / CONFIG)
    params, notes = read_params(folder, config, names(config["depth"]))
    return Published(config, params, read_tokenizer(folder, config), (), notes)


def read_params(
    folder: pathlib.Path, config: Mapping[str, Any], wanted: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The parameters under our paths, and one sentence if something was left out.

    Args:
      wanted: our path -> their name.
    """
    where, arrays = read_arrays(folder)
    renamed = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    params: dict[str, np.ndarray] = {}
    for path, name in wanted.items():
        shape, part = shape_of(path, config), path.split("/")[-2]
        if part in _PARTS:
            fused = take(renamed, name, (*shape[:-1], 3 * shape[-1]), where)
            params[path] = np.ascontiguousarray(np.split(fused, 3, axis=-1)[_PARTS.index(part)])
        else:
            params[path] = take(renamed, name, shape, where)
    tied, table = renamed.get("lm_head.weight"), "embed/tokens/embedding"
    if tied is not None and not np.array_equal(np.asarray(tied, np.float32), params[table]):
        raise ConfigError(f"{where}: lm_head.weight differs from {wanted[table]}, which it is tied to")
    known = {*wanted.values(), "lm_head.weight"}
    known |= {f"h.{i}.attn.{buffer}" for i in range(config["depth"]) for buffer in ("bias", "masked_bias")}
    ignored = sorted(set(renamed) - known)
    few = ", ".join(ignored[:5])
    return params, ((f"{len(ignored)} tensors that are no part of the model were left out: {few}",) if ignored else ())


def read_tokenizer(folder: pathlib.Path, config: Mapping[str, Any]) -> Tokenizer | None:
    """The vocabulary of a folder, if there is one; it must not have more pieces than the model has rows."""
    if not any((folder / name).is_file() for name in bpe_files.PUBLISHED):
        return None
    tokenizer = open_tokenizer(folder)
    if len(tokenizer) > config["vocab_size"]:
        raise ConfigError(
            f"{folder}: the vocabulary has {len(tokenizer)} pieces, the model {config['vocab_size']} rows"
        )
    return tokenizer


def read_config(described: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """Our `model` sub-dict for a `config.json`.

    Raises:
      ConfigError: not a GPT-2 as we have it, naming the field.
    """
    kind = described.get("model_type")
    if kind != KIND:
        raise ConfigError(f"{where}: model_type={kind!r} is not {KIND!r}")
    for name, value in _FIXED.items():
        if described.get(name, value) != value:
            raise ConfigError(f"{where}: {name}={described[name]!r} is not {value!r}, as GPT-2 has it")
    config: dict[str, Any] = {"name": "gpt2"}
    for ours, theirs in _SIZES.items():
        config[ours] = size(described, theirs, where)
    config["mlp_dim"] = size(described, "n_inner", where) if described.get("n_inner") else 4 * config["width"]
    if config["width"] % config["num_heads"]:
        raise ConfigError(f"{where}: n_embd={config['width']} is not a multiple of n_head")
    drops = {name: field(described, name, float, where, 0.1) for name in ("embd_pdrop", "resid_pdrop", "attn_pdrop")}
    if drops["embd_pdrop"] != drops["resid_pdrop"]:
        raise ConfigError(f"{where}: embd_pdrop and resid_pdrop differ, and here they are one model.dropout")
    return config | {"dropout": drops["resid_pdrop"], "attention_dropout": drops["attn_pdrop"]}


def write(folder: str | os.PathLike[str], model: Published) -> tuple[str, ...]:
    """Write a folder that `transformers.GPT2LMHeadModel` loads without a missing or unexpected key.

    Returns:
      one sentence for everything that was left out.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    arrays = fused(model.params, config, names(config["depth"]))
    described = {"architectures": ["GPT2LMHeadModel"], "model_type": KIND, **_FIXED}
    described |= {theirs: config[ours] for ours, theirs in _SIZES.items()} | {"n_inner": config["mlp_dim"]}
    described |= {"embd_pdrop": config.get("dropout", 0.1), "resid_pdrop": config.get("dropout", 0.1)}
    described |= {"attn_pdrop": config.get("attention_dropout", 0.1), "initializer_range": 0.02}
    tokenizer, notes = model.tokenizer, ()
    if isinstance(tokenizer, ByteBPE):
        described |= dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.end_id)
        bpe_files.write_published(folder, tokenizer.pieces, tokenizer.merges)
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "GPT2Tokenizer", "model_max_length": config["max_len"]},
        )
    elif tokenizer is not None:
        notes = (f"the vocabulary is of kind {tokenizer.kind}, which GPT2Tokenizer cannot hold: left out",)
    write_safetensors(folder / WEIGHTS, arrays)
    write_json(folder / CONFIG, described)
    return notes


def fused(
    params: Mapping[str, np.ndarray], config: Mapping[str, Any], wanted: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The parameters under their names, query, key and value in one."""
    arrays: dict[str, np.ndarray] = {}
    for path, name in wanted.items():
        if "/query/" in path:
            parts = [path.replace("/query/", f"/{part}/") for part in _PARTS]
            pieces = [take(params, part, shape_of(part, config), "the parameters") for part in parts]
            arrays[f"transformer.{name}"] = np.concatenate(pieces, axis=-1)
        elif path.split("/")[-2] not in _PARTS:
            arrays[f"transformer.{name}"] = take(params, path, shape_of(path, config), "the parameters")
    return arrays
