"""Text of TensorFlow Datasets, prepared as array_record and read without TensorFlow."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, tfds_records
from ctxjax.data.reading import PIECE_BYTES, Chunk, Input, Piece


def open_source(item: str) -> tuple[Any, Any]:
    """(builder, random-access source) of `tfds:...`; a dataset that is not prepared yet is, for good.

    Raises:
      ConfigError: no such dataset or split, or one that only TensorFlow can prepare or read.
    """
    name, split = tfds_records.parse(item)
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
            raise ConfigError(f"input {item}: TFDS knows no dataset {name!r}{tfds_records.suggestion(name)}") from None
        raise ConfigError(f"input {item} needs TensorFlow to be opened ({error}); pip install 'ctxjax[tf]'") from None
    except (ValueError, RuntimeError, OSError, AttributeError) as error:
        raise ConfigError(f"input {item} cannot be opened ({tfds_records.first_line(error)})") from None
    if not os.path.isdir(str(builder.data_path)):
        builder = _prepare(item, name)
    return builder, tfds_records.open_split(builder, name, split, f"input {item}")


def _prepare(item: str, name: str) -> Any:
    """The builder of a dataset, once it has downloaded and written it; that needs no TensorFlow for many of them."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    print(f"{item} is not there yet: TFDS prepares it under {builder.data_path}", file=sys.stderr)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        missing = error.name or "tensorflow"
        command = tfds_records.command(name, *([] if missing == "tensorflow" else [missing]))
        raise ConfigError(f"input {item} cannot be prepared without the package {missing}; {command}") from None
    except Exception as error:  # whatever builders and downloads raise
        reason = f"{type(error).__name__}: {tfds_records.first_line(error)}"
        raise ConfigError(
            f"input {item} is not prepared, and preparing it failed ({reason}); {tfds_records.command(name)}"
        ) from error
    return builder


def describe(item: str, field: str) -> Input:
    """As `reading.describe`; the size is the number of records.

    Raises:
      ConfigError: also where the dataset has no such field.
    """
    builder, source = open_source(item)
    features = list(builder.info.features or ())
    if field not in features:
        raise ConfigError(f"input {item} has no field {field!r}; --field is one of {', '.join(features)}")
    folder = pathlib.Path(str(builder.data_path))
    files = sorted(path for path in folder.iterdir() if "array_record" in path.name)
    about = repr((builder.info.full_name, tfds_records.parse(item)[1], field))
    return Input(item, "texts", len(source), tfds_records.digest_of(files, about))


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
