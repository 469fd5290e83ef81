"""Hashes of n-grams: published constants of FNV-1a, signed bytes, the cut of words, n-grams of words."""

import numpy as np
import pytest

from ctxjax.text import subwords
from ctxjax.text.words import Words


def test_the_hash_is_fnv1a_for_ascii():
    """The test vectors of the authors' page: "", "a", "foobar"."""
    assert [subwords.fnv1a(text) for text in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_bytes_over_127_are_signed():
    """With 32-bit integers: x ^ int8(0xC3) sets the upper 24 bits."""
    value = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in "é".encode():
            value = (value ^ np.int8(byte - 256).astype(np.int32).view(np.uint32)) * np.uint32(16777619)
    assert subwords.fnv1a("é".encode()) == int(value)


@pytest.mark.parametrize("word, expected", [("as", ["<as", "<as>", "as>"]), ("é", ["<é>"]), ("</s>", []), ("", [])])
def test_ngrams_of_three_to_six(word, expected):
    assert subwords.ngram_hashes(word, 3, 6) == [subwords.fnv1a(text.encode()) for text in expected]


def test_single_edges_are_left_out():
    found = subwords.ngram_hashes("ab", 1, 2)
    assert found == [subwords.fnv1a(text.encode()) for text in ("<a", "a", "ab", "b", "b>")]


def test_ngrams_of_words():
    """h = h * 116049371 + next, in 64 bits, each word's hash as a signed 32-bit number."""
    words = ["the", "old", "river"]
    signed = [subwords.fnv1a(word.encode()) for word in words]
    signed = [value - 2**32 if value >= 2**31 else value for value in signed]
    expected = []
    for start, stop in ((0, 2), (0, 3), (1, 3)):
        value = signed[start] % 2**64
        for other in signed[start + 1 : stop]:
            value = (value * 116049371 + other) % 2**64
        expected.append(value)
    assert subwords.word_ngram_hashes(words, 3) == expected
    assert subwords.word_ngram_hashes(words, 1) == []


def test_rows_of_known_unknown_and_empty_words():
    tokenizer = Words(["<S>", "</S>", "<UNK>", "river", "a"], split="whitespace")
    reader = subwords.SubWords(tokenizer, 3, 6, 50)
    assert reader.rows_of("river")[0] == 3 and min(reader.rows_of("rivers")) >= 5
    assert max(reader.rows_of("rivers")) < 55
    assert subwords.SubWords(tokenizer, 3, 6, 0).rows_of("rivers") == [tokenizer.unk_id]
    assert subwords.SubWords(tokenizer, 3, 6, 0).rows_of("a") == [4]
    found = reader.encode("a  rivers a")
    assert found.words.tolist() == [0, 0] + [1] * len(reader.rows_of("rivers")) + [2, 2]
    assert found.offsets[0].tolist() == [0, 1] and found.offsets[-1].tolist() == [10, 11]
