"""The ledger of published tables: every figure has a row, a run finds its rows, and the words come from its record."""

import collections
import json

import pytest

from ctxjax import ledger, report
from ctxjax.config import ConfigError

PUBLISHED = [row for row in json.loads(report.PUBLISHED.read_text()) if "task" in row]
SYSTEMS = json.loads(report.SYSTEMS.read_text())
# Figures of each published table, counted in the papers and READMEs.
TABLES = {
    "GLUE": 5 * 10 + 1,  # five systems by nine figures and their average; MNLI of the whole-word model
    "SQuAD 1.1": 2 * (2 + 2 + 1 + 2) + 1 + 2,  # EM and F1; F1 of the whole-word model; ELMo and its baseline
    "CoNLL-2003": 3 + 7 + 1 + 1 + 2,  # test; layers and fine-tuned on dev; AllenNLP's; TagLM; ELMo and its baseline
    "CoNLL-2000": 1,
    "SWAG": 2 + 1 + 1 + 2 + 2,
    "Story Cloze": 2,
    **dict.fromkeys(("IMDb", "TREC-6", "AG News", "DBpedia", "Yelp-2", "Yelp-5"), 1),
    **dict.fromkeys(("SNLI", "SRL", "coreference", "SST-5"), 2),
}
RUN = {
    "name": "rte",
    "file": "rte-1.json",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc",
    "hardware": {"cpu": "Some CPU", "cores": 2, "platform": "cpu"},
    "parameters": 11_200_000,
    "examples": 2490,
    "config": {
        "reproduces": "GLUE/RTE/BERT base",
        "model": {"name": "downstream", "encoder": {"name": "bert", "depth": 4, "width": 256}},
        "optim": {"lr": 5e-5},
        "total": "3 epochs",
        "batch_size": 32,
        "source": {"task": "glue.rte"},
        "evals": {"dev": {"name": "task", "split": "heldout"}},
    },
    "evaluation": {"dev/accuracy": 60.25, "dev/loss": 0.6},
    "deviation": {"dev/accuracy": 1.5, "dev/loss": 0.1},
    "seeds": {str(seed): {} for seed in range(5)},
    "failed": {"3": "why"},
    "origin": {"steps": 1000, "tokens": 3_000_000, "origin": {"steps": 500, "tokens": 1_000_000, "origin": {}}},
}


def row_of(records, task, system, metric, split="test"):
    cells = [cells for cells in ledger.rows(records, PUBLISHED, SYSTEMS) if cells[:2] == (task, system)]
    return next(dict(zip(ledger.HEAD, one)) for one in cells if one[2] == f"{metric}, {split}")


def test_no_row_of_the_tables_is_left_out():
    counted = collections.Counter(row["task"].partition("/")[0] for row in PUBLISHED)
    assert dict(counted) == TABLES and len(PUBLISHED) == 107
    keys = [(row["task"], row["system"], row["metric"], row["split"], row["source"]) for row in PUBLISHED]
    assert len(set(keys)) == len(keys)
    for row in PUBLISHED:
        assert set(row) - {"note", "evaluator"} == {"task", "system", "metric", "split", "value", "source"}
        assert 0 < row["value"] < 100


def test_published_averages_are_the_means_of_their_rows():
    """Which a wrong figure anywhere in the table would break."""
    for average in (row for row in PUBLISHED if row["metric"] == "average"):
        values = [
            row["value"]
            for row in PUBLISHED
            if row["system"] == average["system"] and row["task"].startswith("GLUE/") and row["metric"] != "average"
        ]
        assert len(values) == 9 and sum(values) / 9 == pytest.approx(average["value"], abs=0.07)


def test_what_was_not_run_says_so():
    rows = ledger.rows([], PUBLISHED, SYSTEMS)
    assert len(rows) == len(PUBLISHED) and all(row[4] == "not run" for row in rows)
    assert all(len(row) == len(ledger.HEAD) for row in rows)


def test_a_run_finds_its_row_and_the_difference_is_worded_from_its_record():
    row = row_of([RUN], "GLUE/RTE", "BERT base", "accuracy")
    assert row["published"] == "66.4" and row["ours"] == "60.2 ± 1.5"
    assert row["data"] == "glue.rte: 2,490 examples, dev" and row["seeds"] == "5 (1 failed)"
    assert row["run"] == "`rte-1.json`: lr 5e-05, 3 epochs, batch 32" and row["hardware"] == "2 cores, Some CPU"
    assert row["difference"] == (
        "6.2 below; 4 layers of 256 for 12 of 768; 11.2 M parameters for 110 M; "
        "pretrained on 4 M tokens in 1,500 steps for 3.3 G words, 1,000,000 steps of 256 sequences; on dev for test"
    )
    assert sum(row[4] != "not run" for row in ledger.rows([RUN], PUBLISHED, SYSTEMS)) == 1


def test_the_words_follow_the_record():
    full = {"model": {"name": "bert", "depth": 12, "width": 768}, "evals": {"test": {"name": "task", "split": "test"}}}
    record = RUN | {"config": RUN["config"] | full, "parameters": 110_106_428, "evaluation": {"test/accuracy": 67.0}}
    record |= {"origin": {"steps": 0, "tokens": 0, "origin": {}}, "deviation": {}, "seeds": {}, "failed": {}}
    row = row_of([record], "GLUE/RTE", "BERT base", "accuracy")
    assert row["difference"] == "0.6 above; published weights for 3.3 G words, 1,000,000 steps of 256 sequences"
    bare = row_of([record | {"origin": {}}], "GLUE/RTE", "BERT base", "accuracy")
    assert "not pretrained for 3.3 G words" in bare["difference"]


def test_of_several_runs_the_latest_counts_and_not_the_best():
    worse = RUN | {"date": "2026-02-02T03:04:05+00:00", "evaluation": {"dev/accuracy": 50.0}, "file": "later.json"}
    row = row_of([worse, RUN], "GLUE/RTE", "BERT base", "accuracy")
    assert row["ours"].startswith("50.0") and "later.json" in row["run"]


def test_the_split_of_the_row_comes_first_and_the_best_step_before_the_last():
    evals = {"dev": {"split": "heldout"}, "test": {"split": "test"}}
    config = RUN["config"] | {"reproduces": "CoNLL-2003/BERT base", "evals": evals}
    best = {"by": "highest dev/f1", "step": 7, "figures": {"dev/f1": 90.0, "test/f1": 80.0}}
    record = RUN | {"config": config, "best": best, "evaluation": {"dev/f1": 10.0, "test/f1": 20.0}, "deviation": {}}
    for split, value in (("test", "80.0"), ("dev", "90.0")):
        assert row_of([record], "CoNLL-2003", "BERT base", "f1", split)["ours"] == value


def test_a_run_may_have_figures_of_two_rows():
    both = "GLUE/MNLI-m/BERT base; GLUE/MNLI-mm/BERT base"
    evals = {"heldout": {"split": "heldout"}, "mismatched": {"split": "heldout_mm"}}
    record = RUN | {"config": RUN["config"] | {"reproduces": both, "evals": evals}, "deviation": {}}
    record |= {"evaluation": {"mismatched/accuracy": 60.0, "heldout/accuracy": 70.0}}
    record["config"]["best"] = "highest heldout/accuracy"
    assert row_of([record], "GLUE/MNLI-m", "BERT base", "accuracy")["ours"] == "70.0"
    assert row_of([record], "GLUE/MNLI-mm", "BERT base", "accuracy")["ours"] == "60.0"
    assert not ledger.unknown([record], PUBLISHED)


def test_terms_of_an_objective_are_no_official_figures():
    evals = {"dev": {"name": "objective", "split": "heldout"}}
    record = RUN | {"config": RUN["config"] | {"evals": evals}, "evaluation": {"dev/accuracy": 0.6}}
    assert row_of([record], "GLUE/RTE", "BERT base", "accuracy")["ours"] == "not run"


def test_an_error_is_what_is_missing_to_an_accuracy():
    config = RUN["config"] | {"reproduces": "TREC-6/ULMFiT"}
    record = RUN | {"config": config, "evaluation": {"dev/accuracy": 90.0}}
    assert row_of([record], "TREC-6", "ULMFiT", "error")["ours"].startswith("10.0")


def test_an_average_is_there_once_all_of_its_tasks_are():
    tasks = {row["task"]: row for row in PUBLISHED if row["system"] == "BERT base" and row["task"].startswith("GLUE/")}
    records = [
        RUN
        | {
            "config": RUN["config"] | {"reproduces": f"{task}/BERT base"},
            "evaluation": {f"{row.get('evaluator', 'dev')}/{row['metric']}": row["value"] - 9},
        }
        for task, row in tasks.items()
        if row["metric"] != "average"
    ]
    assert row_of(records, "GLUE/average", "BERT base", "average")["ours"] == "70.6"
    assert row_of(records[1:], "GLUE/average", "BERT base", "average")["ours"] == "not run"


def test_a_run_that_reproduces_nothing_published_is_an_error():
    typo = RUN | {"config": RUN["config"] | {"reproduces": "GLUE/RTE/BERT bas"}}
    with pytest.raises(ConfigError, match=r"config\.reproduces='GLUE/RTE/BERT bas' is no TASK/SYSTEM"):
        report.ledger([typo], PUBLISHED, SYSTEMS)
