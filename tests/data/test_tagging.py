"""Files of tagged words: what is read, and what is wrong by file and line."""

import collections
import os
import pathlib

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tagging import Sentence, read_columns, read_conllu
from ctxjax.text import tags

TEXT = "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\n\n\n-DOCSTART- -X- O O\n\nEkeus NNP I-NP I-PER"


def test_sentences_and_their_lines(tmp_path):
    file = tmp_path / "eng.train"
    file.write_text(TEXT)
    assert list(read_columns(file, "IOB1")) == [
        Sentence(("U.N.", "official"), ("I-ORG", "O"), 3),
        Sentence(("Ekeus",), ("I-PER",), 9, document=1),
    ]
    assert [sentence.tags for sentence in read_columns(file, tag=1)] == [("NNP", "NN"), ("NNP",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a O\nb O O\n", r"eng.train, line 2: 3 columns where the lines above have 2"),
        (b"a O\n\n\nb O\nc I-PER\n", r"eng.train, line 5: 'I-PER' does not stand after 'O' in BIO"),
        (b"a O\n\xff O\n", r"eng.train, line 2: not UTF-8"),
        (b"a\n", r"eng.train, line 1: 1 columns, no word in 0 beside a tag in -1"),
        (b"-DOCSTART- O\n\n", r"eng.train has no sentence"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path, text, message):
    file = tmp_path / "eng.train"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        list(read_columns(file, "BIO"))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_columns(tmp_path / "none"))


def conllu(*words):
    rows = [[word, form, form, tag, "X", "_", "0", "root", "_", "_"] for word, form, tag in words]
    return "".join("\t".join(row) + "\n" for row in rows) + "\n"


TREES = "# newdoc id = a\n# text = Don't go .\n"
TREES += conllu(
    ("1-2", "Don't", "_"), ("1", "Do", "AUX"), ("2", "n't", "PART"), ("3", "go", "VERB"), ("4", ".", "PUNCT")
)
TREES += conllu(("1", "ate", "VERB"), ("1.1", "ate", "VERB"), ("2", "10 000", "NUM"))
TREES += "# newdoc id = b\n" + conllu(("1", "Yes", "INTJ"))


def test_conllu_has_syntactic_words_alone(tmp_path):
    """Neither words written as one nor those that nobody wrote; forms may hold blanks."""
    file = tmp_path / "en.conllu"
    file.write_text(TREES)
    assert list(read_conllu(file)) == [
        Sentence(("Do", "n't", "go", "."), ("AUX", "PART", "VERB", "PUNCT"), 4, 0),
        Sentence(("ate", "10 000"), ("VERB", "NUM"), 9, 0),
        Sentence(("Yes",), ("INTJ",), 14, 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ta\n", "line 1: 2 columns between tabs where CoNLL-U has 10"),
        (conllu(("1", "a", "X"), ("3", "b", "X")), "line 2: the number of the word is '3', not 2"),
        ("# text = nothing\n\n", "en.conllu has no sentence"),
    ],
)
def test_mistakes_in_conllu_are_named(tmp_path, text, message):
    file = tmp_path / "en.conllu"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(read_conllu(file))
    with pytest.raises(ConfigError, match="no word in column 0 beside a tag in -1"):
        list(read_conllu(file, word=0, tag=-1))


@pytest.mark.slow
@pytest.mark.real_data
def test_ud_english_has_the_counts_of_its_readme():
    folder = pathlib.Path(os.environ["CTXJAX_DATA"]) / "tasks" / "ud_ewt"
    conllu = pytest.importorskip("conllu")
    for split, sentences in (("train", 12_544), ("dev", 2_001), ("test", 2_077)):
        file = folder / f"en_ewt-ud-{split}.conllu"
        found = list(read_conllu(file))
        assert len(found) == sentences
        theirs = conllu.parse(file.read_text(encoding="utf-8"))
        for one, other in zip(found, theirs, strict=True):
            words = [token for token in other if isinstance(token["id"], int)]
            assert one.words == tuple(token["form"] for token in words)
            assert one.tags == tuple(token["upos"] for token in words)


@pytest.mark.slow
@pytest.mark.real_data
def test_conll_2003_has_the_published_counts():
    """Sentences without those of -DOCSTART- alone, and names by kind: tables 1 and 2 of the shared task."""
    folder = pathlib.Path(os.environ["CTXJAX_DATA"]) / "tasks" / "conll2003"
    published = {
        "eng.train": (203_621, {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}),
        "eng.testa": (51_362, {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842}),
        "eng.testb": (46_435, {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617}),
    }
    for name, (words, names) in published.items():
        sentences = list(read_columns(folder / name, "IOB1"))
        found = collections.Counter(kind for one in sentences for kind, _, _ in tags.spans(one.tags, "IOB1"))
        assert (sum(len(one.words) for one in sentences), found) == (words, names)
        for one in sentences:
            assert tuple(tags.convert(tags.convert(one.tags, "IOB1", "BIOES"), "BIOES", "IOB1")) == one.tags
