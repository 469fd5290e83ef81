"""ELMo's character ids, spelt out, and against a plain loop."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from ctxjax.text import characters


def by_hand(word, size=50):
    if word in ("<S>", "</S>"):
        row = [258, 256 if word == "<S>" else 257, 259]
    else:
        row = [258, *list(word.encode("utf-8", "ignore"))[: size - 2], 259]
    return row + [260] * (size - len(row))


def test_published_rows():
    assert characters.word_chars("cat").tolist() == [258, 99, 97, 116, 259] + [260] * 45
    assert characters.word_chars("é").tolist()[:4] == [258, 0xC3, 0xA9, 259]
    assert characters.word_chars("<S>").tolist()[:4] == [258, 256, 259, 260]
    assert characters.word_chars("</S>").tolist()[:4] == [258, 257, 259, 260]
    long = characters.word_chars("x" * 99)
    assert long.tolist() == [258] + [120] * 48 + [259] and long.dtype == np.int32
    assert characters.word_chars("").tolist()[:3] == [258, 259, 260]


@given(words=st.lists(st.one_of(st.text(max_size=60), st.sampled_from(["<S>", "</S>", "\ud800"]))))
def test_a_table_is_its_words(words):
    made = characters.table(words)
    assert made.shape == (len(words), 50)
    assert made.tolist() == [by_hand(word) for word in words]


def test_shift_makes_room_for_no_word():
    chars = characters.table(["a", "b"])[None]
    moved = characters.shift(chars, np.array([[True, False]]))
    assert (moved[0, 0] == chars[0, 0] + 1).all() and (moved[0, 1] == 0).all()
    assert (characters.shift(chars) == chars + 1).all() and moved.dtype == np.int32
