"""The command that compares systems on tasks: what it would run, and a small run of two models to its page."""

import json
import pathlib

import pytest

from ctxjax import comparison, ledger, report
from ctxjax import config as configs
from ctxjax.config import ConfigError
from ctxjax.data.tasks import open_task
from tests.scripts import opened
from tests.test_comparison import record

PATH = pathlib.Path("experiments/tasks/compare.py")
SIZES = {"word2vec": {"width": 100}, "GloVe": {"width": 50}, "ELMo": {"projection": 128, "depth": 2}}


@pytest.fixture(scope="module")
def compare():
    return opened(PATH)


@pytest.fixture
def lineage(tmp_path, compare):
    """What the stages are told of pretrained runs."""
    folder = tmp_path / "lineage"
    for name in compare.SYSTEMS.values():
        (folder / name).mkdir(parents=True)
        model = {"vocab_size": 77, **SIZES.get(name, {})}
        (folder / name / "config.json").write_text(json.dumps({"model": model}))
        about = {"parameters": 1_000, "tokens": 2_000, "steps": 3, "commit": "abc"}
        (folder / name / "record.json").write_text(json.dumps(about))
    return folder


def plan(compare, lineage, tmp_path, small=True, examples=2_000):
    return compare.Plan(lineage, tmp_path / "out", tmp_path / "data", small, examples, (100, 500))


def settings(arguments):
    """Dotted fields of a command and their values."""
    found = [argument.removeprefix("--config.") for argument in arguments if argument.startswith("--config.")]
    return dict(one.split("=", 1) for one in found)


@pytest.mark.parametrize("small", [True, False])
def test_every_stage_names_configs_and_fields_that_there_are(compare, lineage, tmp_path, small):
    made = plan(compare, lineage, tmp_path, small, 2_000 * small)
    found = compare.jobs(made, list(compare.TASKS), list(compare.SYSTEMS))
    assert len(found) == 11 * 6 - 6 + 2 * 6  # ULMFiT reads no pairs, choices and words; two more points of a curve
    assert len({job.run for job in found}) == len(found)
    every = [*(stage for job in found for stage in job.stages), made.probes(compare.PROBED)]
    for title, arguments in every:
        if "--config" in arguments:
            config = configs.load(arguments[arguments.index("--config") + 1])
            told = {name: value for name, value in settings(arguments).items() if not value.startswith("@")}
            configs.override(config, told)
            assert ("total" in told) == (small and "train" in arguments[1] and "models" not in told), title


def test_every_system_has_the_same_examples(compare, lineage, tmp_path):
    """Limits and shares are told to all alike, and to the program that writes ULMFiT's texts."""
    made = plan(compare, lineage, tmp_path)
    for task in ("CoLA", "IMDb", "STS-B", "UD POS"):
        told = set()
        for job in compare.jobs(made, [task], list(compare.SYSTEMS)):
            if job.count != 2_000:
                continue
            if job.system == "ULMFiT":
                arguments = job.stages[0][1]
                told.add(tuple(arguments[arguments.index(f"--{name}") + 1] for name in ("limit", "share")))
            else:
                fields = settings(job.stages[-1][1])
                names = ("source.limit", "source.share", "source.train", "source.heldout")
                told.add(tuple(fields[name] for name in names if name in fields))
        assert len(told) == 1, (task, told)


def test_few_labels_have_as_many_steps_and_nothing_is_run_twice(compare, lineage, tmp_path):
    made = plan(compare, lineage, tmp_path)
    jobs = compare.jobs(made, ["IMDb"], ["BERT"])
    totals = {job.count: settings(job.stages[-1][1])["total"] for job in jobs}
    assert totals == {2_000: "4 epochs", 100: "32 epochs", 500: "7 epochs"}
    assert len(compare.stages(jobs)) == 3
    jobs[1].run.mkdir(parents=True)
    (jobs[1].run / "record.json").write_text("{}")
    assert [title for title, _ in compare.stages(jobs)] == ["IMDb, BERT: train", "IMDb-500, BERT: train"]


def test_figures_are_gathered_from_records(compare, lineage, tmp_path):
    made = plan(compare, lineage, tmp_path)
    for job in compare.jobs(made, ["IMDb", "STS-B"], ["ELMo", "BERT"]):
        job.run.mkdir(parents=True)
        figures = {"heldout__accuracy": 50.0 + job.count / 100, "heldout__pearson": 40.0}
        found = record(job.count, **figures, mix__mix_layer_0=1.0)
        (job.run / "record.json").write_text(json.dumps(found))
    found = compare.gather(made, compare.ended(made))
    assert [(one["title"], one["examples"], one["figures"]) for one in found["tasks"]] == [
        ("IMDb", 2_000, {"ELMo": 70.0, "BERT": 70.0}),
        ("STS-B", 2_000, {"ELMo": 40.0, "BERT": 40.0}),
    ]
    assert [one["figures"]["BERT"] for one in found["curves"]["IMDb"]] == [51.0, 55.0, 70.0]
    assert list(found["systems"]) == ["ELMo", "BERT"] and found["seconds"] == 30.0 * 8
    assert found["mixes"] == {"IMDb": [1.0], "STS-B": [1.0]}
    compare.write(made)
    text = json.loads((made.output / "record.json").read_text())
    assert text["comparison"] == found and text["name"] == "comparison" and text["hardware"]["cpu"] == "Some CPU"
    assert (made.output / "comparison.md").read_text().splitlines() == comparison.markdown(found)
    assert "| STS-B | pearson | 2,000 |" in report.ledger([text], []) and not ledger.unknown([text], [])


def test_what_cannot_be_compared_is_said(compare, lineage, tmp_path, monkeypatch):
    argv = ["--lineage", str(lineage), "--output", str(tmp_path / "out")]
    monkeypatch.delenv("CTXJAX_DATA", raising=False)
    with pytest.raises(ConfigError, match="CTXJAX_DATA is not set"):
        compare.main(argv)
    monkeypatch.setenv("CTXJAX_DATA", str(tmp_path))
    (lineage / "BERT" / "record.json").unlink()
    with pytest.raises(ConfigError, match="BERT has not ended"):
        compare.main(argv)
    compare.keep_settings(plan(compare, lineage, tmp_path), "cpu")
    compare.keep_settings(plan(compare, lineage, tmp_path), "cpu")
    with pytest.raises(ConfigError, match="name another --output"):
        compare.main([*argv, "--only", "GPT", "--examples", "7"])


def test_ulmfit_reads_the_examples_of_the_others(tmp_path):
    """What the texts' program writes are those that the source of the other systems takes."""
    from ctxjax.data.sources.examples import Source

    texts = opened("experiments/ulmfit/texts.py")
    lines = "".join(f"{number % 6} What is n{number} ?\n" for number in range(90))
    (tmp_path / "TREC.train.all").write_text(lines)
    (tmp_path / "TREC.test.all").write_text("3 Who ?\n")
    counts = texts.write("topics.trec6", tmp_path, tmp_path / "out", share=0.2, limit=20)
    assert set(counts) == {"train", "heldout"} and counts["train"] == 20
    for split in counts:
        source = Source(str(tmp_path), split, "topics.trec6", tokenizer="none", share=0.2, limit=20)
        written = [json.loads(line) for line in (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines()]
        assert [one["label"] for one in written] == [one.target for one in source.examples]
        assert all(one.texts[0].split()[2] in line["text"] for one, line in zip(source.examples, written))
    assert open_task("topics.trec6").parts == 1


@pytest.mark.slow
def test_two_systems_on_two_tasks_to_their_page(compare, tmp_path, monkeypatch):
    """Through the real programs, from models that were pretrained for some steps, on generated text."""
    from ctxjax.data.generated import generated_tags
    from ctxjax.stages import run

    folder = tmp_path / "lineage"
    for name, config in (("word2vec", "word2vec"), ("BERT", "bert")):
        spec = f"experiments/{config}/pretrain.py:smoke"
        assert run(["-m", "ctxjax.train", "--config", spec, "--workdir", str(folder / name)]) == 0
    cola, names = tmp_path / "tasks" / "glue" / "CoLA", tmp_path / "tasks" / "conll2003"
    cola.mkdir(parents=True)
    for name, count in (("train", 60), ("dev", 30)):
        lines = [f"gj04\t{number % 2}\t\tThe word {'good' if number % 2 else 'bad'} .\n" for number in range(count)]
        (cola / f"{name}.tsv").write_text("".join(lines))
    names.mkdir(parents=True)
    for file in ("eng.train", "eng.testa", "eng.testb"):
        sentences = (pathlib.Path(generated_tags()) / file).read_text().split("\n\n")
        other = lambda text: text.replace("LOC", "ORG").replace("PER", "MISC")  # CoNLL-2003 has four kinds
        kept = [other(text) if place % 2 else text for place, text in enumerate(sentences)]
        (names / file).write_text("\n\n".join(kept))
    monkeypatch.setenv("CTXJAX_DATA", str(tmp_path))
    monkeypatch.setenv("CTXJAX_CACHE", str(tmp_path / "cache"))
    short = {name: kind._replace(length=48) for name, kind in compare.TASKS.items()}
    for name, value in {"TASKS": short, "FEWEST": 4, "PASSES": dict.fromkeys(compare.PASSES, 1)}.items():
        monkeypatch.setattr(compare, name, value)
    monkeypatch.setattr(compare, "TAGGING_PASSES", dict.fromkeys(compare.TAGGING_PASSES, 1))
    argv = ["--lineage", str(folder), "--output", str(tmp_path / "out"), "--examples", "40", "--no-probes"]
    argv += ["--only", "word2vec", "BERT", "--tasks", "CoLA", "CoNLL-2003"]
    assert compare.main(argv) == 0
    found = json.loads((tmp_path / "out" / "record.json").read_text())["comparison"]
    assert [(one["title"], set(one["figures"])) for one in found["tasks"]] == [
        ("CoLA", {"word2vec", "BERT"}),
        ("CoNLL-2003", {"word2vec", "BERT"}),
    ]
    assert all(one["majority"] == 0.0 and one["examples"] <= 40 for one in found["tasks"])
    assert "CoNLL-2003" in (tmp_path / "out" / "comparison.html").read_text()
    assert compare.main(argv) == 0  # nothing left to do but the page
