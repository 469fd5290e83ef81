"""Sentiment: the Stanford treebank with five grades, film reviews of IMDb, sentences of film reviews (MR).

Reference: Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank"; Maas et
al. 2011, "Learning Word Vectors for Sentiment Analysis"; Pang and Lee 2005, "Seeing Stars". The files of the first and
the third are those of Kim 2014.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from ctxjax.data.tasks import Example, Task, Tfds
from ctxjax.data.tasks.files import field, json_lines, label_in_front

sst5 = Task(
    kind="classify",
    read=label_in_front(),
    files={"train": ("stsa.fine.train",), "heldout": ("stsa.fine.dev",), "test": ("stsa.fine.test",)},
    labels=("0", "1", "2", "3", "4"),
)
mr = Task(kind="classify", read=label_in_front("latin-1"), files={"train": ("rt-polarity.all",)}, labels=("0", "1"))


def _reviews(path: pathlib.Path) -> Iterator[Example]:
    """JSON lines with `text` and `label`, or the official folders `neg` and `pos` with a file a review."""
    if path.is_dir():
        for label, name in (("0", "neg"), ("1", "pos")):
            for file in sorted((path / name).glob("*.txt")):
                yield Example((file.read_text("utf-8", "replace").strip(),), label, file.stem, str(file))
        return
    for index, (where, value) in enumerate(json_lines(path)):
        text, label = str(field(value, "text", where)), str(field(value, "label", where))
        yield Example((text.strip(),), label, str(value.get("id", index)), where)


imdb = Task(
    kind="classify",
    read=_reviews,
    files={
        "train": ("train.jsonl.xz", "train.jsonl", "train"),
        "test": ("test.jsonl.xz", "test.jsonl", "test"),
    },
    labels=("0", "1"),
    tfds=Tfds("imdb_reviews", ("text",), classes=("neg", "pos"), splits={"train": "train", "test": "test"}),
)
