"""Marks of capitals and repetitions, against hand-made cases of the rules, and where their words come from."""

import pytest

from ctxjax.config import ConfigError
from ctxjax.text import marks, open_tokenizer, words

CASES = {
    "script": [
        ("This is GREAT, truly", "this is t_up great, truly"),
        ("OK to go to the USA", "ok to go to the t_up usa"),  # two letters are not marked
        ("soooo", "s tk_rep 4 o "),
        ("sooo", "sooo"),
        ("wait!!!!!!", "wait tk_rep 6 ! "),
        ("no no no no no way", " tk_wrep 5 no way"),
        ("no no no way", "no no no way"),
        ("and/or #1", "and / or # 1"),
        ("AAAA", " tk_rep 4 a "),
        ("NOOOO way", "n tk_rep 4 o way"),  # what is left of the word has one letter
    ],
    "fastai": [
        ("This is GREAT, I think", "xxmaj this is xxup great, i think"),
        ("OK McDonald", "xxup ok mcdonald"),
        ("sooo", "s xxrep 3 o "),
        ("soo", "soo"),
        ("no no no way", "xxwrep 3 no way"),
        ("a\\b", "a \\ b"),
        ("U.S.A. 3D", "xxup u.s.a. 3d"),
    ],
}


@pytest.mark.parametrize("rules", CASES)
def test_texts_by_hand(rules):
    for text, expected in CASES[rules]:
        assert marks.marked(text, rules).text.strip() == expected.strip(), text


def test_the_beginning_of_a_text_and_of_its_fields():
    assert marks.opened(["A &amp; B<br />C", "d"], "script") == "xbos xfld 1 A && B\nC xfld 2 d"  # as it was released
    assert marks.opened(["Isn#39;t  it"], "fastai") == "xxbos Isn't it"
    assert marks.opened(["a", "b"], "fastai") == "xxbos xxfld 1 a xxfld 2 b"


@pytest.mark.parametrize("rules", marks.RULES)
def test_places_are_those_of_the_source(rules):
    text = "İ SHOUTED at 10/20 Sooooo well well well well !!!!!"
    found = marks.marked(text, rules)
    assert len(found.text) == len(found.starts) == len(found.ends)
    assert found.starts == sorted(found.starts) and all(a < b for a, b in zip(found.starts, found.ends))
    words_there = {text[start:stop] for start, stop in words.Words(words.SPECIALS, marked=rules).split_words(text)}
    assert {"İ", "SHOUTED", "at", "10", "/", "20", "!!!!!"} <= words_there


def test_a_tokenizer_with_marks(tmp_path):
    texts = ["GREAT stuff, soooo good", "great stuff"] * 3
    made = words.learn(texts, 100, marked="script")
    assert {"t_up", "tk_rep", "4", "o", "great"} <= set(made.ids)
    found = made.encode("Soooo GREAT")
    assert found.pieces == ["s", "tk_rep", "4", "o", "t_up", "great"]
    assert [tuple(place) for place in found.offsets.tolist()] == [(0, 1), (1, 5), (1, 5), (1, 5), (6, 11), (6, 11)]
    assert made.split_words("Soooo GREAT") == [tuple(place) for place in found.offsets.tolist()]
    both = made.encode_sentences(["Soooo GREAT", "stuff"])
    assert both.ids.tolist() == [*found.ids.tolist(), made.ids["stuff"]] and both.lengths.tolist() == [6, 1]
    assert made.id_of("GREAT") == made.ids["great"]
    made.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.digest() == made.digest() and again.encode("Soooo").pieces == ["s", "tk_rep", "4", "o"]
    assert "marked" not in words.Words(made.pieces).options()
    with pytest.raises(ConfigError, match="marked='v3' is neither"):
        words.Words(made.pieces, marked="v3")


def test_prepare_with_marks(tmp_path):
    from ctxjax.data.building import prepare
    from ctxjax.data.corpus import Corpus
    from ctxjax.data.preparation import Settings

    lines = "\n\n".join(f"xbos xfld 1 SHOUTED number {n} Soooo well" for n in range(30))
    (tmp_path / "a.txt").write_text(lines)
    options = {"format": "sentences", "tokenizer": "words", "marked": "script", "workers": 1}
    prepare(Settings(input=(str(tmp_path / "a.txt"),), output=str(tmp_path / "corpus"), **options))
    corpus = Corpus(tmp_path / "corpus", "train")
    tokens, _ = corpus.read_tokens(0, 12)
    assert corpus.tokenizer.decode(tokens[:6]) == "xbos xfld 1 t_up shouted number"
    assert corpus.tokenizer.marked == "script"
    with pytest.raises(ConfigError, match="prepared with --marked script, not None"):
        prepare(
            Settings(input=(str(tmp_path / "a.txt"),), output=str(tmp_path / "corpus"), **options | {"marked": None})
        )
    with pytest.raises(ConfigError, match="--marked is of words, not of bpe"):
        Settings(input=("a",), output="b", tokenizer="bpe", marked="script")
