"""fastText's .bin: the whole model, n-gram rows and output table, read and written as the official tool does.

The layout (version 12), little-endian: magic, version; twelve int32 and one double of arguments; the dictionary (sizes,
then each entry's text, count and type); a byte and the input table, words first and buckets behind; a byte and the
output table. A quantised model (the byte is 1) is refused. Reference: facebookresearch/fastText src/fasttext.cc,
src/args.cc, src/dictionary.cc, src/densematrix.cc.
"""

from __future__ import annotations

import os
import pathlib
import struct
from typing import Any

import numpy as np

from ctxjax.config import ConfigError
from ctxjax.interop import word_vectors
from ctxjax.interop.files import Published
from ctxjax.interop.word_vectors import OUTPUT, TABLE
from ctxjax.text.words import SPECIALS, Words

MAGIC, VERSION = 793712314, 12
ARGUMENTS = "dim ws epoch minCount neg wordNgrams loss model bucket minn maxn lrUpdateRate".split()
MODELS, LOSSES = {1: "cbow", 2: "skipgram", 3: "supervised"}, {1: "tree", 2: "negatives", 3: "softmax", 4: "ova"}
DEFAULTS = {"ws": 5, "epoch": 5, "minCount": 1, "neg": 5, "loss": 2, "model": 2, "lrUpdateRate": 100}
LABELS = "head/labels/embedding"
_SIZES = struct.Struct("<3i2q")


def is_fasttext(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a .bin of fastText does."""
    path = pathlib.Path(path)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == struct.pack("<i", MAGIC)


def read(path: str | os.PathLike[str]) -> Published:
    """A model of fastText in our names.

    Raises:
      ConfigError: quantised, another version, cut short, or with sizes that the file cannot hold.
    """
    path = pathlib.Path(path)
    data = np.memmap(path, np.uint8, "r")
    try:
        return _read(path, data)
    except (struct.error, IndexError) as error:
        raise ConfigError(f"{path} is cut short or corrupt: {error}") from None


def _read(path: pathlib.Path, data: np.ndarray) -> Published:
    raw = memoryview(data)
    _, version = struct.unpack_from("<2i", raw, 0)
    if version not in (11, VERSION):
        raise ConfigError(f"{path} has version {version} of fastText's format; 11 and 12 can be read")
    args: dict[str, Any] = dict(zip(ARGUMENTS, struct.unpack_from(f"<{len(ARGUMENTS)}i", raw, 8)))
    at = 8 + 4 * len(ARGUMENTS) + 8
    size, words, labels, _, pruned = _SIZES.unpack_from(raw, at)
    at += _SIZES.size
    if not 0 <= words <= size or words + labels != size or size * 10 > len(data):
        raise ConfigError(f"{path} claims {size} entries, which its {len(data)} bytes cannot hold")
    if pruned > 0:
        raise ConfigError(f"{path} is a quantised model, which is not read; load the .bin that it was made from")
    names, counts = [], []
    for _ in range(size):
        end = at + bytes(raw[at : at + 65536]).index(b"\0") if at < len(data) else 0
        if end <= at:
            raise IndexError("an entry has no text")
        names.append(bytes(raw[at:end]).decode("utf-8", "surrogateescape"))
        counts.append(struct.unpack_from("<q", raw, end + 1)[0])
        at = end + 10
    tables = []
    for _ in range(2):
        if raw[at]:
            raise ConfigError(f"{path} is a quantised model, which is not read; load the .bin that it was made from")
        rows, width = struct.unpack_from("<2q", raw, at + 1)
        at += 17
        if rows < 0 or not 0 < width < 1 << 16 or rows * width * 4 > len(data) - at:
            raise ConfigError(f"{path} claims a table of {rows} x {width}, which it cannot hold; it is cut short")
        tables.append(np.frombuffer(raw[at : at + rows * width * 4], "<f4").reshape(rows, width))
        at += rows * width * 4
    if version == 11 and args["model"] == 3:
        args["maxn"] = 0
    return _publish(path, args, names, words, *tables)


def _publish(
    path: pathlib.Path, args: dict[str, Any], names: list[str], words: int, table: np.ndarray, output: np.ndarray
) -> Published:
    width = table.shape[1]
    if len(table) not in (words, words + args["bucket"]):
        raise ConfigError(f"{path} has {len(table)} rows, not {words} words and {args['bucket']} buckets")
    if any(name in SPECIALS for name in names[:words]):
        raise ConfigError(f"{path} has one of {', '.join(SPECIALS)} among its words, which stand for other things here")
    kind = MODELS.get(args["model"])
    if kind is None or args["loss"] not in LOSSES:
        raise ConfigError(f"{path} has model {args['model']} and loss {args['loss']}, which are not known")
    marks = np.zeros((len(SPECIALS), width), np.float32)
    tokenizer = Words([*SPECIALS, *names[:words]], split="whitespace")
    buckets = len(table) - words
    config: dict[str, Any] = {"name": "fasttext", "vocab_size": len(tokenizer), "width": width, "buckets": buckets}
    config |= {"shortest": args["minn"], "longest": args["maxn"]}
    params = {TABLE: np.concatenate([marks, table])}
    if kind == "supervised":
        labels = tuple(name.removeprefix("__label__") for name in names[words:])
        if args["loss"] == 1:
            raise ConfigError(f"{path} classifies down a Huffman tree, which is not read; train it with -loss softmax")
        config |= {"labels": labels, "word_ngrams": args["wordNgrams"]}
        return Published(config, params | {LABELS: np.array(output)}, tokenizer)
    missing = () if args["loss"] == 2 else ("output",)
    outputs = np.concatenate([marks, output]) if not missing else np.zeros((len(tokenizer), width), np.float32)
    return Published(config, params | {OUTPUT: outputs}, tokenizer, missing)


def write(folder: pathlib.Path, published: Published, counts: np.ndarray | None = None) -> tuple[str, ...]:
    """`model.bin`, which the official tool opens, and `model.vec`, the vectors of its words.

    Counts of words are not part of a model of ours; they are written as falling numbers, which keeps their order.
    """
    assert published.tokenizer is not None
    config, tokenizer = published.config, published.tokenizer
    folder.mkdir(parents=True)
    names = list(tokenizer.pieces[len(SPECIALS) :])
    labels = [f"__label__{label}" for label in config.get("labels", ())]
    table = published.params[TABLE][len(SPECIALS) :]
    output = published.params[LABELS] if labels else published.params[OUTPUT][len(SPECIALS) :]
    buckets = config.get("buckets", 0)
    shortest, longest = (
        config.get(name, default) if buckets else 0 for name, default in (("shortest", 3), ("longest", 6))
    )
    given = {"dim": table.shape[1], "bucket": buckets, "wordNgrams": config.get("word_ngrams", 1)}
    given |= {"minn": shortest, "maxn": longest}
    args = DEFAULTS | given | ({"loss": 3, "model": 3} if labels else {})
    with open(folder / "model.bin", "wb") as file:
        file.write(struct.pack("<2i", MAGIC, VERSION))
        file.write(struct.pack(f"<{len(ARGUMENTS)}id", *(args[name] for name in ARGUMENTS), 1e-4))
        total = len(names) + len(labels)
        numbers = np.arange(total, 0, -1) if counts is None else counts
        file.write(_SIZES.pack(total, len(names), len(labels), int(numbers.sum()), -1))
        for place, (name, count) in enumerate(zip([*names, *labels], numbers.tolist())):
            entry = struct.pack("<qb", count, place >= len(names))
            file.write(name.encode("utf-8", "surrogateescape") + b"\0" + entry)
        for values in (table, output):
            file.write(struct.pack("<b2q", 0, *values.shape))
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
    if not labels:
        words, vectors = word_vectors.words_of(published)
        word_vectors.write_text(folder / "model.vec", zip(words, vectors), f"{len(words)} {vectors.shape[1]}")
    return ("counts of words are not kept, and stand in the file as falling numbers",) if counts is None else ()
