"""Packing: every example once, rows that hold it, and nearly nothing left over."""

import itertools

import numpy as np
import pytest

from ctxjax.data.transforms.packing import best_fit, pack, write_rows


def checked(rows, lengths, length, most):
    assert sorted(example for row in rows for example in row) == list(range(len(lengths)))
    assert all(0 < len(row) <= most and lengths[row].sum() <= length for row in rows)


@pytest.mark.parametrize("most", [1, 3, 100])
def test_rows_hold_every_example_once(most):
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    rows = best_fit(lengths, 64, most)
    checked(rows, lengths, 64, most)
    if most == 1:
        assert len(rows) == 500


def test_it_is_best_fit_with_the_longest_first():
    """10 and 7 begin rows; 3 fits beside 7 exactly; 4 begins another, where 2 goes, though nothing else is there."""
    assert best_fit(np.array([3, 4, 10, 7, 2]), 10, 8) == [[2], [3, 0], [1, 4]]
    assert best_fit(np.array([6, 6, 4, 3]), 10, 8) == [[0, 3], [1, 2]]  # of equals the last row begun
    assert best_fit(np.array([], np.int64), 10, 8) == []


def plain(lengths, length, most):
    """The same said slowly: of the rows with room the fullest, of those the one touched last."""
    rows, touched = [], []
    for turn, example in enumerate(np.argsort(-lengths, kind="stable").tolist()):
        free = [length - sum(lengths[row]) if len(row) < most else -1 for row in rows]
        fits = [(room, -touched[number], number) for number, room in enumerate(free) if room >= lengths[example]]
        if fits:
            number = min(fits)[2]
        else:
            number = len(rows)
            rows.append([])
            touched.append(0)
        rows[number].append(example)
        touched[number] = turn
    return rows


def test_it_is_the_plain_search():
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, 33, 60)
        assert best_fit(lengths, 32, 4) == plain(lengths, 32, 4)


def test_windows_are_packed_apart_and_written_as_one_index(tmp_path):
    lengths = np.random.default_rng(1).integers(1, 65, 1000)
    parts = list(pack(lengths, 64, 8, 300, key=7))
    assert [len(numbers) for numbers, _ in parts] == [300, 300, 300, 100]
    write_rows(tmp_path, lengths, length=64, most=8, window=300, key=7)
    order, starts = np.load(tmp_path / "order.npy"), np.load(tmp_path / "starts.npy")
    assert (order == np.concatenate([numbers for numbers, _ in parts])).all()
    checked([order[low:high] for low, high in itertools.pairwise(starts)], lengths, 64, 8)
    assert len(starts) == sum(len(counts) for _, counts in parts) + 1 and starts[-1] == 1000
    assert not list(tmp_path.glob(".*"))
    assert (next(pack(lengths, 64, 8, 300, key=8))[0] != parts[0][0]).any()


def test_short_ones_fill_what_long_ones_leave():
    rng = np.random.default_rng(2)
    lengths = np.where(rng.random(4000) < 0.5, 512, rng.integers(5, 512, 4000))
    rows = best_fit(lengths, 512, 8)
    assert 1 - lengths.sum() / (512 * len(rows)) < 0.02 < 0.2 < 1 - lengths.mean() / 512
