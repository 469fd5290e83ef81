"""Words, windows and spans against loops written from the published description, piece by piece."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ctxjax.data.transforms import spans
from tests.evaluators import squad_oracle as oracle


@given(st.text(alphabet="ab \t\n\r\u202f\u00a0\u3000\u200b.", max_size=30))
def test_words_are_between_the_published_blanks(text):
    found = spans.split_words(text)
    words, of_char = oracle.words_of(text)
    assert (found.words, found.of_char.tolist()) == (words, of_char)


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("Smith", 20, (4, 4)),
        ("1895", 27, (5, 5)),  # a part of a word
        ("John Smith (1895", 15, (3, 5)),
        ("John  Smith", 15, (3, 4)),  # blanks of the answer are one
        ("Smith", 10, None),  # not where it is said to be
        ("1895-1943).!", 27, None),  # ends behind the context
        ("The", -1, None),
        ("", 3, None),
    ],
)
def test_an_answer_is_where_it_is_said_to_be_or_passed_over(text, start, expected):
    words = spans.split_words("The leader was John Smith (1895-1943).")
    assert spans.words_of_answer(words, text, start) == expected


def test_a_blank_that_is_a_letter_to_the_words_but_not_to_the_answer():
    """As in the original, an answer with a no-break space is not recovered, one with the narrow one is."""
    assert spans.words_of_answer(spans.split_words("is 5\u00a0km long"), "5\u00a0km", 3) is None
    assert spans.words_of_answer(spans.split_words("is 5\u202fkm long"), "5\u202fkm", 3) == (1, 2)


@given(st.integers(0, 70), st.integers(1, 30), st.integers(1, 40))
def test_windows_and_who_sees_most(count, room, stride):
    found = spans.windows(count, room, stride)
    expected = oracle.windows_of(count, room, stride)
    assert [tuple(row) for row in found.tolist()] == expected
    if count and stride <= room:
        most = spans.most_context(found, count)
        assert most.tolist() == [oracle.window_of_most_context(expected, piece) for piece in range(count)]


def test_windows_of_the_paper():
    """A context of 500 pieces and a question of 11 in rows of 384, and the window of each piece."""
    found = spans.windows(500, 384 - 11 - 3, 128)
    assert found.tolist() == [[0, 370], [128, 370], [256, 244]]
    most = spans.most_context(found, 500)
    # Piece 249 has 121 to its left in the second window and 120 to its right in the first; a hundredth of the sizes
    # moves the next border from 377 to 378.
    assert (np.diff(most) >= 0).all() and (np.flatnonzero(np.diff(most)) + 1).tolist() == [249, 378]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.lists(st.integers(0, 3), max_size=3), st.data())
def test_improved(pieces, answer, data):
    first = data.draw(st.integers(0, len(pieces) - 1))
    last = data.draw(st.integers(first, len(pieces) - 1))
    expected = (first, last)
    for start in range(last, first - 1, -1):
        for end in range(start, last + 1):
            if pieces[start : end + 1] == answer:
                expected = (start, end)
    assert spans.improved(np.array(pieces), first, last, np.array(answer, np.int64)) == expected
