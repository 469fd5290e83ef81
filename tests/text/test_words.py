"""Word vocabularies: where words end, ids by falling frequency, unknown words keep their surface."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ctxjax.config import ConfigError
from ctxjax.text import open_tokenizer, words

VOCABULARY = words.Words([*words.SPECIALS, "the", ",", "cat", "sat", "."])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Mr. O'Brien doesn't know.", "Mr. O'Brien does n't know ."),
        ("It’s the U.S., isn’t it?", "It ’s the U.S. , is n’t it ?"),
        ("well-known 1,000.50 at 10:30--yes...", "well-known 1,000.50 at 10:30 -- yes ..."),
        ("(1990s) \"3rd\" $5 we'll couldn't've", "( 1990s ) \" 3rd \" $ 5 we 'll could n't 've"),
        ("今天好 हिन्दी cafe\u0301 한국어 😀x_y", "今 天 好 हिन्दी cafe\u0301 한국어 😀 x _ y"),
        ("a\x00b\u2028c", "a b c"),
        ("", ""),
    ],
)
def test_where_words_end(text, expected):
    assert [text[a:b] for a, b in VOCABULARY.split_words(text)] == expected.split()


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("ab.'’-n't 1,\n")), max_size=50))
def test_nothing_but_blanks_and_control_characters_is_left_out(text):
    spans = VOCABULARY.split_words(text)
    assert all(a < b for a, b in spans) and all(x[1] <= y[0] for x, y in itertools.pairwise(spans))
    kept = {i for a, b in spans for i in range(a, b)}
    left = [c for i, c in enumerate(text) if i not in kept]
    assert all(c.isspace() or ord(c) < 0xA0 for c in left)
    fast, slow = VOCABULARY.encode_sentences([text]), VOCABULARY.encode(text)
    assert fast.ids.tolist() == slow.ids.tolist()
    assert fast.unknown == [text[a:b] for (a, b), i in zip(spans, slow.ids) if i == VOCABULARY.unk_id]


def test_unknown_words_keep_their_surface():
    found = VOCABULARY.encode_sentences(["the Dog\nsat.", "", "<S> cat <UNK>", "x" * 300])
    assert found.ids.tolist() == [3, 2, 6, 7, 2, 2, 2, 5, 2, 2, 2, 2]
    assert found.lengths.tolist() == [4, 0, 7, 1]
    assert found.unknown == ["Dog", "<", "S", ">", "<", "UNK", ">", "x" * 200] and found.long_words == 1
    plain = words.Words(VOCABULARY.pieces, split="whitespace")
    found = plain.encode_sentences(["<S> cat <UNK> </S>"])
    assert found.ids.tolist() == [2, 5, 2, 2]  # marks are the source's to set, not the text's
    assert found.unknown == ["<S>", "<UNK>", "</S>"]
    assert plain.encode_sentences([]).lengths.tolist() == []


def test_encodings():
    encoding = VOCABULARY.encode("the cat, the dog.")
    assert encoding.ids.tolist() == [3, 5, 4, 3, 2, 7] and encoding.pieces[4] == "<UNK>"
    assert encoding.offsets.tolist() == [[0, 3], [4, 7], [7, 8], [9, 12], [13, 16], [16, 17]]
    given = VOCABULARY.encode_words(["the", "big cat", "sat"])
    assert given.ids.tolist() == [3, 2, 6] and given.words.tolist() == [0, 1, 2]
    assert given.offsets.tolist() == [[0, 3], [0, 7], [0, 3]]
    assert VOCABULARY.decode([3, 5, 6]) == "the cat sat"
    lower = words.Words(VOCABULARY.pieces, lowercase=True)
    assert lower.encode("The CAT").ids.tolist() == [3, 5] == lower.encode_sentences(["The CAT"]).ids.tolist()


def test_learning_sorts_by_falling_frequency():
    learned = words.learn(["b a c a", "b a <S> z"], size=6)
    assert learned.pieces == ["<S>", "</S>", "<UNK>", "a", "b", "<"]
    assert words.learn(["b a c a", "b a z"], 99, min_count=2).pieces[3:] == ["a", "b"]
    with pytest.raises(ConfigError, match="no word"):
        words.learn(["a b"], 99, min_count=2)
    with pytest.raises(ConfigError, match="no room"):
        words.learn(["a b"], 3)


def test_files_round_trip(tmp_path):
    one = words.Words(VOCABULARY.pieces, split="whitespace", lowercase=True)
    one.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.kind == "words" and again.options() == one.options() and again.digest() == one.digest()
    assert open_tokenizer(tmp_path / "vocab.txt").kind == "words"
    assert open_tokenizer(tmp_path / "vocab.txt").digest() != one.digest()
    with pytest.raises(ConfigError, match="begins with <S>"):
        words.Words(["a", "b", "c"])
    with pytest.raises(ConfigError, match="neither"):
        words.Words(VOCABULARY.pieces, split="moses")


def test_the_unknown_word_of_text_that_is_tokenised_already():
    """`<unk>` is <UNK> there, is not learned, and stays a word of its own where a vocabulary has it as one."""
    learned = words.learn(["a <unk> b <unk>"] * 2, 100, split="whitespace")
    assert learned.pieces == ["<S>", "</S>", "<UNK>", "a", "b"]
    assert learned.encode("a <unk> c").ids.tolist() == [3, learned.unk_id, learned.unk_id]
    foreign = words.Words(["<S>", "</S>", "<UNK>", "<unk>", "a"], split="whitespace")
    assert foreign.encode("a <unk>").ids.tolist() == [4, 3]
    by_rule = words.learn(["a <unk> b"], 100)
    assert "unk" in by_rule.pieces
