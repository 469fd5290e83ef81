"""Tag schemes: every way between them and back, what may follow what, and conlleval's counts."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ctxjax.config import ConfigError
from ctxjax.text import tags

KINDS = ("PER", "LOC", "B-C")
PAIRS = list(itertools.permutations(tags.SCHEMES, 2))
BIOES = tags.known_tags(("PER", "LOC"), "BIOES")


@st.composite
def sentences(draw):
    """Spans beside each other or apart, and the number of words."""
    found, place = [], 0
    for _ in range(draw(st.integers(0, 6))):
        first = place + draw(st.integers(0, 2))
        place = first + draw(st.integers(1, 4))
        found.append((draw(st.sampled_from(KINDS)), first, place))
    return found, place + draw(st.integers(0, 2))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(sentences())
def test_every_scheme_says_the_same_spans_and_back(made):
    found, length = made
    for scheme in tags.SCHEMES:
        assert tags.spans(tags.tags_of(found, length, scheme), scheme) == found
        assert tags.read_spans(tags.tags_of(found, length, scheme)) == found
    for one, two in PAIRS:
        there = tags.tags_of(found, length, one)
        assert tags.convert(tags.convert(there, one, two), two, one) == there


@pytest.mark.parametrize(
    ("scheme", "given", "place", "message"),
    [
        ("BIO", "O I-PER", 1, "'I-PER' does not stand after 'O' in BIO"),
        ("BIO", "B-PER I-LOC", 1, "'I-LOC' does not stand after 'B-PER' in BIO"),
        ("BIO", "I-PER", 0, "'I-PER' does not stand at the beginning of a sentence in BIO"),
        ("IOB1", "O B-PER", 1, "'B-PER' does not stand after 'O' in IOB1"),
        ("IOB1", "I-LOC B-PER", 1, "'B-PER' does not stand after 'I-LOC' in IOB1"),
        ("BIOES", "O B-PER", 1, "no sentence ends after 'B-PER' in BIOES"),
        ("BIOES", "B-PER O", 1, "'O' does not stand after 'B-PER' in BIOES"),
        ("BIO", "O S-PER", 1, "'S-PER' is not a tag of BIO"),
        ("BIO", "O PER", 1, "'PER' is not a tag of BIO"),
        ("BIO", "B-", 0, "'B-' is not a tag of BIO"),
    ],
)
def test_broken_tags_are_named(scheme, given, place, message):
    with pytest.raises(tags.Broken, match=message) as error:
        tags.spans(given.split(), scheme)
    assert error.value.place == place


def test_a_scheme_that_there_is_not():
    with pytest.raises(ConfigError, match="'BILOU' is not one of IOB1, BIO, BIOES"):
        tags.spans(["O"], "BILOU")


@pytest.mark.parametrize("scheme", tags.SCHEMES)
def test_what_may_follow_is_what_spans_takes(scheme):
    known = tags.known_tags(("PER", "LOC"), scheme)
    within, start, end = tags.allowed(known, scheme)
    for path in itertools.product(range(len(known)), repeat=3):
        legal = start[path[0]] and end[path[-1]] and all(within[one, two] for one, two in itertools.pairwise(path))
        try:
            tags.spans([known[number] for number in path], scheme)
        except tags.Broken:
            assert not legal
        else:
            assert legal


def test_counts_of_a_case_by_hand():
    there = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    told = [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "B-ORG"]]
    found = tags.compare(told, there)
    assert found[""] == (4, 3, 2) and found["LOC"] == (1, 1, 0) and found["ORG"] == (2, 1, 1)
    assert found[""].precision == 0.5 and found[""].recall == pytest.approx(2 / 3)
    assert found[""].f1 == pytest.approx(4 / 7)
    assert tags.compare([["O"]], [["O"]])[""].f1 == 0.0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.tuples(*[st.sampled_from(BIOES)] * 2), min_size=1, max_size=8), min_size=1, max_size=4))
@pytest.mark.parametrize("marks", ["BIES", "BI"])
def test_f1_is_that_of_seqeval(marks, made):
    """Random tags, most of them broken, which seqeval reads as conlleval does by default."""
    seqeval = pytest.importorskip("seqeval.metrics")
    keep = lambda tag: tag if tag[0] in marks or tag == tags.OUTSIDE else f"I{tag[1:]}"
    told, there = ([[keep(pair[side]) for pair in row] for row in made] for side in (0, 1))
    found = tags.compare(told, there)[""]
    scores = [getattr(seqeval, f"{name}_score")(there, told, zero_division=0) for name in ("precision", "recall", "f1")]
    assert (found.precision, found.recall, found.f1) == pytest.approx(scores)
