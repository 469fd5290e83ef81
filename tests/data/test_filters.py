"""Each rule at its border, and what is counted of it in a corpus."""

import dataclasses
import json

import pytest

from ctxjax.config import ConfigError
from ctxjax.data import cleaning, corpus
from ctxjax.data.filters import Filters
from ctxjax.prepare import RULES, main, settings_from

PROSE = "The cat that we have sat on the mat. It was glad to be with us, and so were we."


@pytest.mark.parametrize(
    "rule, value, kept, rejected",
    [
        ("min_words", 3, "one two three", "one two"),
        ("max_words", 3, "one two three", "one two three four"),
        ("min_mean_word", 3, "ab abcd", "ab abc"),
        ("max_mean_word", 3, "ab abcd", "abc abcd"),
        ("max_symbols", 0.5, "#a # b c", "#a ## b c"),
        ("max_symbols", 0.5, "a... b", "a... b\u2026"),
        ("max_bullets", 0.5, "- a\nb", "- a\n\u2022 b\nc"),
        ("max_ellipses", 0.5, "a...\nb", "a...\nb\u2026\nc"),
        ("min_letters", 0.5, "a 1", "a 1 _"),
        ("min_stop_words", 2, "The the of", "the The thence"),
        ("max_repeated_lines", 0.25, "a\nb\n\nc\na", "a\na\na\nb"),
        ("max_repeated_trigrams", 0.4, "a b c d a b c d e f", "a b c d a b c d e"),
        ("min_sentences", 2, 'One. "Two!" 3.5 v.x', "One. 3.5 v.x"),
        ("no_code", True, PROSE, "int main() { }"),
        ("no_code", True, PROSE, "Lorem ipsum dolor"),
    ],
)
def test_rules_at_their_borders(rule, value, kept, rejected):
    rules = Filters(**{rule: value})
    assert rules.rejects(kept) is None
    assert rules.rejects(rejected) == f"documents rejected by {rule}"
    assert rules.rejects(rejected) in cleaning.DROPPED


def test_repeated_trigrams_count_each_character_once():
    """Three words of three characters, five times: of five copies four stood before, and the seams with them."""
    text = "abc def ghi " * 5
    assert Filters(max_repeated_trigrams=0.8).rejects(text) is None  # 12 of 15 words
    assert Filters(max_repeated_trigrams=0.79).rejects(text)


def test_gophers_thresholds_keep_prose_and_no_rule_keeps_all():
    gopher = Filters(
        min_words=10, max_words=100_000, min_mean_word=3, max_mean_word=10, max_symbols=0.1, max_bullets=0.9,
        max_ellipses=0.3, min_letters=0.8, min_stop_words=2, max_repeated_lines=0.3, min_sentences=2, no_code=True,
    )  # fmt: skip
    assert gopher.rejects(PROSE) is None
    assert gopher.rejects("") and Filters().rejects("") is None


def test_the_program_has_a_flag_for_every_rule_and_counts_it(tmp_path):
    assert list(RULES) == [field.name for field in dataclasses.fields(Filters)]
    texts = [PROSE, "Too short.", PROSE + " More { code }.", PROSE + " Again, and that is all there is to be said."]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ["--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out"), "--workers", "1"]
    rules = ["--min_words", "5", "--min_sentences", "2", "--no_code"]
    main([*arguments, *rules, "--vocab_size", "90", "--heldout", "0"])
    manifest = corpus.read_manifest(tmp_path / "out")
    assert manifest["dropped"] == {"documents rejected by min_words": 1, "documents rejected by no_code": 1}
    assert manifest["splits"]["train"]["documents"] == 2
    assert manifest["settings"] | {"min_words": 5, "min_sentences": 2, "no_code": True} == manifest["settings"]
    main([*arguments, *rules, "--vocab_size", "90", "--heldout", "0"])  # the same again is finished
    with pytest.raises(ConfigError, match="--min_words 5, not 6"):
        main([*arguments, "--min_words", "6", *rules[2:], "--vocab_size", "90", "--heldout", "0"])
    with pytest.raises(ConfigError, match="--max_words -1"):
        settings_from([*arguments, "--max_words", "-1"])


def test_languages(tmp_path):
    pytest.importorskip("py3langid")
    german = "Das ist ein deutscher Satz, den niemand für einen englischen halten wird."
    rules = Filters(language=("en", "fr"))
    assert rules.rejects(PROSE) is None and rules.rejects(german) == "documents rejected by language"
    with pytest.raises(ConfigError, match="--language english is none of"):
        Filters(language=("english",))
    found = settings_from(["--input", "x", "--output", "y", "--language", "en", "de"])
    assert found.rules == Filters(language=("en", "de"))
