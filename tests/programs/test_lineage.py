"""The driver of the whole line: which text it takes, what it runs, and a small run of two families to its page."""

import json
import os
import pathlib

import pytest

from ctxjax import config as configs
from ctxjax.data.generated import documents
from tests.scripts import opened

PATH = pathlib.Path("experiments/lineage/run.py")


@pytest.fixture(scope="module")
def lineage():
    return opened(PATH)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    made = [{"text": "\n".join(sentences)} for sentences in documents(800)]
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    return path


def read(folder):
    return [json.loads(line)["text"] for line in (folder / "text.jsonl").read_text().splitlines()]


def test_a_part_of_the_text_that_does_not_depend_on_the_order_of_files(lineage, text, tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "HELD_OUT", 5)
    monkeypatch.setattr(lineage, "PASSAGE", 60)
    lines = text.read_text().splitlines(keepends=True)
    folders = []
    for number, order in enumerate((lines, lines[::-1])):
        half = len(order) // 2
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, part in (("a.jsonl", order[:half]), ("b.jsonl", order[half:])):
            (folder / name).write_text("".join(part))
        lineage.take_text([folder / "a.jsonl", folder / "b.jsonl"], folder, 3_000)
        folders.append(folder)
    one, two = map(read, folders)
    assert one == two and 3_000 <= sum(len(passage.split()) for passage in one) < 3_300
    held = (folders[0] / "heldout.txt").read_text().splitlines()
    assert len(held) == 5 and not set(held) & {paragraph for passage in one for paragraph in passage.split("\n")}
    assert held == (folders[1] / "heldout.txt").read_text().splitlines()


@pytest.mark.parametrize("size", ["cpu", "accelerator"])
def test_every_stage_names_configs_that_there_are(lineage, size, tmp_path):
    stages = lineage.stages(tmp_path, size, 3, list(lineage.FAMILIES), quick=False)
    assert len(stages) == len(lineage.KINDS) + 2 * len(lineage.FAMILIES) + 1
    for title, arguments in stages:
        if "--config" in arguments:
            config = configs.load(arguments[arguments.index("--config") + 1])
            settings = {
                argument.removeprefix("--config.").split("=")[0]
                for argument in arguments
                if argument.startswith("--config.")
            }
            assert settings <= set(configs.leaves(config)), title


def test_only_evaluations_that_are_older_than_their_run_are_done_again(lineage, tmp_path):
    families = ["n-gram", "NNLM", "ELMo"]
    stages = lineage.stages(tmp_path, "cpu", 1, families, quick=True)
    (tmp_path / "suite").mkdir()
    for place, name in enumerate(families):
        (tmp_path / name).mkdir()
        for file, time in (
            (tmp_path / name / "record.json", 100),
            (lineage.suite_of(tmp_path, name), (90, 110, 0)[place]),
        ):
            if time:
                file.write_text("{}")
                os.utime(file, (time, time))
    skipped = {title for title, _ in stages} - {title for title, _ in lineage.left(stages, tmp_path)}
    assert skipped == {"evaluate NNLM"}


@pytest.mark.slow
def test_two_families_to_their_page(lineage, text, tmp_path, monkeypatch):
    """Through the real programs; the evaluations need the data folder and are left out."""
    monkeypatch.setattr(lineage, "HELD_OUT", 5)
    real = lineage.stages

    def without_suite(*arguments):
        found = [stage for stage in real(*arguments) if not stage[0].startswith("evaluate")]
        page = found[-1][1]
        del page[page.index("--suite") : page.index("--page")]
        return found

    monkeypatch.setattr(lineage, "stages", without_suite)
    argv = ["--text", str(text), "--output", str(tmp_path / "line"), "--words", "20000", "--passes", "1"]
    assert lineage.main([*argv, "--only", "n-gram", "NNLM"]) == 0
    page = (tmp_path / "line" / "lineage.html").read_text()
    assert "n-gram" in page and "NNLM" in page
    assert lineage.main([*argv, "--only", "n-gram", "NNLM"]) == 0  # nothing left to do
