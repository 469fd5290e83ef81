"""Rows by family: marks, segments, where the vector is taken, and what is cut, against the original loop."""

import numpy as np
import pytest

from ctxjax.config import ConfigError
from ctxjax.data.generated import make_tokenizer
from ctxjax.data.transforms.framing import Framing, open_framed
from ctxjax.text import open_tokenizer

KINDS = ("wordpiece", "bpe", "byte_bpe", "words")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a tokenizer of a kind."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        make_tokenizer(kind).save(folder)
    return folders


def names(framing_tokenizer, row):
    return [framing_tokenizer.pieces[token] for token in row.tokens]


A, B = np.array([30, 31, 32], np.int32), np.array([40, 41], np.int32)


def test_bert(saved):
    tokenizer = open_framed(saved["wordpiece"])
    assert tokenizer.digest() == open_tokenizer(saved["wordpiece"]).digest()
    framing = Framing(tokenizer, 16)
    row = framing(A, B)
    a, b = ([tokenizer.pieces[i] for i in part] for part in (A, B))
    assert names(tokenizer, row) == ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
    assert row.segments.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert (row.place, row.starts, row.lengths, row.cut) == (0, (1, 5), (3, 2), 0)
    row = framing(A)
    assert names(tokenizer, row) == ["[CLS]", *a, "[SEP]"] and not row.segments.any() and row.starts == (1,)


@pytest.mark.parametrize("kind", ["bpe", "byte_bpe"])
def test_gpt(saved, kind, tmp_path):
    """Three new rows behind the vocabulary, and the vector at the last of them."""
    plain, tokenizer = open_tokenizer(saved[kind]), open_framed(saved[kind])
    assert tokenizer.pieces == [*plain.pieces, "<start>", "<delimiter>", "<classify>"]
    text = "bade figo <start> kula"
    assert tokenizer.encode(text).ids.tolist() == plain.encode(text).ids.tolist()
    row = Framing(tokenizer, 20)(A, B)
    assert names(tokenizer, row)[0] == "<start>" and names(tokenizer, row)[4] == "<delimiter>"
    assert names(tokenizer, row)[-1] == "<classify>" and row.place == len(row.tokens) - 1 == 7
    assert Framing(tokenizer, 20)(A).tokens.tolist() == [len(plain), *A, len(plain) + 2]
    tokenizer.save(tmp_path)
    assert open_framed(tmp_path).digest() == tokenizer.digest()
    long = Framing(tokenizer, 12)(np.arange(30, 39, dtype=np.int32), B)
    assert long.lengths == (4, 2) and long.cut == 5  # half of the row less two


def test_words_and_bare(saved):
    tokenizer = open_framed(saved["words"])
    row = Framing(tokenizer, 16)(A, B)
    assert row.tokens.tolist() == [0, *A, 1, 0, *B, 1] and row.place == 8 and row.starts == (1, 6)
    assert Framing(tokenizer, 16)(A).tokens.tolist() == [0, *A, 1]
    bare = Framing(tokenizer, 16, "bare")
    assert bare(A, B).tokens.tolist() == [*A, *B] and bare(A).tokens.tolist() == A.tolist()
    assert len(bare(A[:0]).tokens) == 0


def test_truncation_is_the_original_loop(saved):
    """Take the last piece of the longer part, of the second one if they are equal."""
    framing = Framing(open_framed(saved["wordpiece"]), 13)
    for a in range(14):
        for b in range(14):
            left, right = a, b
            while left + right > 10:
                left, right = (left - 1, right) if left > right else (left, right - 1)
            row = framing(np.arange(30, 30 + a, dtype=np.int32), np.arange(50, 50 + b, dtype=np.int32))
            assert row.lengths == (left, right) and row.cut == a + b - left - right
            assert len(row.tokens) == left + right + 3
            assert row.tokens[1 : 1 + left].tolist() == list(range(30, 30 + left))


def test_mistakes_are_named(saved):
    tokenizer = open_framed(saved["words"])
    with pytest.raises(ConfigError, match=r"config.source.framing='brt'; did you mean 'bert'"):
        Framing(tokenizer, 16, "brt")
    with pytest.raises(ConfigError, match=r"needs the pieces \[CLS\], \[SEP\], which this tokenizer \(words\) lacks"):
        Framing(tokenizer, 16, "bert")
    with pytest.raises(ConfigError, match=r"config.source.length=5 has no room"):
        Framing(tokenizer, 5)
