"""One Chinese word in two senses: 苹果, fruit and maker of tablets and phones, told apart by what a review is of.

    python experiments/wsd/chinese.py --reviews online_shopping_10_cats.zip --output apple.jsonl --text reviews.jsonl
    python -m ctxjax.prepare --input reviews.jsonl --output corpora/chinese --vocab vocab.txt --heldout 0.02
    python -m ctxjax.train --config experiments/modernbert/pretrain.py:size=mini --workdir runs/chinese \
        --config.source.corpus=corpora/chinese --config.model.vocab_size=21128
    python -m ctxjax.evaluate --workdir runs/chinese --config experiments/evaluate/without_labels.py --only senses \
        --config.evals.senses.tagged=apple.jsonl --config.evals.senses.corpus=

Reviews are a zip with one CSV of category, label and review. The first command writes occurrences in the layout of
SemCor (ctxjax/data/senses.py), as many of each sense as the rarer one has, and prints the counts; with --text it also
writes all reviews, the text to pretrain on. vocab.txt is the vocabulary of BERT's Chinese model. What is told is the
share of occurrences whose nearest other one, by the vector of the word in a layer, is of the same sense.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import pathlib
import sys
import zipfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WORD = "苹果"
SENSES = {  # category of a review -> sense key in the layout of SemCor, and its name
    "水果": ("1:13:00::", "fruit"),
    "平板": ("1:14:00::", "company"),
    "手机": ("1:14:00::", "company"),
    "计算机": ("1:14:00::", "company"),
}
NEAR = 40  # characters on each side of the word


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=pathlib.Path, required=True, help="zip with one CSV: cat, label, review")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="occurrences, JSON lines")
    parser.add_argument("--text", type=pathlib.Path, help="also write all reviews, JSON lines of text")
    options = parser.parse_args(argv)
    found: dict[str, list[str]] = collections.defaultdict(list)
    texts = []
    for category, review in reviews(options.reviews):
        texts.append(review)
        if category in SENSES and WORD in review:
            found[category].append(review)
    by_sense: dict[str, list[str]] = collections.defaultdict(list)
    for category, some in sorted(found.items()):
        key, name = SENSES[category]
        print(f"{len(some):,} reviews of {category} have {WORD} ({name})")
        by_sense[key] += some
    if len(by_sense) < 2:
        print(f"{options.reviews} has not both senses of {WORD}", file=sys.stderr)
        return 1
    count = min(map(len, by_sense.values()))
    with open(options.output, "w", encoding="utf-8") as file:
        for key, some in sorted(by_sense.items()):
            stride = len(some) / count
            for number in range(count):
                record = {"doc": key, "sent": number, "tokens": tokens(some[int(number * stride)], key)}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"wrote {count:,} occurrences of each sense to {options.output}")
    if options.text:
        with open(options.text, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        print(f"wrote {len(texts):,} reviews to {options.text}")
    return 0


def reviews(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Category and text of every review."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".csv"))
        with archive.open(name) as file:
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline="")):
                yield row["cat"], " ".join((row["review"] or "").split())


def tokens(review: str, key: str) -> list[list[object]]:
    """The word and the characters near it, one a token; the first time that the review has it."""
    place = review.index(WORD)
    left, right = review[max(0, place - NEAR) : place], review[place + len(WORD) :][:NEAR]
    plain = lambda text: [[char, char, "", []] for char in text if not char.isspace()]
    return [*plain(left), [WORD, WORD, "n", [["sense", key]]], *plain(right)]


if __name__ == "__main__":
    sys.exit(main())
