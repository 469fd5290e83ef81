"""The page of runs side by side: every figure in its place, nothing from elsewhere, what nobody measured a dash."""

import json
import re

import pytest

from ctxjax import page, report
from ctxjax.config import ConfigError
from ctxjax.page import tasks
from tests.test_comparison import compared

HARDWARE = {"cpu": "a <fast> one", "cores": 2, "memory_gb": 8, "platform": "cpu"}


@pytest.fixture
def runs(tmp_path):
    """A left-to-right model, a biLM and counts, as their runs leave them."""
    found = []
    for name, evaluation, curve in (
        ("GPT-2", {"heldout/lm": 3.0, "heldout/lm_perplexity": 20.1}, "lm"),
        ("ELMo", {"heldout/forward_perplexity": 90.0, "heldout/backward_perplexity": 95.5}, "forward"),
        ("n-gram", {"heldout/lm": 5.0, "heldout/lm_perplexity": 148.3}, ""),
    ):
        folder = tmp_path / name
        folder.mkdir()
        record = {"hardware": HARDWARE, "parameters": 12_345_678, "tokens": 2e6, "wall_seconds": 90.0}
        record |= {"evaluation": evaluation, "name": name} | ({"flops": 3.2e15} if curve else {})
        (folder / "record.json").write_text(json.dumps(record))
        if curve:
            lines = [{"step": s, "tokens": 1e5 * s, f"heldout/{curve}": 6.0 - s / 10, "loss": 1.0} for s in (1, 5, 9)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        found.append(folder)
    return found


SENSES = {"senses/accuracy": 0.8, "senses/most_frequent_sense": 0.7, "senses/lemmas": 40, "senses/occurrences": 2500}
SENSES |= {"senses/accuracy_0": 0.69, "senses/accuracy_1": 0.8, "senses/apart_0": 0.0, "senses/apart_1": 0.12}
SUITE = {
    "GPT-2": {"blimp/accuracy": 0.71, "text/bits_per_character": 1.5, "wordsim/spearman": float("nan"), **SENSES},
    "n-gram": {"blimp/accuracy": 0.6, "text/bits_per_character": 1.9},
}


def rows(text):
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]


def test_every_figure_is_in_its_place(runs):
    head, gpt2, elmo, ngram = rows(page.table(page.read_runs(runs), SUITE))
    assert head[:6] == ["model", "parameters", "tokens", "FLOPs", "minutes", "perplexity"]
    assert gpt2[:6] == ["GPT-2", "12.3 M", "2 M", "3.2 P", "1.5", "20.1"]
    assert elmo[5] == "90.0 / 95.5" and ngram[3] == "–"
    place = head.index("BLiMP")
    assert (gpt2[place], elmo[place], ngram[place]) == ("71.0%", "–", "60.0%")
    assert gpt2[head.index("WordSim-353")] == "–"  # measured, and no number
    text = page.table(page.read_runs(runs), SUITE)
    assert '<td class="best">71.0%</td>' in text and '<td class="best">1.500</td>' in text


def test_the_page_is_one_file_that_loads_nothing(runs, tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps(SUITE))
    argv = [*map(str, runs), "--suite", str(tmp_path / "suite.json"), "--page", str(tmp_path / "page.html")]
    assert report.main(argv) == 0
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    assert text.count("data:image/png;base64,") == 3  # bars, curves, senses
    assert "a &lt;fast&gt; one" in text and "40 lemmas" in text and "70.0%" in text


def test_a_page_without_a_suite(runs, tmp_path):
    page.write(tmp_path / "page.html", runs, {})
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/png;base64,") == 1 and "One word, two senses" not in text


def test_what_is_missing_is_named(runs, tmp_path):
    (runs[0] / "record.json").unlink()
    with pytest.raises(ConfigError, match="has not ended"):
        page.write(tmp_path / "page.html", runs, {})
    with pytest.raises(ConfigError, match=r"--suite .*nowhere.json cannot be read"):
        report.main([str(runs[1]), "--suite", str(tmp_path / "nowhere.json"), "--page", str(tmp_path / "x.html")])
    with pytest.raises(SystemExit):
        report.main([str(runs[1])])


def test_tasks_are_put_on_the_page(runs, tmp_path):
    found = compared()
    (tmp_path / "record.json").write_text(json.dumps({"comparison": found}))
    argv = [*map(str, runs), "--tasks", str(tmp_path / "record.json"), "--page", str(tmp_path / "page.html")]
    assert report.main(argv) == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/png;base64,") == 5  # losses, bars, labels, probes, mixes
    head, cola, names, _ = rows(tasks.table(found))
    assert head == ["task", "metric", "examples", "majority", "ELMo", "BERT"]
    assert cola == ["CoLA", "matthews", "100", "0.0", "12.3", "12.3"] and names[-2:] == ["55.5", "–"]
    found["tasks"][0]["figures"]["BERT"] = -2.0
    assert '<td class="none">-2.0</td>' in tasks.table(found)  # no better than the majority
    assert '<td class="best">12.3</td>' in tasks.table(found)
    with pytest.raises(ConfigError, match=r"--tasks .*nowhere.json cannot be read"):
        report.main([*argv[:3], "--tasks", str(tmp_path / "nowhere.json"), "--page", str(tmp_path / "x.html")])


def test_what_was_not_compared_is_left_out():
    assert tasks.sections({}) == ""
    found = compared() | {"curves": {}, "probes": {}, "mixes": {}}
    assert tasks.sections(found).count("data:image/png;base64,") == 1


def test_a_curve_is_the_error_by_the_number_of_labels():
    figure = tasks.curves(compared())
    elmo, bert, majority = figure.axes[0].get_lines()
    assert list(elmo.get_xdata()) == [100, 500] and list(bert.get_xdata()) == [100, 500]
    assert list(elmo.get_ydata()) == pytest.approx([39.04, 35.2]) and majority.get_ydata()[0] == 50.0
    assert figure.axes[0].get_xscale() == "log"
