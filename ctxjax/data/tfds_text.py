"""Text of TensorFlow Datasets, prepared as array_record and read without TensorFlow."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import xxhash

from ctxjax.config import ConfigError, did_you_mean
from ctxjax.data import cleaning
from ctxjax.data.reading import PIECE_BYTES, Chunk, Input, Piece

PREFIX = "tfds:"


def parse(name: str) -> tuple[str, str]:
    """`tfds:NAME[/config][:version][:split]` to (name, split); the split is "train" unless it is given."""
    name, colon, split = name.removeprefix(PREFIX).partition(":")
    if colon and split[:1].isdigit():
        version, _, split = split.partition(":")
        name = f"{name}:{version}"
    return name, split or "train"


def open_source(item: str) -> tuple[Any, Any]:
    """(builder, random-access source) of `tfds:...`; a dataset that is not prepared yet is, for good.

    Raises:
      ConfigError: no such dataset or split, or one that only TensorFlow can prepare or read.
    """
    name, split = parse(item)
    if name in ("hf", "huggingface", "kaggle"):  # namespaces of remote collections: tfds:hf:NAME
        raise ConfigError(
            f"input {item} belongs to a collection outside TFDS; save its text as JSON lines and give that"
        )
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text

    try:
        builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        if isinstance(error, tfds.core.DatasetNotFoundError):
            raise ConfigError(f"input {item}: TFDS knows no dataset {name!r}{_suggestion(tfds, name)}") from None
        raise ConfigError(f"input {item} needs TensorFlow to be opened ({error}); pip install 'ctxjax[tf]'") from None
    except (ValueError, RuntimeError, OSError, AttributeError) as error:
        raise ConfigError(f"input {item} cannot be opened ({_first_line(error)})") from None
    if not os.path.isdir(str(builder.data_path)):
        builder = _prepare(item, name)
    command = _command(name)
    written = getattr(builder.info.file_format, "value", None)
    if written != "array_record":
        raise ConfigError(f"input {item} is prepared as {written}, which only TensorFlow reads; {command}")
    base = split.partition("[")[0]
    if base not in builder.info.splits:
        raise ConfigError(f"input {item}: no split {base!r}{did_you_mean(base, builder.info.splits)}")
    try:
        return builder, builder.as_data_source(split)
    except (ValueError, RuntimeError, OSError, NotImplementedError, ImportError, AttributeError) as error:
        raise ConfigError(f"input {item} cannot be read without TensorFlow ({_first_line(error)}); {command}") from None


def _command(name: str, *packages: str) -> str:
    """What prepares a dataset where TensorFlow, and other packages, are needed for it."""
    install = " ".join(["pip install 'ctxjax[tf]'", *packages])
    code = f"tfds.builder('{name}', file_format='array_record').download_and_prepare()"
    return f'prepare it once, with network: {install} && python -c "import tensorflow_datasets as tfds; {code}"'


def _prepare(item: str, name: str) -> Any:
    """The builder of a dataset, once it has downloaded and written it; that needs no TensorFlow for many of them."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    print(f"{item} is not there yet: TFDS prepares it under {builder.data_path}", file=sys.stderr)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        missing = error.name or "tensorflow"
        command = _command(name, *([] if missing == "tensorflow" else [missing]))
        raise ConfigError(f"input {item} cannot be prepared without the package {missing}; {command}") from None
    except Exception as error:  # whatever builders and downloads raise
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ConfigError(
            f"input {item} is not prepared, and preparing it failed ({reason}); {_command(name)}"
        ) from error
    return builder


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _suggestion(tfds: Any, name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name.partition("/")[0], tfds.list_builders(with_community_datasets=False), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def describe(item: str, field: str) -> Input:
    """As `reading.describe`; the size is the number of records.

    Raises:
      ConfigError: also where the dataset has no such field.
    """
    builder, source = open_source(item)
    features = list(builder.info.features or ())
    if field not in features:
        raise ConfigError(f"input {item} has no field {field!r}; --field is one of {', '.join(features)}")
    digest = xxhash.xxh3_128(repr((builder.info.full_name, parse(item)[1], field)).encode())
    for path in sorted(pathlib.Path(str(builder.data_path)).iterdir()):
        if "array_record" in path.name:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return Input(item, "texts", len(source), digest.hexdigest())


def read_pieces(
    item: Input, field: str, first: int, counts: cleaning.Counts, rows: range | None = None
) -> Iterator[Piece]:
    """The pieces of a dataset, or of some rows of it, numbered from `first`; they count records."""
    _, source = open_source(item.path)
    rows = range(len(source)) if rows is None else rows
    texts: list[bytes] = []
    number, size = first, 0
    for row in rows:
        value = source[row][field]
        values = value if isinstance(value, (list, tuple)) or hasattr(value, "tolist") else [value]
        if hasattr(values, "tolist"):
            values = values.tolist() if getattr(values, "ndim", 1) else [values.item()]
        if not all(isinstance(part, (bytes, str)) for part in values):
            cleaning.add(counts, cleaning.NOT_TEXT)
            continue
        text = b"\n".join(p if isinstance(p, bytes) else p.encode("utf-8", "surrogatepass") for p in values)
        texts.append(text)
        size += len(text)
        if size >= PIECE_BYTES:
            yield Piece(number, [Chunk("texts", texts)], row + 1)
            number, size, texts = number + 1, 0, []
    if texts:
        yield Piece(number, [Chunk("texts", texts)], rows.stop)
