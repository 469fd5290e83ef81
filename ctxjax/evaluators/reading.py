"""Reading evaluation files: texts one a line or one a record, word pairs, and progress over them."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ctxjax.config import ConfigError


def existing(field: str, path: str) -> pathlib.Path:
    """A file of the data folder that a config names; relative to `CTXJAX_DATA`.

    Raises:
      ConfigError: no path, or no such file, by the name of its field.
    """
    if not path:
        raise ConfigError(f"config.{field} is empty; give the path of a file, as in --config.{field}=FILE")
    place = pathlib.Path(os.environ.get("CTXJAX_DATA", "."), path)
    if not place.exists():
        raise ConfigError(
            f"config.{field}={path!r} does not exist (looked for {place}); paths are relative to CTXJAX_DATA"
        )
    return place


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Number and content of every line that is not empty."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error})") from None


def texts(path: pathlib.Path, field: str = "text") -> list[str]:
    """The texts of a file: one a line, or the `field` of each record of a `.jsonl`.

    Raises:
      ConfigError: a record without the field, by line.
    """
    if path.suffix != ".jsonl":
        return [line.strip() for _, line in lines(path)]
    return [str(record[field]) for _, record in records(path, (field,))]


def records(path: pathlib.Path, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of every record of a `.jsonl`, each of which has the fields."""
    for number, line in lines(path):
        yield number, record_of(line, f"{path}, line {number}", fields)


def record_of(line: str, where: str, fields: Sequence[str]) -> dict[str, Any]:
    """One JSON object with the fields.

    Raises:
      ConfigError: it is none, or lacks one.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from None
    missing = [name for name in fields if not isinstance(record, dict) or name not in record]
    if missing:
        raise ConfigError(f"{where}: no field {missing[0]!r}")
    return record


def with_bar(items: Sequence[Any], what: str, at_once: int = 256) -> Iterator[Sequence[Any]]:
    """Slices of a sequence, with a bar and the time left where stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(total=len(items), desc=what, disable=not sys.stderr.isatty(), leave=False) as bar:
        for start in range(0, len(items), at_once):
            part = items[start : start + at_once]
            yield part
            bar.update(len(part))
