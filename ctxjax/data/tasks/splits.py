"""The splits of a task, wherever its examples are: a folder of official files, or `tfds:NAME[/config][:version]`."""

from __future__ import annotations

import importlib
import os
import pathlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from ctxjax.config import ConfigError, fingerprint
from ctxjax.data import tasks, tfds_records
from ctxjax.data.arrays import file_digest
from ctxjax.data.tasks import Example, Task


class Files:
    """Splits as official files in a folder.

    Attributes:
      names: splits that have a file of their own.
    """

    def __init__(self, folder: pathlib.Path, task: Task):
        self.folder, self.task, self.names = folder, task, tuple(task.files)

    def place(self, split: str) -> str:
        """Where a split is, for messages.

        Raises:
          ConfigError: it is not there.
        """
        return str(self.task.path(self.folder, split))

    def read(self, split: str) -> Iterator[Example]:
        """The examples of a split, in the order of its file."""
        return self.task.read(self.task.path(self.folder, split))

    def digest(self, split: str) -> str:
        """Of the file of a split, or of all files of its folder."""
        path = self.task.path(self.folder, split)
        if path.is_file():
            return file_digest(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint([[str(file.relative_to(path)), file_digest(file)] for file in files])


class Records:
    """Splits of a dataset of TFDS that is prepared on this machine.

    Attributes:
      names: splits that the dataset has.

    Raises:
      ConfigError: TFDS does not have the task, or another dataset is named.
    """

    def __init__(self, corpus: str, task: Task, name: str):
        self.corpus, self.task, self._what = corpus, task, f"config.source.corpus={corpus!r}"
        if task.tfds is None:
            raise ConfigError(f"{self._what}: TFDS does not have {name}; it has {', '.join(known())}")
        dataset, split = tfds_records.parse(corpus, "")
        base, _, version = dataset.partition(":")
        if split:
            raise ConfigError(f"{self._what}: config.source.split names the split, so leave out ':{split}'")
        if base != task.tfds.dataset:
            raise ConfigError(f"{self._what}: {name} is {tfds_records.PREFIX}{task.tfds.dataset}")
        self.layout, self._version, self.names = task.tfds, version, tuple(task.tfds.splits)
        self._opened: dict[str, tuple[Any, Any, str]] = {}

    def place(self, split: str) -> str:
        """As of files."""
        self._open(split)
        return f"{self.corpus}, {self.layout.splits[split]}"

    def read(self, split: str) -> Iterator[Example]:
        """The examples of a split, in the order of their numbers, or else of the records."""
        builder, source, _ = self._open(split)
        place, layout = self.place(split), self.layout
        classes = [] if self.task.kind == "regress" else builder.info.features[layout.target].names
        found = (
            self._example(record, index, classes, f"{place}, record {index}")
            for index, record in enumerate(tfds_records.read(source))
        )
        return iter(sorted(found, key=lambda one: int(one.id))) if layout.id else found

    def digest(self, split: str) -> str:
        """Of the files of a split."""
        builder, _, there = self._open(split)
        return tfds_records.digest(builder, there)

    def _open(self, split: str) -> tuple[Any, Any, str]:
        """The builder, the source, and what the split is called there."""
        if split not in self._opened:
            other, _, there = self.layout.splits[split].rpartition(":")
            name = ":".join(part for part in (other or self.layout.dataset, self._version) if part)
            builder = tfds_records.find(name, self._what)
            needed = {*self.layout.texts, self.layout.target, self.layout.id} - {""}
            tfds_records.check_features(builder, needed, self._what)
            classes = getattr(builder.info.features[self.layout.target], "names", None) or ()
            if self.task.kind != "regress" and set(classes) != set(self._classes):
                told = f"{', '.join(classes)}, where there should be {', '.join(self._classes)}"
                raise ConfigError(f"{self._what}: the classes of {self.layout.target!r} are {told}")
            self._opened[split] = builder, tfds_records.open_split(builder, name, there, self._what), there
        return self._opened[split]

    @property
    def _classes(self) -> tuple[str, ...]:
        return self.layout.classes or self.task.labels

    def _example(self, record: dict[str, Any], index: int, classes: list[str], where: str) -> Example:
        layout, told = self.layout, record[self.layout.target]
        texts = [tfds_records.text_of(record[name], where).strip() for name in layout.texts]
        target: str | float | int | None = None
        if self.task.kind == "regress":
            number = float(str(np.float32(told)))  # the shortest that is this one in 32 bits, as it was written
            target = None if self.task.bounds and number < self.task.bounds[0] else number
        elif told >= 0:
            target = self._classes.index(classes[int(told)])
            target = target if self.task.kind == "choose" else self.task.labels[target]
        return Example(layout.parts(*texts), target, str(record[layout.id] if layout.id else index), where)


def open_splits(corpus: str | os.PathLike[str], task: Task, name: str) -> Files | Records:
    """The splits of a task by what `config.source.corpus` is; `name` is that of the task."""
    given = os.fspath(corpus)
    return Records(given, task, name) if given.startswith(tfds_records.PREFIX) else Files(pathlib.Path(given), task)


def known() -> list[str]:
    """The tasks that TFDS has."""
    modules = [each.name for each in pkgutil.iter_modules(tasks.__path__)]
    found = {module: vars(importlib.import_module(f"{tasks.__name__}.{module}")) for module in modules}
    every = [(f"{module}.{name}", value) for module, values in found.items() for name, value in values.items()]
    return sorted(name for name, value in every if isinstance(value, Task) and value.tfds is not None)
