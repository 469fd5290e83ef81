"""Questions of SQuAD and others of its features as TensorFlow Datasets has them."""

from __future__ import annotations

from typing import Any

from ctxjax.config import ConfigError
from ctxjax.data import tfds_records
from ctxjax.data.tasks.squad import Answer, Question

TEXTS = ("id", "title", "question", "context")
SPLITS = {"train": "train", "heldout": "validation"}


class Records:
    """Splits of questions in a dataset that is prepared on this machine.

    Args:
      corpus: `tfds:NAME[/config][:version]`.
      version: of SQuAD; "2.0" says of every question whether it is impossible.

    Raises:
      ConfigError: no such dataset, it is not prepared, or it has not these features.
    """

    def __init__(self, corpus: str, version: str):
        self.corpus, self._what = corpus, f"config.source.corpus={corpus!r}"
        self._name, split = tfds_records.parse(corpus, "")
        if split:
            raise ConfigError(f"{self._what}: config.source.split names the split, so leave out ':{split}'")
        self._builder = tfds_records.find(self._name, self._what)
        needed = {*TEXTS, "answers", *(["is_impossible"] if version == "2.0" else [])}
        tfds_records.check_features(self._builder, needed, f"{self._what}, for config.source.version={version!r},")

    def open(self, split: str) -> Any:
        """The records of one of their splits, in their order."""
        return tfds_records.open_split(self._builder, self._name, split, self._what)

    def digest(self, split: str) -> str:
        """Of the files of one of their splits."""
        return tfds_records.digest(self._builder, split)

    def read(self, split: str) -> list[Question]:
        """The questions of one of their splits, those on a context together, as they are in an article."""
        contexts: dict[str, list[Question]] = {}
        for index, record in enumerate(tfds_records.read(self.open(split))):
            one = _question(record, f"{self.corpus}, {split}, record {index}")
            same = contexts.setdefault(one.context, [])
            same.append(one._replace(context=same[0].context) if same else one)
        return [one for same in contexts.values() for one in same]


def _question(record: dict[str, Any], where: str) -> Question:
    name, title, question, context = (tfds_records.text_of(record[text], where) for text in TEXTS)
    told, impossible = record["answers"], bool(record.get("is_impossible", False))
    answers = tuple(
        Answer(tfds_records.text_of(text, where), int(start))
        for text, start in zip(told["text"], told["answer_start"], strict=True)
    )
    return Question(name, title, question, context, () if impossible else answers, impossible, where)
