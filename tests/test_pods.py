"""The table of pods: what is flat and what is not, and a step that did not fit."""

import json
import sys

import pytest

from ctxjax import pods, report
from tests.scripts import opened


def step(name, chips, **changes):
    sent = changes.pop("sent", 200_000_000)
    made = {"model": "m", "slice": name, "chips": chips, "rows": 4, "mesh": {"data": chips, "fsdp": 1, "tensor": 1}}
    made |= {"flops": 1e12, "accessed": 2e9, "sent": sent, "memory": 2**30, "chip_memory": 16 * 2**30, "fits": True}
    made |= {"tokens": 512, "collectives": {"all-reduce": {"count": 1, "nbytes": sent // 2}}, "commit": "abc"}
    made |= {"roofline": {"products": 0.5, "memory": 0.25, "links": 0.125, "bound": "products", "seconds": 0.5}}
    return made | changes


def test_what_differs_from_the_smallest_slice_is_named():
    small, flat = step("v5e-8", 8), step("v5e-16", 16, accessed=2.05e9)
    grown = step("v5e-32", 32, sent=300_000_000, memory=1.1 * 2**30)
    other = step("v4-32", 16, sent=7)
    steps = [small, flat, grown, other]
    assert [pods.beside(one, steps) for one in (small, flat, other)] == ["", "flat", ""]
    assert pods.beside(grown, steps) == "sent +50% (all-reduce +0.05 GB); memory +10%"


def test_rows_are_rendered_with_what_did_not_fit():
    broken = {**step("v5e-16", 16), "failed": "out of memory | 21 GiB"}
    made = pods.rows([step("v5e-8", 8), broken])
    assert {len(row) for row in made} == {len(pods.HEAD)}
    assert made[0][5:9] == ("1", "2", "0.2", "1.00 of 16") and "8,192" in made[0]  # 8 x 512 tokens in half a second
    assert made[1][-1] == "does not fit: out of memory / 21 GiB"
    page = report.ledger([{"name": "pods", "date": "2026", "hardware": {}, "pods": [broken]}], [])
    assert "## Pods" in page and "out of memory / 21 GiB" in page and "Commits: abc." in page


@pytest.fixture
def driver(monkeypatch):
    return opened("experiments/pods/table.py")


def test_the_driver_continues_and_writes_one_record(driver, monkeypatch, tmp_path, capsys):
    asked = []

    def compiled(model, name):
        asked.append((model, name))
        return step(
            name,
            driver.chips_of(name),
            model=model,
            bound="products",
            processor_seconds=1.0,
            command=driver.shown(model, name),
        )

    monkeypatch.setattr(driver, "compile_one", compiled)
    monkeypatch.setattr(driver.records, "write", lambda name, made: tmp_path / f"{name}-{len(made['pods'])}.json")
    assert driver.main(["--workdir", str(tmp_path), "--only", "BERT base,v5e-8;v4-32"]) == 0
    assert asked == [("BERT base", "v5e-8"), ("BERT base", "v4-32")]
    assert "wrote" not in capsys.readouterr().out
    assert driver.main(["--workdir", str(tmp_path)]) == 0
    assert len(asked) == len(set(asked)) == len(driver.MODELS) * len(driver.SLICES)
    assert f"pods-{len(asked)}.json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        driver.main(["--workdir", str(tmp_path), "--only", "BERT huge"])
    assert "is none of BERT base" in capsys.readouterr().err


def test_commands_ask_for_the_chips_there_are(driver):
    chips = {name: driver.chips_of(name) for name in driver.SLICES}
    assert chips["v4-32"] == 16 and chips["v5p-128"] == 64  # two cores a chip
    assert all(chips[name] == int(name[4:]) for name in chips if name.startswith("v5e-"))
    for model, case in driver.MODELS.items():
        for name in driver.SLICES:
            asked = driver.command(model, name)
            assert asked[0] == sys.executable and f"--config.batch_size={case.rows * chips[name]}" in asked
            assert chips[name] % case.fsdp == 0


def test_a_step_that_cannot_be_planned_is_told(driver, monkeypatch):
    monkeypatch.setattr(driver, "command", lambda *_: [sys.executable, "-c", "raise SystemExit('no such config')"])
    found = driver.compile_one("BERT base", "v5e-8")
    assert found["failed"] == "no such config" and json.dumps(found)
