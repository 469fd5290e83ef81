"""The ARPA format of back-off models: written and read line by line, log10 as the format has it.

Reference: the format as SRILM's manual page ngram-format(5) gives it; KenLM reads what is written here.
"""

from __future__ import annotations

import gzip
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.ngrams import smoothing, trie
from ctxjax.text.words import SPECIALS, Words

MARKS = ("<s>", "</s>", "<unk>")
LARGEST = 12  # orders; none published comes near
_ROWS = 1 << 16


def write(path: str | os.PathLike[str], tables: Mapping[str, np.ndarray], words: list[str], order: int) -> None:
    """Write a back-off model; `words` are the vocabulary with the marks called as ARPA has them.

    Raises:
      ConfigError: a word with white space in it, which the format cannot hold.
    """
    bad = next((word for word in words if not word or re.search(r"\s", word)), None)
    if bad is not None:
        raise ConfigError(f"the piece {bad!r} holds white space, and an ARPA file separates by it; count words instead")
    model = smoothing.tables_to_trie(tables, len(words), order)
    part = pathlib.Path(f"{os.fspath(path)}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={size}\n" for n, size in enumerate(model.sizes, start=1))
        for n in range(1, order + 1):
            file.write(f"\n\\{n}-grams:\n")
            rows = model.words(n)
            log_prob = tables[f"order_{n}/log_prob"].astype(np.float64) / smoothing.LN10
            log_prob[log_prob < smoothing.NEVER + 0.01] = smoothing.NEVER  # f32 has it a little above
            backoff = tables[f"order_{n}/backoff"] / smoothing.LN10 if n < order else None
            for start in range(0, len(rows), _ROWS):
                part_rows = rows[start : start + _ROWS].tolist()
                probs = log_prob[start : start + _ROWS].tolist()
                texts = (" ".join(words[word] for word in row) for row in part_rows)
                if backoff is None:
                    file.writelines(f"{prob:.7g}\t{text}\n" for prob, text in zip(probs, texts))
                else:
                    weights = backoff[start : start + _ROWS].tolist()
                    file.writelines(f"{p:.7g}\t{text}\t{b:.7g}\n" for p, text, b in zip(probs, texts, weights))
        file.write("\n\\end\\\n")
    os.replace(part, path)


def arpa_words(tokenizer: Any) -> list[str]:
    """The vocabulary of a tokenizer as an ARPA file names it."""
    words = list(tokenizer.pieces)
    if tokenizer.kind == "words":
        words[: len(MARKS)] = MARKS
    return words


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray], Words]:
    """A model from an ARPA file (`.gz` too).

    Returns:
      the `model` sub-dict of a config, tables by path name, and the words. A file without `<unk>` gets one that is
      never predicted, as in KenLM.

    Raises:
      ConfigError: a line that is not of the format, with its number.
    """
    opener: Any = gzip.open if os.fspath(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        lines = _Lines(path, file)
        sizes = _read_sizes(lines)
        sections = [_read_section(lines, n, size, len(sizes)) for n, size in enumerate(sizes, start=1)]
        if lines.next_filled() != "\\end\\":
            raise lines.error("expected \\end\\")
    found = [row[0] for row in sections[0][0]]
    known = dict(zip(MARKS, SPECIALS))
    missing = [mark for mark in MARKS[:2] if mark not in found]
    if missing:
        raise ConfigError(f"{os.fspath(path)} has no {missing[0]} among its 1-grams; only models of sentences are read")
    pieces = [*SPECIALS, *(word for word in found if word not in known)]
    ids = {word: number for number, word in enumerate(pieces)} | {mark: number for number, mark in enumerate(MARKS)}
    if len(set(pieces)) != len(pieces):
        raise ConfigError(f"{os.fspath(path)} has a word twice among its 1-grams")
    return _tables(os.fspath(path), sections, ids, pieces)


def _tables(path: str, sections: list[Any], ids: Mapping[str, int], pieces: list[str]):
    tables: dict[str, np.ndarray] = {}
    grams = []
    for rows, _, _ in sections[1:]:
        try:
            flat = [ids[word] for row in rows for word in row]
        except KeyError as error:
            raise ConfigError(f"{path}: the word {error.args[0]!r} is in an n-gram but not among the 1-grams") from None
        grams.append(np.array(flat, np.int32).reshape(len(rows), -1))
    try:
        nodes, places = trie.build(len(pieces), grams)
    except ValueError as error:
        raise ConfigError(f"{path} holds {error}") from None
    tables |= smoothing.keys_to_tables(nodes)
    first = np.array([ids[row[0]] for row in sections[0][0]])
    for n, (_, probs, weights) in enumerate(sections, start=1):
        if n == 1:
            log_prob, backoff = np.full(len(pieces), smoothing.NEVER, np.float32), np.zeros(len(pieces), np.float32)
            log_prob[first], backoff[first] = probs, weights
        else:
            log_prob, backoff = probs[places[n - 2]], weights[places[n - 2]]
        tables[f"order_{n}/log_prob"] = (log_prob * smoothing.LN10).astype(np.float32)
        if n < len(sections):
            tables[f"order_{n}/backoff"] = (backoff * smoothing.LN10).astype(np.float32)
    config = {"name": "ngram", "order": len(sections), "smoothing": "kneser_ney", "k": 1.0, "vocab_size": len(pieces)}
    return config, tables, Words(pieces, split="whitespace")


class _Lines:
    """Lines with their number, for what has to be said about one."""

    def __init__(self, path: str | os.PathLike[str], file: Any):
        self.path, self.number, self._lines = os.fspath(path), 0, file

    def __iter__(self) -> Iterator[str]:
        try:
            for line in self._lines:
                self.number += 1
                yield line.rstrip("\n")
        except (UnicodeDecodeError, EOFError, OSError) as error:
            raise ConfigError(f"{self.path} cannot be read behind line {self.number} ({error})") from None

    def next_filled(self) -> str:
        return next((line.strip() for line in self if line.strip()), "")

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {self.number}: {what}")


def _read_sizes(lines: _Lines) -> list[int]:
    if not any(line.strip() == "\\data\\" for line in itertools.islice(lines, 100)):
        raise ConfigError(f"{lines.path} is not an ARPA file: there is no \\data\\ in its first 100 lines")
    sizes: list[int] = []
    for line in lines:
        match = re.fullmatch(r"ngram (\d+)\s*=\s*(\d+)", line.strip())
        if not match:
            if line.strip() or not sizes:
                raise lines.error("expected 'ngram N=COUNT'")
            break
        if int(match[1]) != len(sizes) + 1 or len(sizes) == LARGEST:
            raise lines.error(f"expected the count of order {len(sizes) + 1}, of {LARGEST} orders at most")
        sizes.append(int(match[2]))
    return sizes


def _read_section(lines: _Lines, n: int, size: int, order: int) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    if lines.next_filled() != f"\\{n}-grams:":
        raise lines.error(f"expected \\{n}-grams:")
    rows: list[list[str]] = []
    probs: list[float] = []
    weights: list[float] = []
    for line in itertools.islice(lines, size):
        fields = line.split()
        if len(fields) not in (n + 1, n + 2):
            raise lines.error(f"expected a log-probability, {n} words and perhaps a back-off weight")
        try:
            probs.append(float(fields[0]))
            weights.append(float(fields[n + 1]) if len(fields) == n + 2 else 0.0)
        except ValueError:
            raise lines.error("a log-probability or back-off weight is not a number") from None
        rows.append(fields[1 : n + 1])
    if len(rows) != size:
        raise lines.error(f"{size} {n}-grams were announced, and there are {len(rows)}")
    return rows, np.array(probs, np.float32), np.array(weights, np.float32)
