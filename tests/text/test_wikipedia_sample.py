"""The clean-up of wiki text, on the markup that real articles have."""

import json
import pathlib

import pytest

from tests.scripts import opened

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "corpora" / "wikipedia_sample.py"


@pytest.fixture(scope="module")
def script():
    return opened(SCRIPT)


ARTICLE = """{{about|x|y}}{{Infobox
| a = {{convert|5|km}}
}}
[[File:A.jpg|thumb|A [[nested|link]] in a caption.]]
'''Achilles''' ({{lang-grc|Ἀχιλλεύς}}, {{IPA|x}}; also ''hero'') was the [[Troy|Trojan]] hero<ref>No.</ref> of \
[[Homer (poet)|]], {{convert|5|to|6|mi|km}} away, as [http://x.org they say]&nbsp;now.<ref name=b/> <!-- no -->
:An indented line that is long enough to be a paragraph but is markup all the same.
* A list item that is long enough to be a paragraph but is a list all the same, so it goes.
== A heading that is long enough to be taken for a paragraph, were it none. ==
{| class="wikitable"
| A cell that is long enough to be a paragraph, {| and a table within |} but goes away.
|}
where the formula says more than this paragraph, and it goes on behind it in lower case.
The value of <math>x = 1</math> is needed to understand this sentence, so it has to go.
The second paragraph has ( ; ) holes ({{IPA|y}}) in it , and it ends as all sentences do.

== See also ==
A paragraph behind the last real heading is of no use to anybody, so it has to go too.
"""


def test_prose_is_what_is_left(script):
    assert script.prose(ARTICLE) == [
        "Achilles (Ἀχιλλεύς, also hero) was the Trojan hero of Homer, 5 to 6 miles away, as they say now.",
        "The second paragraph has holes in it, and it ends as all sentences do.",
    ]


def test_unbalanced_markup_does_no_harm(script):
    for text in ("{{" * 50, "[[" * 50, "{| " * 50, "]] }} |}", "[[a|[[b]]", "{{a|{{b}}", "<ref>", "'''"):
        assert script.prose(text) == []


def test_the_bundled_sample(script, tmp_path, capsys):
    if script.find_sample() is None:
        pytest.skip("gensim is not installed")
    assert script.main([str(tmp_path / "out.jsonl")]) == 0
    articles = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(articles) == 100 and len({article["title"] for article in articles}) == 100
    text = "\n".join(article["text"] for article in articles)
    assert 380_000 < len(text.split()) < 400_000
    assert not any(mark in text for mark in ("{{", "}}", "[[", "]]", "<ref", "{|", "|}", "&nbsp;", "http://", "thumb|"))
    assert "100 articles" in capsys.readouterr().out
    assert script.main([str(tmp_path / "x"), "--input", str(tmp_path / "none")]) == 2
