"""Downstream tasks: readers of official layouts, and what each task's labels, metrics and submission are.

A config names a task as it names a model: `source.task = "glue.cola"` is `cola` in `ctxjax/data/tasks/glue.py`; a name
with more parts (`mylab.tasks.mine`) is imported as it is.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ctxjax.config import ConfigError, did_you_mean


class Example(NamedTuple):
    """One example as its file has it.

    Attributes:
      texts: its parts, one or two; for choices what they share, and then every choice.
      target: a label, a number, the number of the right choice; None where the file does not tell.
      id: of the official file.
      where: file and line, for messages.
    """

    texts: tuple[str, ...]
    target: str | float | int | None
    id: str
    where: str


class Tfds(NamedTuple):
    """How TensorFlow Datasets has a task.

    Attributes:
      dataset: NAME[/config].
      texts: features, the parts of an example in their order.
      target: the feature of a label, of a right choice, or of a number; what is below those there are is not told.
      classes: names of the target's classes, in the order of the task's labels or choices; empty where they are those.
      id: the feature of an example's number, in the order of which it was; empty where there is none.
      splits: ours to theirs, or to "NAME[/config]:split" of another dataset of the same features.
      parts: from the texts to the parts, where these are not the same.
    """

    dataset: str
    texts: tuple[str, ...]
    target: str = "label"
    classes: tuple[str, ...] = ()
    id: str = ""
    splits: Mapping[str, str] = {"train": "train", "heldout": "validation", "test": "test"}
    parts: Callable[..., tuple[str, ...]] = lambda *texts: texts


@dataclasses.dataclass(frozen=True)
class Task:
    """What is told about the examples of one layout.

    Attributes:
      kind: "classify", "regress" or "choose": the model's task.
      read: a file to its examples, in order.
      files: split to the names that its file may have, the first that is there being read. A split that has none is
        drawn from the training file.
      labels: of a classification, by number; empty where the training file says which there are.
      metrics: names in `ctxjax/evaluators/scores.py`; the first is the official one.
      parts: texts of a row, 1 or 2.
      choices: of a row.
      bounds: least and largest number of a regression.
      symmetric: the two texts may change places.
      positive: the label that F1 counts.
      skipped: what the published recipe leaves out of training, as a target; these are counted.
      submissions: split to the name of the official file of predictions.
      tfds: how TensorFlow Datasets has it, or None.
    """

    kind: str
    read: Callable[[pathlib.Path], Iterator[Example]]
    files: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    parts: int = 1
    choices: int = 0
    bounds: tuple[float, float] | None = None
    symmetric: bool = False
    positive: str = ""
    skipped: tuple[str, ...] = ()
    submissions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tfds: Tfds | None = None

    def path(self, folder: str | os.PathLike[str], split: str) -> pathlib.Path:
        """The file of a split.

        Raises:
          ConfigError: there is none.
        """
        names = self.files[split]
        for name in names:
            if (found := pathlib.Path(folder) / name).exists():
                return found
        raise ConfigError(f"config.source.corpus={os.fspath(folder)!r} has no {' or '.join(names)} for {split!r}")


def open_task(name: str, field: str = "config.source.task") -> Any:
    """What a name such as "glue.cola" stands for: `cola` of `ctxjax/data/tasks/glue.py`.

    Raises:
      ConfigError: no such module, or nothing of that name in it.
    """
    module, _, attribute = name.rpartition(".")
    own = not module.count(".")
    path = f"{__name__}.{module}" if own else module
    try:
        found = importlib.import_module(path) if module else None
    except ModuleNotFoundError as error:
        if error.name is not None and not path.startswith(error.name):
            raise
        found = None
    if found is None:
        known = [each.name for each in pkgutil.iter_modules(__path__)]
        raise ConfigError(f"{field}={name!r} names no module of tasks{did_you_mean(module, known)}")
    if not hasattr(found, attribute):
        known = [each for each, value in vars(found).items() if isinstance(value, Task)]
        raise ConfigError(f"{field}={name!r}: there is no {attribute!r} in {module!r}{did_you_mean(attribute, known)}")
    return getattr(found, attribute)
