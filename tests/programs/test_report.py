"""The ledger: rendered from records alone, and the committed page is what the committed records render to."""

import json

import pytest

from ctxjax import report
from ctxjax.config import ConfigError

HARDWARE = {"cpu": "Some CPU", "cores": 2, "platform": "cpu"}
RUN = {
    "name": "bert_mini",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "hardware": HARDWARE,
    "config": {"model": {"name": "bert", "depth": 4, "width": 256}},
    "parameters": 11_200_000,
    "tokens": 3_000_000,
    "wall_seconds": 3900.0,
    "evaluation": {"heldout/mlm": 6.54321, "heldout/mlm_accuracy": 0.1},
}
BENCH = {
    "name": "bench_step",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "hardware": {"platform": "gpu", "device": "H200", "devices": 8, "cpu": "x", "cores": 2},
    "figures": {"bert_tiny": {"median": 8123.4, "low": 8000.0, "high": 8200.0, "unit": "tokens/s"}},
}


def test_rows_hold_the_measured_and_the_published_figure():
    published = [{"model": "bert", "metric": "heldout/mlm", "value": 1.4, "unit": "nats", "what": "w", "source": "s"}]
    published[0] |= {"parameters": 112_000_000, "tokens": 42_600_000_000}
    page = report.ledger([RUN, BENCH], published)
    row = next(line for line in page.splitlines() if "heldout/mlm |" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("bert_mini", "bert 4x256", "11.2 M", "3 M", "heldout/mlm", "6.543", "1.4"),
        *("1/10 of the parameters, 1/14,000 of the tokens", "1 h 05 min", "2 cores, Some CPU", "abc"),
        "heldout/mlm_accuracy 0.1",
    ]
    assert "| 8,123 (8,000 to 8,200) tokens/s | 8 x H200 |" in page


def test_runs_as_large_as_the_published_say_so():
    assert report.scale({"parameters": 10, "tokens": 7}, {"parameters": 10, "tokens": 14}) == (
        "as many parameters, 1/2 of the tokens"
    )
    assert report.scale({"parameters": 10, "tokens": 7}, {}) == ""


def test_an_empty_ledger_says_so():
    assert report.ledger([], []).count("Nothing has been run yet.") == 7


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"bad\.json is not a run record"):
        report.read_records(tmp_path)


def test_the_committed_ledger_is_true():
    records = report.read_records(report.RECORDS)
    expected = report.ledger(records, *(json.loads(path.read_text()) for path in (report.PUBLISHED, report.SYSTEMS)))
    assert report.RESULTS.read_text() == expected, "run: python -m ctxjax.report --ledger"


def test_thinning_keeps_every_held_out_line():
    curve = [{"step": step, "loss": 1.0} | ({"heldout/mlm": 2.0} if step % 97 == 0 else {}) for step in range(1000)]
    kept = report.thin(curve, most=10)
    assert len(kept) < 30 and sum("heldout/mlm" in line for line in kept) == 11


def test_curves_are_drawn_and_adding_needs_a_finished_run(tmp_path):
    pytest.importorskip("matplotlib")
    run = tmp_path / "a"
    run.mkdir()
    lines = [{"step": step, "tokens": 10 * step, "loss": 5.0 / step} for step in (1, 2)]
    lines.append({"step": 2, "heldout/mlm": 2.0})
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    report.draw([run], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="has not ended"):
        report.add(run, "a")
    with pytest.raises(ConfigError, match="not a run folder"):
        report.draw([tmp_path], tmp_path / "x.png")
