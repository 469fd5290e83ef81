"""Windows of a document: full, with what is told in the middle, and cut between words."""

import itertools

import pytest

from ctxjax.data.transforms.windows import around, parts


def test_a_window_is_full_and_what_is_told_is_in_its_middle():
    for total, room in itertools.product((5, 12, 30), (4, 5, 12, 40)):
        for start in range(total):
            for stop in range(start + 1, min(total, start + room) + 1):
                first, last = around(start, stop, total, room)
                assert 0 <= first <= start and stop <= last <= total and last - first == min(room, total)
                left, right = start - first, last - stop
                # uneven by more than one only where the document ends on the poorer side
                assert abs(left - right) <= 1 or (left < right and first == 0) or (right < left and last == total)


def test_what_is_longer_than_the_room_stays():
    assert around(3, 20, 40, 10) == (3, 20)


def test_words_are_cut_into_runs_that_hold_all_of_them_once():
    lengths = [3, 1, 4, 1, 5, 2, 2, 1]
    for most in range(5, 25):
        found = parts(lengths, most)
        assert [n for first, last in found for n in range(first, last)] == list(range(len(lengths)))
        held = [sum(lengths[first:last]) for first, last in found]
        assert max(held) <= most
        assert all(one + lengths[found[n + 1][0]] > most for n, one in enumerate(held[:-1]))  # as long as it can be
    with pytest.raises(ValueError, match="4"):
        parts(lengths, 4)
