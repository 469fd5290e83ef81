"""Text to pieces with character offsets: WordPiece, BPE, byte-level BPE, words, characters, sentences. No JAX here."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from etils import epath

from ctxjax import paths

if TYPE_CHECKING:
    from ctxjax.text.tokenizer import Tokenizer

KINDS = ("wordpiece", "words", "bpe", "byte_bpe")


def open_tokenizer(path: str | os.PathLike[str], **options: Any) -> Tokenizer:
    """Open a saved tokenizer, or a bare vocabulary file.

    Args:
      path: a folder with `vocab.txt` and perhaps `tokenizer.json`, or a vocabulary file, one piece a line (an official
        BERT `vocab.txt` is taken as it is; one that begins with <S>, </S>, <UNK> is a word vocabulary). BPE is a
        folder with `encoder.json` and `vocab.bpe` (or the names of GPT's release), or `vocab.json` and `merges.txt`,
        or either JSON file; its pieces tell whether it is GPT's or byte-level.
      **options: keyword arguments of the tokenizer's class that win over what is saved. Where nobody says whether a
        WordPiece vocabulary is lower-cased, it is unless many of its pieces hold capital letters.

    Raises:
      ConfigError: no such file, or it is not a vocabulary.
    """
    from ctxjax.config import ConfigError
    from ctxjax.text.bpe_files import MERGES, PUBLISHED, is_of_characters, read_merges, read_published
    from ctxjax.text.tokenizer import VOCABULARY, read_vocabulary

    path = paths.at(path)
    file = path / VOCABULARY if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        file = next((path / name for name in PUBLISHED if (path / name).is_file()), file)
    if not file.is_file():
        raise ConfigError(f"vocabulary {file} does not exist")
    kind, saved = _saved(path)
    if file.suffix == ".json":
        pieces, merges = read_published(file)
        kind = kind or ("bpe" if is_of_characters(pieces) else "byte_bpe")
        return _opened(file, kind, pieces, {"merges": merges} | saved | options)
    pieces = read_vocabulary(file)
    if kind is None:
        from ctxjax.text.words import SPECIALS

        kind = "words" if tuple(pieces[:3]) == SPECIALS else "wordpiece"
        saved = _published_options(path, pieces) if kind == "wordpiece" else {}
    if kind == "byte_bpe":
        saved = saved | {"merges": read_merges(path / MERGES)}
    return _opened(file, kind, pieces, saved | options)


def _saved(path: epath.Path) -> tuple[str | None, dict[str, Any]]:
    """Kind and options of a tokenizer that we saved; a `tokenizer.json` of Hugging Face has no kind."""
    from ctxjax.config import ConfigError
    from ctxjax.text.tokenizer import SETTINGS

    settings = path / SETTINGS
    if not (path.is_dir() and settings.is_file()):
        return None, {}
    try:
        described = json.loads(settings.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{settings} is not JSON ({error})") from None
    return (described["kind"], described.get("options", {})) if described.get("kind") in KINDS else (None, {})


def _opened(file: epath.Path, kind: str, pieces: list[str], options: dict[str, Any]) -> Tokenizer:
    """The tokenizer, or one sentence that names its file."""
    from ctxjax.config import ConfigError

    try:
        return _make(kind, pieces, options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"vocabulary {file}: {error}") from None


def _make(kind: str, pieces: list[str], options: dict[str, Any]) -> Tokenizer:
    if kind == "words":
        from ctxjax.text.words import Words

        return Words(pieces, **options)
    if kind == "bpe":
        from ctxjax.text.bpe import BPE

        return BPE(pieces, **options)
    if kind == "byte_bpe":
        from ctxjax.text.byte_bpe import ByteBPE

        return ByteBPE(pieces, **options)
    from ctxjax.text.wordpiece import WordPiece

    return WordPiece(pieces, **options)


def _published_options(path: epath.Path, pieces: list[str]) -> dict[str, Any]:
    """Whether a published WordPiece vocabulary is lower-cased: by the files beside it, or by its capital letters."""
    for name in ("tokenizer_config.json", "bert_config.json"):
        file = (path if path.is_dir() else path.parent) / name
        if file.is_file():
            try:
                described = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                continue
            if isinstance(described.get("do_lower_case"), bool):
                return {"lowercase": described["do_lower_case"]}
    words = [piece for piece in pieces if not piece.startswith("[")]
    capitals = sum(piece != piece.lower() for piece in words)
    return {"lowercase": capitals * 10 < len(words) or not words}
