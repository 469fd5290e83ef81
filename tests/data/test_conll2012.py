"""Small files of CoNLL-2012's layout: words, frames, clusters over sentences; mistakes with file and line."""

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tasks import conll2012
from ctxjax.text import tags

# word, part of speech, frame columns, coreference
ROWS = (
    [("Mary", "NNP", "(ARG0*)", "(ARG0*)", "(0)"), ("saw", "VBD", "(V*)", "*", "-"), ("the", "DT", "(ARG1*", "*", "(1"),
     ("boy", "NN", "*", "*", "-"), ("of", "IN", "*", "*", "-"), ("her", "PRP$", "*", "*", "(2|(0)"),
     ("aunt", "NN", "*)", "*", "2)|1)"), ("and", "CC", "*", "*", "-"), ("called", "VBD", "*", "(V*)", "-"),
     ("him", "PRP", "*", "(ARG1*)", "(1)")],
    [("Right", "UH", "-")],
    [("She", "PRP", "(ARG0*)", "(0)"), ("left", "VBD", "(V*)", "-")],
)  # fmt: skip


def lines(rows=ROWS, part=0):
    found = [f"#begin document (bc/made/00/made_0000); part {part:03d}\n"]
    for sentence in rows:
        for number, (word, pos, *rest) in enumerate(sentence):
            middle = ["*", "-", "-", "-", "speaker_a", "*"]
            fields = ["bc/made/00/made_0000", str(part), str(number), word, pos, *middle, *rest]
            found.append("   ".join(fields) + "\n")
        found.append("\n")
    return [*found, "#end document\n"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "made.v4_gold_conll").write_text("".join(lines() + lines(part=1)))
    (tmp_path / "b.v4_auto_conll").write_text("".join(lines(ROWS[2:])))
    (tmp_path / "other.txt").write_text("no")
    return tmp_path


def test_documents(folder):
    first, second, third = conll2012.read(folder)
    assert (first.name, first.part, second.part, third.part) == ("bc/made/00/made_0000", 0, 1, 0)
    assert [len(sentence.words) for sentence in first.sentences] == [10, 1, 2] and len(first.words) == 13
    assert first.sentences[0].pos[1] == "VBD" and first.sentences[2].speakers == ("speaker_a", "speaker_a")
    assert [sentence.line for sentence in first.sentences] == [2, 13, 15]
    assert second.clusters == first.clusters and third.clusters == (((0, 1),),)


def test_clusters_go_over_sentences_and_mentions_within_mentions(folder):
    clusters = next(conll2012.read(folder)).clusters
    assert clusters == (((0, 1), (5, 6), (11, 12)), ((2, 7), (9, 10)), ((5, 7),))


def test_frames(folder):
    saw, called = next(conll2012.read(folder)).sentences[0].frames
    assert (saw.predicate, called.predicate) == (1, 8)
    assert saw.tags == ("B-ARG0", "B-V", "B-ARG1", *["I-ARG1"] * 4, "O", "O", "O")
    assert tags.spans(called.tags, "BIO") == [("ARG0", 0, 1), ("V", 8, 9), ("ARG1", 9, 10)]


def test_a_mention_may_hold_another_of_its_entity(tmp_path):
    rows = [[("a", "X", "(3"), ("b", "X", "(3"), ("c", "X", "3)|3)")]]
    (tmp_path / "x_conll").write_text("".join(lines(rows)))
    assert next(conll2012.read(tmp_path / "x_conll")).clusters == (((0, 3), (1, 3)),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(1)\n", "(1\n", "line 11: the mention of 1 does not end"),
        ("(1)\n", "(4)|1)\n", "line 11: the mention of 1 ends, and none has begun"),
        ("(1)\n", "one\n", "line 11: 'one' is no column of coreference"),
        ("*)   *   2)", "*   *   2)", "line 4: the bracket of 'ARG1' in column 11 does not close"),
        ("and   CC", "and   CC   -", "line 9: 15 columns, where a word has 14"),
        ("*   (V*)   -", "(   (V*)   -", r"line 10: the bracket '\(' of column 11 does not stand here"),
        ("*   (V*)   -", "*)   (V*)   -", r"line 10: the bracket '\*\)' of column 11 does not stand here"),
        ("*   (V*)   -", "*   *   -", r"line 2: column 12 has no predicate \(V\*\)"),
        ("#begin document (bc", "#begin document bc", "line 1: a document that does not begin with"),
        ("#end document", "", "line 18: the file ends within a document"),
        ("#begin document (bc/made/00/made_0000); part 000\n", "", "line 1: a line outside of a document"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, message):
    text = "".join(lines())
    assert old in text
    (tmp_path / "x_conll").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"x_conll, {message}"):
        list(conll2012.read(tmp_path / "x_conll"))


def test_no_files(tmp_path):
    with pytest.raises(ConfigError, match=r"is no file, and no folder with files \*_conll"):
        list(conll2012.read(tmp_path))
    (tmp_path / "x_conll").write_bytes(b"#begin document (a); part 0\n\xff")
    with pytest.raises(ConfigError, match=r"x_conll, behind line .*: not UTF-8"):
        list(conll2012.read(tmp_path))
