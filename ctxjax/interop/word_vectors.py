"""Tables of word vectors in files: word2vec's binary and text, GloVe's text, fastText's .vec.

word2vec's files and fastText's .vec begin with a line "words width"; GloVe's has no such line. A binary file is
memory-mapped, a text file streamed, and what a header claims is compared with the size of the file before an array is
made.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop.files import Published
from ctxjax.text.subwords import SubWords
from ctxjax.text.words import SPECIALS, Words

TABLE, OUTPUT = "embed/tokens/embedding", "head/output/embedding"
CONTEXT = "embed/context/embedding"
UNKNOWN = ("<UNK>", "<unk>")  # as GloVe writes the vector of all other words
WIDEST = 1 << 16
LONGEST_WORD = 1 << 12  # bytes
_HEADER = re.compile(rb"(\d{1,10}) (\d{1,6}) ?\r?\n")
_LINES = 4096  # parsed together


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """ "binary", "text" (with a header) or "glove" for a file that looks like one, by its first bytes; else None."""
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    found = _HEADER.match(head)
    if found:
        if path.suffix == ".bin":
            return "binary"
        line = head[found.end() :].split(b"\n", 1)[0]
        return "text" if _numbers(line, int(found[2])) else "binary"
    line = head.split(b"\n", 1)[0]
    return "glove" if path.suffix in (".txt", ".vec") and line.count(b" ") > 1 and _numbers(line, 2) else None


def _numbers(line: bytes, count: int) -> bool:
    """Whether a line ends in so many numbers, behind a word."""
    parts = line.rstrip().rsplit(b" ", count)
    try:
        np.array(parts[1:]).astype(np.float32)
    except ValueError:
        return False
    return len(parts) == count + 1


def read(path: str | os.PathLike[str]) -> Published:
    """A table of word vectors as the input table of a `word2vec` model; the output table is not in such files.

    Words outside the table have the vector of `<unk>` where the file has one, else zeros.

    Raises:
      ConfigError: not such a file, cut short, or with a header that its size belies.
    """
    path = pathlib.Path(path)
    kind = kind_of(path)
    if kind is None:
        raise ConfigError(f"{path} is no table of word vectors: its first line is neither 'words width' nor a vector")
    words, table = _read_binary(path) if kind == "binary" else _read_text(path, header=kind == "text")
    return publish(words, table)


def publish(words: list[str], table: np.ndarray) -> Published:
    """Words and their rows in our names, behind the three marks of a word vocabulary."""
    first: dict[str, int] = {}
    for row, word in enumerate(words):
        if word not in SPECIALS and word not in UNKNOWN:
            first.setdefault(word, row)
    marks = np.zeros((len(SPECIALS), table.shape[1]), np.float32)
    known = {word: row for row, word in enumerate(words) if word in (*SPECIALS, *UNKNOWN)}
    for mark, name in enumerate(SPECIALS):
        row = known.get(name, known.get("<unk>") if name == "<UNK>" else None)
        if row is not None:
            marks[mark] = table[row]
    extra = len(words) - len(first) - len(known)
    notes = (f"{extra} words stand more than once; the first of each was taken",) if extra else ()
    lowercase = all(word == word.lower() for word in first)
    tokenizer = Words([*SPECIALS, *first], lowercase=lowercase)
    params = {TABLE: np.concatenate([marks, table[np.fromiter(first.values(), np.int64, len(first))]])}
    params[OUTPUT] = np.zeros_like(params[TABLE])
    config = {"name": "word2vec", "vocab_size": len(tokenizer), "width": int(table.shape[1])}
    return Published(config, params, tokenizer, ("output",), notes)


def _header(path: pathlib.Path, head: bytes, bytes_of: Any) -> tuple[int, int, int]:
    found = _HEADER.match(head)
    assert found is not None
    count, width = int(found[1]), int(found[2])
    least = count * bytes_of(width)
    if not (0 < width <= WIDEST) or not count or path.stat().st_size < found.end() + least:
        raise ConfigError(
            f"{path} claims {count} vectors of {width}, which its {path.stat().st_size} bytes cannot hold; it is cut "
            "short or no table of word vectors"
        )
    return count, width, found.end()


def _read_binary(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Each word, a space, its numbers; a newline may stand before a word (the original writes one, gensim does not)."""
    import tqdm

    data = np.memmap(path, np.uint8, "r")
    count, width, at = _header(path, bytes(data[:64]), lambda width: 4 * width + 2)
    table, words, raw = np.empty((count, width), np.float32), [], memoryview(data)
    for row in tqdm.trange(count, desc=path.name, unit=" words", delay=3, disable=None):
        name = bytes(raw[at : at + LONGEST_WORD])
        end = name.find(b" ")
        if end < 0 or at + end + 1 + 4 * width > len(data):
            raise ConfigError(f"{path} is cut short or corrupt at byte {at}, in vector {row} of {count}")
        words.append(name[:end].lstrip(b"\n").decode("utf-8", "surrogateescape"))
        at += end + 1
        table[row] = np.frombuffer(raw[at : at + 4 * width], "<f4")
        at += 4 * width
    return words, table


def _read_text(path: pathlib.Path, header: bool) -> tuple[list[str], np.ndarray]:
    import tqdm

    with open(path, "rb") as file:
        count, width, start = 0, 0, 0
        if header:
            count, width, start = _header(path, file.read(64), lambda width: 2 * width + 1)
        else:  # words may hold spaces: the line with the fewest tells
            width = min(len(line.split(b" ")) - 1 for line in file.read(1 << 16).split(b"\n")[:100] if line)
        file.seek(start)
        words: list[str] = []
        blocks: list[np.ndarray] = []
        with tqdm.tqdm(
            total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, delay=3, disable=None
        ) as bar:
            for lines in _batches(file):
                names, block = _parse(path, lines, width, len(words) + (2 if header else 1))
                words += names
                blocks.append(block)
                bar.update(sum(map(len, lines)))
    table = np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)
    if len(words) != (count or len(words)) or not words:
        raise ConfigError(f"{path} has {len(words)} vectors, and its first line says {count}")
    return words, table


def _batches(file: Any) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    for line in file:
        if line.strip():
            lines.append(line)
        if len(lines) == _LINES:
            yield lines
            lines = []
    if lines:
        yield lines


def _parse(path: pathlib.Path, lines: list[bytes], width: int, first: int) -> tuple[list[str], np.ndarray]:
    names, numbers = [], []
    for place, line in enumerate(lines):
        parts = line.rstrip(b" \r\n").rsplit(b" ", width)
        if len(parts) != width + 1:
            raise ConfigError(f"{path}, line {first + place}: {len(parts) - 1} numbers, not {width}")
        names.append(parts[0].decode("utf-8", "surrogateescape"))
        numbers += parts[1:]
    try:
        return names, np.array(numbers).astype(np.float32).reshape(-1, width)
    except ValueError as error:
        raise ConfigError(f"{path}, lines {first} to {first + len(lines) - 1}: {error}") from None


def words_of(published: Published) -> tuple[list[str], np.ndarray]:
    """The words of a model without the marks, and their vectors: a row, or the mean of a word's rows."""
    assert published.tokenizer is not None
    config, tokenizer, table = published.config, published.tokenizer, published.params[TABLE]
    words = tokenizer.pieces[len(SPECIALS) :]
    if config.get("buckets"):
        reader = SubWords(tokenizer, config.get("shortest", 3), config.get("longest", 6), config["buckets"])
        return words, np.stack([table[reader.rows_of(word)].mean(0) for word in words])
    table = table + published.params[CONTEXT] if CONTEXT in published.params else table  # GloVe's two tables
    return words, table[len(SPECIALS) : len(tokenizer)]


def write_word2vec(folder: pathlib.Path, published: Published) -> tuple[str, ...]:
    """`vectors.bin` and `vectors.txt`, as word2vec.c writes them with and without -binary."""
    words, table = words_of(published)
    folder.mkdir(parents=True)
    with open(folder / "vectors.bin", "wb") as file:
        file.write(f"{len(words)} {table.shape[1]}\n".encode())
        for word, row in zip(words, table):
            file.write(_name(word) + b" " + row.astype("<f4").tobytes() + b"\n")
    write_text(folder / "vectors.txt", zip(words, table), f"{len(words)} {table.shape[1]}")
    return ("the output table was left out",)


def write_glove(folder: pathlib.Path, published: Published) -> tuple[str, ...]:
    """`vectors.txt` as GloVe writes it: no header, and `<unk>` last."""
    words, table = words_of(published)
    folder.mkdir(parents=True)
    if published.config["name"] == "glove":
        unknown = table[-published.config.get("rare", 100) :].mean(0)
    else:
        unknown = published.params[TABLE][SPECIALS.index("<UNK>")]
    write_text(folder / "vectors.txt", [*zip(words, table), ("<unk>", unknown)])
    return ()


def write_text(path: pathlib.Path, rows: Iterable[tuple[str, np.ndarray]], header: str = "") -> None:
    """A line for each word, behind a header where there is one."""
    with open(path, "wb") as file:
        if header:
            file.write(f"{header}\n".encode())
        for word, row in rows:
            file.write(_name(word) + b" " + " ".join(map(_short, row)).encode() + b"\n")


def _short(value: np.float32) -> str:
    """The shortest text that is this float32 when read again."""
    return np.format_float_positional(value, unique=True, trim="-")


def _name(word: str) -> bytes:
    if any(char in word for char in " \n"):
        raise ConfigError(f"the word {word!r} has a blank in it, which these files cannot hold")
    return word.encode("utf-8", "surrogateescape")
