"""Topics and kinds of questions: TREC, and AG News, DBpedia and Yelp as tables of Zhang et al.

Reference: Li and Roth 2002, "Learning Question Classifiers" (files of Kim 2014); Zhang, Zhao and LeCun 2015,
"Character-level Convolutional Networks for Text Classification".
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

from ctxjax.data.tasks import Example, Task, Tfds
from ctxjax.data.tasks.files import label_in_front, table

_SPLITS = {"train": "train", "test": "test"}
trec6 = Task(
    kind="classify",
    read=label_in_front("latin-1"),
    files={"train": ("TREC.train.all",), "test": ("TREC.test.all",)},
    labels=("0", "1", "2", "3", "4", "5"),  # description, entity, abbreviation, human, location, number
    tfds=Tfds(
        "trec",
        ("text",),
        target="label-coarse",
        classes=("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
        splits=_SPLITS,
    ),
)


def _comma_separated(columns: int) -> Callable[[pathlib.Path], Iterator[Example]]:
    r"""`"class","text",...` without a line of names; the texts are joined, and `\n` in them is a line break."""

    def read(path: pathlib.Path) -> Iterator[Example]:
        names = ("label", *(f"text {place}" for place in range(1, columns)))
        for index, (where, row) in enumerate(table(path, names=names, quoted=",")):
            text = _joined(*(value.strip() for name, value in row.items() if name != "label"))
            yield Example(text, row["label"].strip(), str(index), where)

    return read


def _joined(*texts: str) -> tuple[str]:
    return (" ".join(texts).replace("\\n", "\n").strip(),)


def _zhang(columns: int, classes: int, tfds: Tfds | None = None) -> Task:
    labels = tuple(str(number) for number in range(1, classes + 1))
    files = {"train": ("train.csv",), "test": ("test.csv",)}
    return Task(kind="classify", read=_comma_separated(columns), files=files, labels=labels, tfds=tfds)


ag_news = _zhang(
    columns=3,
    classes=4,
    tfds=Tfds(
        "ag_news_subset",
        ("title", "description"),
        classes=("World", "Sports", "Business", "Sci/Tech"),
        splits=_SPLITS,
        parts=_joined,
    ),
)
dbpedia = _zhang(columns=3, classes=14)
yelp_polarity = _zhang(  # TFDS leaves the quotes of its file doubled
    columns=2,
    classes=2,
    tfds=Tfds("yelp_polarity_reviews", ("text",), splits=_SPLITS, parts=lambda text: _joined(text.replace('""', '"'))),
)
yelp_full = _zhang(columns=2, classes=5)
