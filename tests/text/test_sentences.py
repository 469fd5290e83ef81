"""Sentence boundaries: hand-made cases, layout, odd input, linear time."""

import itertools
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ctxjax.text.sentences import is_wrapped, split_sentences


def split(text, **options):
    return [text[a:b] for a, b in split_sentences(text, **options)]


# One case a line; " | " marks the boundaries, with nothing else changed.
CASES = """
Mr. Smith went to Washington, D.C. on Jan. 5. | He met Dr. J. R. Jones at 3.30 p.m. | It was fun!
He said "Stop." | Then he left. | "Why?" she asked. | "Go!" John said. | Really? | Yes.
See Fig. 3 and No. 7, pp. 12-14, e.g. in Vol. II. | He said no. | John left.
The U.S. Army fought. | He lives in the U.S. | The end. | Smith et al. (1990) say so.
Wait... what? | Well... | Nothing. | Vitamin C. | The rest. | J. K. Rowling wrote it.
Plan B. | It failed. | It cost $5.50. | Then 3.14 more. | In 1990. | It is J. Smith, Jr. | He left.
The end.[1] | Another one.[2][3] | (It ended.) | Third (see p. 5). | Fourth.
Yahoo! is here. | Use www.example.com or v2.0 today. | Inc. magazine wrote. | She asked why?! | He knew.
今天天气很好。 | 我们去公园吧！ | “好的。” | 他说了。 | 「そうだ。」と言った。 | 終わり。
यह एक वाक्य है। | दूसरा वाक्य। | Это так. | А это нет. | هل هذا؟ | نعم.
“I saw St. Paul,” he said. | “Really?” | ‘Yes.’ | He lives on Main St. | The house is red.
She weighs 5 lbs. | She is small. | Gov. Brown spoke to Gen. Lee. | Lee answered.
""".strip().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_hand_made_cases(case):
    assert split(case.replace(" | ", " ")) == case.split(" | ")


def test_east_asian_stops_need_no_blank():
    assert split("今天天气很好。我们去公园吧！“好的。”他说。") == [
        "今天天气很好。",
        "我们去公园吧！",
        "“好的。”",
        "他说。",
    ]


def test_lines():
    assert split("1. Introduction\nThis is text\n\nA new part. 2. Second") == [
        "1. Introduction",
        "This is text",
        "A new part.",
        "2. Second",
    ]
    wrapped = (
        "It was the best of times, it was the worst of times, it was the\n"
        "age of wisdom, it was the age of foolishness. It was the epoch of\n"
        "belief, it was the epoch of incredulity, it was the season of Mr.\n"
        "Light.\n\nCHAPTER TWO\n\nIt went on."
    )
    assert is_wrapped(wrapped) and not is_wrapped("a\nb\nc") and not is_wrapped("")
    found = split(wrapped)
    assert len(found) == 4 and found[0].endswith("foolishness.") and found[1].endswith("Mr.\nLight.")
    assert found[2:] == ["CHAPTER TWO", "It went on."]
    assert len(split(wrapped, wrapped=False)) == 7  # every line, and the stop within the second
    assert split("One\r\nTwo.\r\n\r\nThree.") == ["One", "Two.", "Three."]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u3000"])
def test_nothing(text):
    assert split(text) == []


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("aA.?!。」\"' \n\n1[")), max_size=60))
def test_only_blanks_are_left_out(text):
    spans = split_sentences(text)
    assert all(x[1] <= y[0] for x, y in itertools.pairwise(spans))
    inside = {i for a, b in spans for i in range(a, b)}
    assert all(i in inside or c.isspace() for i, c in enumerate(text))
    assert all(not text[a].isspace() and not text[b - 1].isspace() for a, b in spans)


@pytest.mark.parametrize(
    "unit", [".", "a.", ". ", ".\n", " ", "\n", '"', '."', "x", ".[1]", "。", "。」", "A. ", "Mr. ", "\n ", "!? A"]
)
def test_time_is_linear(unit):
    def seconds(size):
        text = unit * (size // len(unit))
        start = time.process_time()
        split_sentences(text)
        return time.process_time() - start

    assert seconds(100_000) < 8.0  # a quadratic scan would take minutes
