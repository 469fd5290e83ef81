"""Records of TensorFlow Datasets, prepared as array_record and read without TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import xxhash

from ctxjax.config import ConfigError, did_you_mean

PREFIX = "tfds:"
_TOGETHER = 1024  # records read at a time


def parse(name: str, split: str = "train") -> tuple[str, str]:
    """`tfds:NAME[/config][:version][:split]` to (name, split), the latter as given where the name has none."""
    name, colon, found = name.removeprefix(PREFIX).partition(":")
    if colon and found[:1].isdigit():
        version, _, found = found.partition(":")
        name = f"{name}:{version}"
    return name, found or split


def find(name: str, what: str) -> Any:
    """The builder of a dataset that is prepared on this machine; nothing is downloaded, and its code is not needed.

    Args:
      name: NAME[/config][:version].
      what: the field and its value, for messages.

    Raises:
      ConfigError: no such dataset, or it is not prepared.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name)
    except tfds.core.DatasetNotFoundError:
        pass
    except (ValueError, RuntimeError, OSError, AttributeError, ImportError) as error:
        raise ConfigError(f"{what} cannot be opened ({first_line(error)})") from None
    if name.partition(":")[0].partition("/")[0] not in tfds.list_builders(with_community_datasets=False):
        raise ConfigError(f"{what}: TFDS knows no dataset {name!r}{suggestion(name)}")
    folder = tfds.core.constants.DATA_DIR
    raise ConfigError(f"{what}: {name} is not prepared under {folder}, and a run never downloads; {command(name)}")


def open_split(builder: Any, name: str, split: str, what: str) -> Any:
    """The random-access source of a split.

    Raises:
      ConfigError: no such split, or one that only TensorFlow can read.
    """
    written = getattr(builder.info.file_format, "value", None)
    if written != "array_record":
        there = f"is prepared as {written}, which only TensorFlow reads; remove {builder.data_path} and {command(name)}"
        raise ConfigError(f"{what} {there}")
    base = split.partition("[")[0]
    if base not in builder.info.splits:
        raise ConfigError(f"{what}: no split {base!r}{did_you_mean(base, builder.info.splits)}")
    try:
        return builder.as_data_source(split)
    except (ValueError, RuntimeError, OSError, NotImplementedError, ImportError, AttributeError) as error:
        reason = first_line(error)
        raise ConfigError(f"{what} cannot be read without TensorFlow ({reason}); {command(name)}") from None


def check_features(builder: Any, names: set[str], what: str) -> None:
    """See that a dataset has some features.

    Raises:
      ConfigError: naming those that it does not have.
    """
    there = list(builder.info.features or ())
    if missing := sorted(names - set(there)):
        raise ConfigError(f"{what} has no feature {', '.join(missing)}; it has {', '.join(there)}")


def read(source: Any) -> Iterator[dict[str, Any]]:
    """The records of a source, in its order."""
    import tqdm

    with tqdm.tqdm(total=len(source), desc="records", delay=3, disable=None) as bar:
        for first in range(0, len(source), _TOGETHER):
            found = source.__getitems__(range(first, min(first + _TOGETHER, len(source))))
            yield from found
            bar.update(len(found))


def text_of(value: Any, where: str) -> str:
    """A text of a record.

    Raises:
      ConfigError: it is none, as of a dataset that is prepared as pieces.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {type(value).__name__} where there should be text")
    return value


def digest(builder: Any, split: str) -> str:
    """xxh3_128 of the files of a split, and of those that say what their features are."""
    folder = pathlib.Path(str(builder.data_path))
    records = [pathlib.Path(str(path)) for path in builder.info.splits[split].filepaths]
    return digest_of([folder / "features.json", *sorted(folder.glob("*.labels.txt")), *records])


def digest_of(paths: list[pathlib.Path], about: str = "") -> str:
    """xxh3_128 of files in a row, behind a text."""
    found = xxhash.xxh3_128(about.encode())
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def command(name: str, *packages: str) -> str:
    """What prepares a dataset where TensorFlow, and other packages, are needed for it."""
    install = " ".join(["pip install 'ctxjax[tf]'", *packages])
    code = f"tfds.builder('{name}', file_format='array_record').download_and_prepare()"
    return f'prepare it once, with network: {install} && python -c "import tensorflow_datasets as tfds; {code}"'


def first_line(error: Exception) -> str:
    """What an exception says, at most a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def suggestion(name: str) -> str:
    """`; did you mean 'x'?`, or nothing."""
    import difflib

    import tensorflow_datasets as tfds

    base = name.partition(":")[0].partition("/")[0]
    close = difflib.get_close_matches(base, tfds.list_builders(with_community_datasets=False), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
