"""Files of tagged words: what is read, and what is wrong by file and line."""

import collections
import os
import pathlib

import pytest

from ctxjax.config import ConfigError
from ctxjax.data.tagging import Sentence, read_columns
from ctxjax.text import tags

TEXT = "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\n\n\n-DOCSTART- -X- O O\n\nEkeus NNP I-NP I-PER"


def test_sentences_and_their_lines(tmp_path):
    file = tmp_path / "eng.train"
    file.write_text(TEXT)
    assert list(read_columns(file, "IOB1")) == [
        Sentence(("U.N.", "official"), ("I-ORG", "O"), 3),
        Sentence(("Ekeus",), ("I-PER",), 9),
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
