"""Figures of many runs as one table: each from its record, in its place, and nothing that no record has."""

from ctxjax import comparison, report

HARDWARE = {"cpu": "Some CPU", "cores": 2, "platform": "cpu"}


def record(examples=100, **evaluation):
    figures = {name.replace("__", "/"): value for name, value in evaluation.items()}
    config = {"model": {"name": "downstream"}}
    made = {"evaluation": figures, "examples": examples, "config": config, "wall_seconds": 30.0, "commit": "abc"}
    return made | {"hardware": HARDWARE}


def compared():
    """Two systems on three tasks, one of which only one of them reads, and a curve."""
    cola = {
        "ELMo": record(heldout__matthews=12.34, heldout__accuracy=70.0, mix__mix_layer_0=0.5, mix__mix_layer_1=0.3)
        | {"commit": "abd"},
        "BERT": record(heldout__matthews=12.31, heldout__majority_matthews=0.0),
    }
    cola["ELMo"]["evaluation"] |= {"mix/mix_layer_2": 0.2, "mix/mix_gamma": 1.0}
    names = {"ELMo": record(spans__f1=55.5, spans__majority_f1=0.0, heldout__tagging=0.3, mix__mix_0_layer_0=1.0)}
    imdb = {n: {"ELMo": record(n, heldout__accuracy=60.0 + 0.96 * n / 100, heldout__majority_accuracy=50.0),
                "BERT": record(n, heldout__accuracy=55.0 + 0.96 * n / 50, heldout__majority_accuracy=50.0)}
            for n in (100, 500)}  # fmt: skip
    curve = [comparison.row("IMDb", "sentiment.imdb", imdb[n]) for n in (100, 500)]
    layers = {"accuracy": [0.8, 0.9], "control": [0.7, 0.6], "selectivity": [0.1, 0.3], "by_type": 0.85}
    return {
        "systems": {
            name: {"run": name, "parameters": 1_000_000, "tokens": 2e6, "steps": 9, "commit": "abc"}
            for name in ("ELMo", "BERT")
        },
        "tasks": [
            comparison.row("CoLA", "glue.cola", cola),
            comparison.row("CoNLL-2003", "conll2003", names),
            curve[-1],
        ],
        "curves": {"IMDb": curve},
        "mixes": comparison.mixes({"CoLA": cola, "CoNLL-2003": names, "IMDb": imdb[100]}),
        "probes": {"ELMo": {"step": 3, "tasks": {"pos": layers}}},
        "seconds": 210.0,
    }


def test_a_row_has_the_official_figure_of_the_task():
    cola, names, imdb = compared()["tasks"]
    assert (cola["metric"], cola["majority"], cola["figures"]) == ("matthews", 0.0, {"ELMo": 12.34, "BERT": 12.31})
    assert (names["metric"], names["majority"], names["figures"]) == ("f1", 0.0, {"ELMo": 55.5})
    assert cola["commits"] == ["abc", "abd"] and imdb["majority"] == 50.0
    assert comparison.metric_of("ud_english") == "accuracy" and comparison.metric_of("glue.stsb") == "pearson"


def test_mixes_are_those_of_elmo_alone():
    assert compared()["mixes"] == {"CoLA": [0.5, 0.3, 0.2], "CoNLL-2003": [1.0]}


def test_the_table_in_markdown():
    lines = comparison.markdown(compared())
    assert lines[0] == "| task | metric | examples | majority | ELMo | BERT |"
    assert lines[2] == "| CoLA | matthews | 100 | 0.0 | **12.3** | **12.3** |"  # equal as they are shown
    assert lines[3] == "| CoNLL-2003 | f1 | 100 | 0.0 | **55.5** | – |"
    assert lines[4] == "| IMDb | accuracy | 500 | 50.0 | **64.8** | 64.6 |"
    assert lines[6].startswith("IMDb, by the number")
    assert lines[-2:] == [
        "| IMDb | accuracy | 100 | 50.0 | **61.0** | 56.9 |",
        "| IMDb | accuracy | 500 | 50.0 | **64.8** | 64.6 |",
    ]


def test_the_ledger_has_the_latest_comparison():
    found = compared()
    older = {"comparison": {**found, "tasks": []}, "date": "2026-01-01T00:00:00+00:00"}
    newer = {"comparison": found, "date": "2026-01-02T00:00:00+00:00"}
    about = {"name": "comparison", "commit": "abc", "hardware": HARDWARE}
    text = report.ledger([newer | about, older | about], [])
    section = text.partition("## The comparison")[2].partition("\n## ")[0]
    assert "| CoNLL-2003 | f1 | 100 | 0.0 | **55.5** | – |" in section
    assert "ELMo (1 M parameters, 2 M tokens)" in section and "Commits: abc, abd" in section and "4 min" in section
