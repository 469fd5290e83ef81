"""What every tokenizer is: pieces with character offsets, and two small files that make it again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from ctxjax import paths
from ctxjax.config import ConfigError

VOCABULARY = "vocab.txt"
SETTINGS = "tokenizer.json"


class Encoding(NamedTuple):
    """Pieces of a text, no special pieces added.

    Attributes:
      ids: int32 [n].
      pieces: the pieces as text, a continuation with its mark.
      offsets: int32 [n, 2], start and end of each piece, in characters of the given text (of each word's own text for
        `encode_words`).
      words: int32 [n], the index of the word that a piece belongs to, into `split_words(text)` or the given words.
    """

    ids: Int[np.ndarray, " n"]
    pieces: list[str]
    offsets: Int[np.ndarray, "n 2"]
    words: Int[np.ndarray, " n"]


class Sentences(NamedTuple):
    """Ids of many sentences in a row, as the corpus stores them.

    Attributes:
      ids: int32 [n], all sentences concatenated.
      lengths: int64 [s], pieces of each sentence; 0 where nothing was left of it.
      unknown: surface forms of the unknown words in order, where the tokenizer keeps them.
      long_words: how many words were over the tokenizer's limit.
    """

    ids: Int[np.ndarray, " n"]
    lengths: Int[np.ndarray, " s"]
    unknown: list[str]
    long_words: int


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      kind: "wordpiece", "words", "bpe" or "byte_bpe".
      keeps_space: whether white space is part of the pieces, so that `decode` gives back the text.
      pieces, ids: id -> piece and piece -> id.
      unk_id: the id of whatever the vocabulary lacks; -1 where it lacks nothing.
    """

    kind: str
    keeps_space: bool
    pieces: list[str]
    ids: dict[str, int]
    unk_id: int
    end_id: int  # between two documents of one text

    def __len__(self) -> int: ...
    def encode(self, text: str) -> Encoding: ...
    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]: ...
    def encode_words(self, words: Sequence[str]) -> Encoding: ...
    def encode_sentences(self, sentences: Sequence[str]) -> Sentences: ...
    def split_words(self, text: str) -> list[tuple[int, int]]: ...
    def decode(self, ids: Any) -> str: ...
    def options(self) -> dict[str, Any]: ...
    def save(self, folder: str | os.PathLike[str]) -> None: ...
    def digest(self) -> str: ...


def make_encoding(
    tokenizer: Tokenizer, ids: Sequence[int], starts: Sequence[int], ends: Sequence[int], words: Sequence[int]
) -> Encoding:
    """An `Encoding` from plain lists."""
    offsets = np.empty((len(ids), 2), np.int32)
    offsets[:, 0], offsets[:, 1] = starts, ends
    pieces = tokenizer.pieces
    return Encoding(np.array(ids, np.int32), [pieces[i] for i in ids], offsets, np.array(words, np.int32))


def settings_text(tokenizer: Tokenizer) -> str:
    """The content of `tokenizer.json`."""
    return json.dumps({"kind": tokenizer.kind, "options": tokenizer.options()}, indent=1, sort_keys=True) + "\n"


def save_files(tokenizer: Tokenizer, folder: str | os.PathLike[str], more: Mapping[str, str] | None = None) -> None:
    """Write `vocab.txt`, any `more` files (name -> content), and `tokenizer.json` last, each whole or not at all."""
    pieces = "".join(f"{piece}\n" for piece in tokenizer.pieces)
    write_files(folder, {VOCABULARY: pieces, **(more or {}), SETTINGS: settings_text(tokenizer)})


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, str]) -> None:
    """Write files (name -> content) in their order, each whole or not at all."""
    folder = paths.at(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        paths.write_text(folder / name, content)


def digest_of(tokenizer: Tokenizer, *more: str) -> str:
    """sha256 (32 hexadecimal digits) of what `save` writes: equal digests mean equal ids for every text."""
    digest = hashlib.sha256(settings_text(tokenizer).encode())
    for piece in tokenizer.pieces:
        digest.update(piece.encode("utf-8", "surrogatepass") + b"\n")
    for content in more:
        digest.update(content.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """The pieces of a vocabulary file, one a line, the id being the line; blanks round a piece are no part of it.

    Raises:
      ConfigError: the file is empty or not UTF-8.
    """
    try:
        text = paths.at(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"vocabulary {path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    pieces = [line.strip() for line in text.split("\n")]
    while pieces and not pieces[-1]:
        pieces.pop()
    if not pieces:
        raise ConfigError(f"vocabulary {path} is empty")
    return pieces
