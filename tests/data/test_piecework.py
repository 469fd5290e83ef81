"""Word counts added up in parts, and reports merged: the same in any order."""

import collections
import random

from ctxjax.data import piecework, word_counts
from ctxjax.data.workers import Pool


def test_counts_are_exact_and_the_rarest_go(tmp_path, monkeypatch):
    """More words than are added up at a time, in two orders of the pieces, against one table."""
    rng = random.Random(2)
    words = [f"wörd{number}" for number in range(600)] + ["a b", "\ud800"]
    whole: collections.Counter[str] = collections.Counter()
    paths = []
    for number in range(7):
        counts = {word: rng.randint(1, 9) for word in rng.sample(words, 200)}
        whole.update(counts)
        paths.append(tmp_path / f"{number}")
        word_counts.write_counts(paths[-1], counts, {"counts": {}, "fields": []})
        report, found = word_counts.read_counts(paths[-1])
        assert dict(found) == counts and report["words"] == 200
    monkeypatch.setattr(word_counts, "MERGED_WORDS", 50)
    for name, pieces, limit in (("one", paths, 300), ("two", paths[::-1], 300), ("all", paths, 1000)):
        folder = tmp_path / name
        folder.mkdir()
        with Pool(1) as pool:
            found = word_counts.frequent(pieces, 7 * 200, limit, folder, pool)
        assert len(list(folder.iterdir())) == (5 if limit == 300 else 2)
        floor = 0 if limit == 1000 else min(f for f in range(100) if sum(c > f for c in whole.values()) <= limit)
        assert found == {word: count for word, count in whole.items() if count > floor}
        assert len(found) <= limit and (limit == 300 or found == whole)


def test_reports_merge_in_any_order():
    reports = [
        {"documents": 2, "tokens": 9, "bytes": 30, "first": 5, "last": 2**64 - 1, "counts": {"a": 1}, "fields": ["x"]},
        {
            "documents": 0,
            "tokens": 0,
            "bytes": 0,
            "first": None,
            "last": None,
            "counts": {"a": 2, "b": 1},
            "fields": [],
        },
        {"counts": {"c": 1}, "fields": ["y"]},
        {"documents": 1, "tokens": 1, "bytes": 8, "first": 0, "last": 0, "counts": {}, "fields": []},
    ]
    whole = piecework.merge_reports(reports)
    expected = {"documents": 3, "tokens": 10, "bytes": 38, "first": 0, "last": 2**64 - 1}
    assert whole == expected | {"counts": {"a": 3, "b": 1, "c": 1}, "fields": ["x", "y"]}
    halves = [piecework.merge_reports(reports[:2]), piecework.merge_reports(reports[2:])]
    assert piecework.merge_reports(halves) == piecework.merge_reports(reversed(reports)) == whole
    assert piecework.merge_reports([])["first"] is None


def test_the_rarest_words_go_first():
    counts = [1] * 50 + [2] * 30 + [3] * 15 + [9] * 5
    sizes = [(count, counts.count(count)) for count in set(counts)]
    for limit in (4, 5, 19, 20, 49, 50, 99, 100, 1000):
        floor = word_counts.floor_of(sizes, limit)
        kept = [count for count in counts if count > floor]
        assert len(kept) <= limit
        assert floor == 0 or len([count for count in counts if count >= floor]) > limit
