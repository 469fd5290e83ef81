"""A BERT vocabulary in Hugging Face's layout <-> our `WordPiece`.

Read from `vocab.txt`, or from `tokenizer.json` alone, as transformers 5 writes it. Written as all three files.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.interop.files import field, inside, read_json, write_json
from ctxjax.text import open_tokenizer
from ctxjax.text.tokenizer import Tokenizer
from ctxjax.text.wordpiece import SPECIALS, WordPiece

VOCABULARY, SETTINGS, FAST = "vocab.txt", "tokenizer_config.json", "tokenizer.json"
WORD_LIMIT = 100  # characters; theirs, where the published code has 200


def read(folder: str | os.PathLike[str]) -> Tokenizer | None:
    """The tokenizer of a folder, or None where it has none.

    Raises:
      ConfigError: it is not WordPiece, or lower-cases without stripping accents, or the like.
    """
    folder = pathlib.Path(folder)
    described = read_json(inside(folder, SETTINGS)) if (folder / SETTINGS).exists() else {}
    fast = read_json(inside(folder, FAST)) if (folder / FAST).exists() else {}
    lowercase = described.get("do_lower_case")
    normalizer = fast.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer":
        lowercase = field(normalizer, "lowercase", bool, folder / FAST, lowercase)
        described = {
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        } | described
    elif normalizer:
        raise ConfigError(f"{folder / FAST}: the normalizer {normalizer.get('type')!r} is not BERT's")
    if described.get("strip_accents") not in (None, lowercase):
        raise ConfigError(
            f"{folder / SETTINGS}: strip_accents differs from do_lower_case, which WordPiece here cannot do"
        )
    if described.get("tokenize_chinese_chars", True) is not True:
        raise ConfigError(f"{folder / SETTINGS}: tokenize_chinese_chars=false is not BERT's tokenisation")
    model = fast.get("model") or {}
    limit = field(model, "max_input_chars_per_word", int, folder / FAST, WORD_LIMIT)
    options: dict[str, Any] = {"max_word_chars": limit}
    if isinstance(lowercase, bool):
        options["lowercase"] = lowercase
    if (folder / VOCABULARY).exists():
        return open_tokenizer(inside(folder, VOCABULARY), **options)
    if not model:
        return None
    if model.get("type") != "WordPiece":
        raise ConfigError(f"{folder / FAST}: the model {model.get('type')!r} is not WordPiece")
    ids = field(model, "vocab", dict, folder / FAST)
    pieces = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ConfigError(f"{folder / FAST}: the ids of the vocabulary are not 0, 1, 2, ...")
    return WordPiece(pieces, **options)


def write(folder: str | os.PathLike[str], tokenizer: Tokenizer, max_len: int) -> int:
    """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`; returns the id of [PAD]."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    if not isinstance(tokenizer, WordPiece):
        raise ConfigError(f"a tokenizer of kind {tokenizer.kind!r} cannot be written as BERT's WordPiece")
    folder = pathlib.Path(folder)
    (folder / VOCABULARY).write_text("".join(f"{piece}\n" for piece in tokenizer.pieces), encoding="utf-8")
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIALS))
    write_json(
        folder / SETTINGS,
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": tokenizer.lowercase,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "model_max_length": max_len,
            **named,
        },
    )
    fast = tokenizers.Tokenizer(
        models.WordPiece(vocab=tokenizer.ids, unk_token="[UNK]", max_input_chars_per_word=tokenizer.max_word_chars)
    )
    fast.normalizer = normalizers.BertNormalizer(lowercase=tokenizer.lowercase)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.add_special_tokens(list(SPECIALS))
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.cls_id), ("[SEP]", tokenizer.sep_id)],
    )
    fast.decoder = tokenizers.decoders.WordPiece(prefix="##")
    fast.save(str(folder / FAST))
    return tokenizer.pad_id
