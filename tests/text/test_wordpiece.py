"""WordPiece: equal to the published rules on everything, offsets, learning."""

import subprocess
import sys
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from ctxjax.config import ConfigError
from ctxjax.text import basic, open_tokenizer, table, wordpiece
from tests.text import oracle

PIECES = [
    *wordpiece.SPECIALS,
    *"abcdefghijklmnopqrstuvwxyzABCDEéσςαß0123456789.,!?'-$€“”。，中文字\ue000",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyzéσςα0123456789€\ue000\u0301"),
    *"the The un able ##able ##ffa fa caf ##fe word ##ing ##s don ##t".split(),
]
UNCASED, CASED = wordpiece.WordPiece(PIECES, True), wordpiece.WordPiece(PIECES, False)

# Characters on which fast tokenizers go wrong, thrown together with plain ones.
ODD = (
    "aAzéÉ ΣσςİıßẞK'’.,-$€“”…。中文豈\U0002f800\U00020000あ한각\u1100\u1161 \t\n\r\x00\x01\x0b\x0c\x1c\x7f\x85\xa0\xad"
    "\u0301\u0323\u0345\u0903\u200b\u200d\u2028\u2029\u202f\u3000\ufeff\ufffd\ue000\ufdd0\ud800\U0001f600\U0010ffff"
    "\U00011046\U0001d165\u302e\u0130\u1e9e\u2260\u037e\u1fef"
)
texts = st.text(st.one_of(st.sampled_from(ODD), st.characters(), st.sampled_from("abcthe unable ")), max_size=60)


@pytest.mark.parametrize("tokenizer", [UNCASED, CASED], ids=["uncased", "cased"])
@settings(max_examples=300, deadline=None)
@given(text=texts)
@example("ΑΣ'Α ΑΣ'. ΣΑΣ ΑΣ\x01Α ΑΣ\u00adΑ")
@example("a\x00b c\u200bd e\x0bf g\u2028h i\x85j")
@example("豈更\U0002f800 x中y")
@example("cafe\u0323\u0301\u0345 CAFÉ naïve Å\u0327\u030a")
def test_equals_the_published_rules(tokenizer, text):
    expected = oracle.tokenize(text, set(PIECES), tokenizer.lowercase)
    encoding = tokenizer.encode(text)
    assert encoding.pieces == expected
    assert [PIECES[i] for i in tokenizer.encode_sentences([text]).ids] == expected


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_offsets_point_at_what_was_read(text):
    encoding = UNCASED.encode(text)
    spans = UNCASED.split_words(text)
    tokens = oracle.basic_tokens(text, True)
    assert len(spans) == len(tokens) and len({*encoding.words.tolist()}) == len(tokens)
    for (start, stop), token in zip(spans, tokens):
        alone = oracle.basic_tokens(text[start:stop], True)
        # a final sigma is the one letter that differs out of its context
        assert [word.replace("ς", "σ") for word in alone] == [token.replace("ς", "σ")]
    for (start, stop), word, piece in zip(encoding.offsets.tolist(), encoding.words.tolist(), encoding.pieces):
        assert spans[word][0] <= start < stop <= spans[word][1]
        if piece != "[UNK]" and text.isascii():
            assert piece.removeprefix("##") == "".join(c for c in text[start:stop].lower() if not basic.is_removed(c))
    assert (np.diff(encoding.words) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(texts, max_size=6))
def test_sentences_are_encoded_one_by_one(parts):
    together = UNCASED.encode_sentences(parts)
    apart = [UNCASED.encode(part).ids for part in parts]
    assert together.lengths.tolist() == [len(ids) for ids in apart]
    assert together.ids.tolist() == [i for ids in apart for i in ids.tolist()]


@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_decomposition_is_that_of_the_whole_chunk(text):
    for word in text.split():
        letters, starts, ends = basic._fold(word, list(range(len(word))))
        whole = unicodedata.normalize("NFD", word.lower())
        assert "".join(letters) == "".join(c for c in whole if unicodedata.category(c) != "Mn")
        assert len(starts) == len(ends) == len(letters)


def test_exact_pieces_and_offsets():
    encoding = UNCASED.encode("The unaж,  CAFÉ中s")
    assert encoding.pieces == ["the", "[UNK]", ",", "caf", "##e", "中", "s"]
    assert encoding.offsets.tolist() == [[0, 3], [4, 8], [8, 9], [11, 14], [14, 15], [15, 16], [16, 17]]
    assert encoding.words.tolist() == [0, 1, 2, 3, 3, 4, 5]
    words = UNCASED.encode_words(["The", "unable", "\u200b", "don't", "a b"])
    assert words.pieces == ["the", "un", "##able", "[UNK]", "don", "'", "t", "a", "b"]
    assert words.words.tolist() == [0, 1, 1, 2, 3, 3, 3, 4, 4]
    assert words.offsets.tolist() == [[0, 3], [0, 2], [2, 6], [0, 1], [0, 3], [3, 4], [4, 5], [0, 1], [2, 3]]
    assert UNCASED.decode(words.ids) == "the unable [UNK] don ' t a b"


def test_a_dropped_accent_belongs_to_its_letter():
    assert UNCASED.encode("cafe\u0301s").offsets.tolist() == [[0, 3], [3, 5], [5, 6]]


def test_special_pieces_only_when_asked_for():
    assert "[MASK]" not in UNCASED.encode("the [MASK].").pieces
    encoding = UNCASED.encode("the [MASK].", special=True)
    assert encoding.pieces == ["the", "[MASK]", "."]
    assert encoding.offsets.tolist() == [[0, 3], [4, 10], [10, 11]] and encoding.words.tolist() == [0, 1, 2]


@pytest.mark.parametrize("letters, pieces", [(200, 200), (201, 1)])
def test_words_over_the_limit_are_unknown(letters, pieces):
    found = UNCASED.encode_sentences(["q" * letters, "ok"])
    assert found.lengths.tolist() == [pieces, 2] and found.long_words == (letters > 200)
    assert (UNCASED.encode("q" * letters).ids == UNCASED.unk_id).sum() == (letters > 200)


def test_the_table_starts_again_when_full():
    seen = table.RunTable(UNCASED._analyse, limit=50)
    words = [f"a{i}" for i in range(400)]
    for start in range(0, 400, 40):
        part = words[start : start + 40]
        ids, _, _ = seen.look_up(part)
        assert ids.tolist() == [i for word in part for i in UNCASED.encode(word).ids.tolist()]
        assert seen.rows <= 50 + 40 + 1


@pytest.mark.parametrize("lowercase", [True, False])
def test_agrees_with_transformers(lowercase, tmp_path):
    """Where its port follows the original: no private-use characters, and its shorter limit set to 200."""
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    theirs = transformers.BertTokenizer(
        vocab={piece: i for i, piece in enumerate(PIECES)}, do_lower_case=lowercase, strip_accents=None
    )
    ours = open_tokenizer(tmp_path / "vocab.txt", lowercase=lowercase)
    for text in (
        "The unable words don't CAFÉ “words” cafe\u0301s",
        "中文字 word。the，unable中s 12,345.67 $5 €7",
        "\tun\r\nable\x00 the\u200bword\ufeff a\xadb \xa0the",
    ):
        assert ours.encode(text).pieces == theirs.tokenize(text)


def test_opens_an_official_vocabulary_as_it_is(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("".join(f"{piece}\r\n" for piece in PIECES).encode())
    opened = open_tokenizer(tmp_path)
    assert opened.pieces == PIECES and opened.lowercase
    cased = [*PIECES, *(f"Word{i}" for i in range(100))]
    (tmp_path / "vocab.txt").write_text("\n".join(cased))
    assert not open_tokenizer(tmp_path).lowercase
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert open_tokenizer(tmp_path).lowercase
    opened.save(tmp_path / "saved")
    again = open_tokenizer(tmp_path / "saved")
    assert again.digest() == opened.digest() and again.options() == opened.options()
    assert wordpiece.WordPiece(PIECES, False).digest() != opened.digest()


def test_what_is_no_vocabulary_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        open_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("the\nof\n")
    with pytest.raises(ConfigError, match=r"vocab.txt.*lacks \[PAD\]"):
        open_tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        open_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        open_tokenizer(tmp_path)


LEARN = """
import random, sys
from ctxjax.text.wordpiece import learn
rng = random.Random(0)
letters = "abcdefghijéßж"
words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3000)]
texts = [" ".join(rng.choices(words, k=200)) for _ in range(60)]
print(learn(texts, 900).digest())
"""


def test_learning_twice_gives_one_digest():
    """In fresh processes, since it is their hash seeds that differ; many ties, since ties are what they decide."""
    digests = {
        subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(digests) == 1


def test_learned_ids_fall_with_frequency():
    texts = ["the cat sat on the mat with the other cats"] * 9 + ["a dog. A log! 中文 zebra"]
    learned = wordpiece.learn(texts, 90)
    assert learned.pieces[:5] == list(wordpiece.SPECIALS) and len(learned) <= 90
    ids = learned.encode_sentences(texts).ids
    counts = np.bincount(ids, minlength=len(learned))[5:]
    assert (np.diff(counts) <= 0).all()
    ties = np.flatnonzero(np.diff(counts) == 0) + 5
    assert all(learned.pieces[i] < learned.pieces[i + 1] for i in ties)
    assert learned.unk_id not in ids and learned.ids["the"] in range(5, 12)
    assert wordpiece.learn(texts, 20).pieces[:5] == list(wordpiece.SPECIALS)
    with pytest.raises(ConfigError, match="no room"):
        wordpiece.learn(texts, 6)
    with pytest.raises(ConfigError, match="no word"):
        wordpiece.learn(["", "\u200b"], 100)
