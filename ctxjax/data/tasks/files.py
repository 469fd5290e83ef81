"""Rows of files as tasks come in: tables between tabs or commas, JSON lines, lines with a label in front."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from ctxjax.config import ConfigError
from ctxjax.data.tasks import Example

OPENERS: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".xz": lzma.open}


def opened(path: pathlib.Path, encoding: str = "utf-8-sig", newline: str | None = None) -> Any:
    """A text file, perhaps compressed; bytes that are not of its encoding become U+FFFD."""
    return OPENERS.get(path.suffix, open)(path, "rt", encoding=encoding, errors="replace", newline=newline)


def table(
    path: pathlib.Path, names: Sequence[str] = (), quoted: str = "", ragged: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    r"""`("file, line n", {column: value})` of every row.

    Args:
      path: between tabs, each line a row and quotes being text, unless `quoted` says otherwise.
      names: of the columns, where the file has no line of them.
      quoted: the character between columns of a file of comma-separated values, whose fields may stand in quotes.
      ragged: rows may have another number of columns than there are names, and are then given with column "" alone.

    Raises:
      ConfigError: a row with another number of columns, by file and line.
    """
    with opened(path, newline="" if quoted else "\n") as file:
        lines: Iterator[tuple[int, list[str]]]
        if quoted:
            reader = csv.reader(file, delimiter=quoted)
            lines = ((reader.line_num, row) for row in reader)
        else:
            lines = ((number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(file, 1))
        for number, row in lines:
            if row in ([], [""]):
                continue
            if not names:
                names = [name.strip() for name in row]
                continue
            where = f"{path}, line {number}"
            if len(row) == len(names):
                yield where, dict(zip(names, row))
            elif ragged:
                yield where, {"": "\t".join(row)}
            else:
                raise ConfigError(
                    f"{where}: {len(row)} columns, where there should be {len(names)}: {', '.join(names)}"
                )


def column(row: Mapping[str, str], name: str, where: str) -> str:
    """A column by its name.

    Raises:
      ConfigError: there is no such column.
    """
    if name not in row:
        raise ConfigError(f"{where}: there is no column {name!r}; there are {', '.join(row)}")
    return row[name]


def number(text: str, where: str) -> float:
    """A number, or one sentence that says where there is none."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not a number") from None


def rows_of(
    texts: Sequence[str],
    label: str,
    identity: str = "",
    target: Callable[[str, str], Any] = lambda text, where: text,
    **layout: Any,
) -> Callable[[pathlib.Path], Iterator[Example]]:
    """A reader of tables.

    Args:
      texts: columns of the parts of an example.
      label: column of the target; a table without it, as of a test set, tells none.
      identity: column of the official number of an example; the number of the row where there is none.
      target: from the text of the column, and where it stands, to the target.
      **layout: of `table`.
    """

    def read(path: pathlib.Path) -> Iterator[Example]:
        for index, (where, row) in enumerate(table(path, **layout)):
            if "" in row and layout.get("ragged"):
                yield Example(("",) * len(texts), BROKEN, str(index), where)
                continue
            parts = tuple(column(row, name, where).strip() for name in texts)
            told = target(row[label].strip(), where) if row.get(label, "").strip() else None
            yield Example(parts, told, row.get(identity, "") or str(index), where)

    return read


BROKEN = "a row with another number of columns"  # the target of what cannot be read and is left out


def label_in_front(encoding: str = "utf-8-sig") -> Callable[[pathlib.Path], Iterator[Example]]:
    """A reader of lines, each a label, a blank and a text, as of the collections of Kim 2014."""

    def read(path: pathlib.Path) -> Iterator[Example]:
        with opened(path, encoding, newline="\n") as file:
            for index, line in enumerate(file):
                where = f"{path}, line {index + 1}"
                label, _, text = line.strip().partition(" ")
                if label:
                    yield Example((text.strip(),), label, str(index), where)

    return read


def json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`("file, line n", object)` of every line.

    Raises:
      ConfigError: a line that is no JSON object, by file and line.
    """
    with opened(path, newline="\n") as file:
        for index, line in enumerate(file, 1):
            where = f"{path}, line {index}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: not a JSON object")
            yield where, value


def field(value: Mapping[str, Any], name: str, where: str) -> Any:
    """A field of a JSON object, or one sentence that says where it is missing."""
    if name not in value:
        raise ConfigError(f"{where}: there is no field {name!r}")
    return value[name]
