"""GPT in Hugging Face's layout ("openai-gpt"): config.json, model.safetensors and the BPE's files <-> our parameters.

The layers are named as GPT-2's are. The output layer is tied and left out. Their "gelu" is the tanh approximation. They
drop the sum of each token and its place; here, as in the released code, it is the table that is dropped.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.interop.files import Published, field, inside, read_json, size, write_json, write_safetensors
from ctxjax.interop.hf_bert import CONFIG, WEIGHTS
from ctxjax.interop.hf_gpt2 import fused, layer_names, read_params, read_tokenizer
from ctxjax.text import bpe_files
from ctxjax.text.bpe import BPE

KIND = "openai-gpt"
_SIZES = {"vocab_size": "vocab_size", "width": "n_embd", "depth": "n_layer", "num_heads": "n_head"}
_SIZES |= {"max_len": "n_positions"}
_FIXED = {"afn": "gelu", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
_DROPOUT = {"dropout": "resid_pdrop", "attention_dropout": "attn_pdrop", "table_dropout": "embd_pdrop"}


def names(depth: int) -> dict[str, str]:
    """Our path -> their name, without `transformer.`."""
    tables = {"tokens": "tokens_embed", "positions": "positions_embed"}
    return {f"embed/{ours}/embedding": f"{theirs}.weight" for ours, theirs in tables.items()} | layer_names(depth)


def read(folder: str | os.PathLike[str]) -> Published:
    """Read a Hugging Face GPT folder.

    Raises:
      ConfigError: another kind of model, a pickle instead of safetensors, a field or array that does not fit.
    """
    folder = pathlib.Path(folder)
    config = read_config(read_json(inside(folder, CONFIG)), folder / CONFIG)
    params, notes = read_params(folder, config, names(config["depth"]))
    return Published(config, params, read_tokenizer(folder, config), (), notes)


def read_config(described: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """Our `model` sub-dict for a `config.json`.

    Raises:
      ConfigError: not a GPT as we have it, naming the field.
    """
    kind = described.get("model_type")
    if kind != KIND:
        raise ConfigError(f"{where}: model_type={kind!r} is not {KIND!r}")
    for name, value in _FIXED.items():
        if described.get(name, value) != value:
            raise ConfigError(f"{where}: {name}={described[name]!r} is not {value!r}, as GPT has it")
    config: dict[str, Any] = {"name": "gpt"}
    config |= {ours: size(described, theirs, where) for ours, theirs in _SIZES.items()}
    if config["width"] % config["num_heads"]:
        raise ConfigError(f"{where}: n_embd={config['width']} is not a multiple of n_head")
    drops = {ours: field(described, theirs, float, where, 0.1) for ours, theirs in _DROPOUT.items()}
    return config | {"mlp_dim": 4 * config["width"]} | drops


def write(folder: str | os.PathLike[str], model: Published) -> tuple[str, ...]:
    """Write a folder that `transformers.OpenAIGPTLMHeadModel` loads without a missing or unexpected key.

    Returns:
      one sentence for everything that was left out.

    Raises:
      ConfigError: an MLP of another size than the one that this layout has.
    """
    folder, config = pathlib.Path(folder), model.config
    if config["mlp_dim"] != 4 * config["width"]:
        raise ConfigError(
            f"model.mlp_dim={config['mlp_dim']} is not four times model.width={config['width']}, the only size that "
            f"{KIND!r} has"
        )
    arrays = fused(model.params, config, names(config["depth"]))
    folder.mkdir(parents=True, exist_ok=True)
    described = {"architectures": ["OpenAIGPTLMHeadModel"], "model_type": KIND, **_FIXED}
    described |= {theirs: config[ours] for ours, theirs in _SIZES.items()} | {"initializer_range": 0.02}
    described |= {theirs: config.get(ours, 0.1) for ours, theirs in _DROPOUT.items()}
    tokenizer, notes = model.tokenizer, ()
    if isinstance(tokenizer, BPE) and tokenizer.lowercase:
        bpe_files.write_published(folder, tokenizer.pieces, tokenizer.merges)
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "OpenAIGPTTokenizer", "model_max_length": config["max_len"], "unk_token": "<unk>"},
        )
    elif tokenizer is not None:
        kind = "keeps case" if isinstance(tokenizer, BPE) else f"is of kind {tokenizer.kind}"
        notes = (f"the vocabulary {kind}, which OpenAIGPTTokenizer cannot hold: left out",)
    write_safetensors(folder / WEIGHTS, arrays)
    write_json(folder / CONFIG, described)
    return notes
