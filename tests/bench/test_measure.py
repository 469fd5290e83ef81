"""Measuring, on made-up clocks and made-up work: turns, medians, peaks, memory, the line and what the ledger shows."""

import itertools
import json

import numpy as np
import pytest

from ctxjax import records, report
from experiments.bench import measure
from experiments.bench.measure import Step, Turn, Work


def ticking(*seconds):
    """A clock that reads these times."""
    return iter(seconds).__next__


def test_a_turn_adds_its_steps_and_reads_the_clocks_around_all_of_them():
    turn = measure.take_turn(lambda: Step(10.0, loss=2.0), 3, ticking(5.0, 7.0), ticking(1.0, 4.5))
    assert turn == Turn(30.0, 2.0, 3.5, Step(10.0, loss=2.0))


def test_a_side_that_keeps_time_itself_is_believed():
    steps = iter([Step(10.0, 0.25), Step(6.0, 0.5)])
    turn = measure.take_turn(lambda: next(steps), 2, ticking(0.0, 100.0), ticking(0.0, 100.0))
    assert (turn.amount, turn.seconds, turn.processor) == (16.0, 0.75, None)


def test_sides_take_turns():
    order, said = [], []
    sides = {name: lambda name=name: order.append(name) or Step(1.0) for name in "AB"}
    clock = itertools.count().__next__
    taken = measure.in_turns(sides, 3, 2, said.append, clock=clock, processor=clock)
    assert "".join(order) == "AABBAABBAABB"
    assert {name: len(turns) for name, turns in taken.items()} == {"A": 3, "B": 3}
    assert said[:2] == ["turn 1 of 3, A: 1.0 a second", "turn 1 of 3, B: 1.0 a second"]


def test_medians_and_ranges_are_of_the_rates_of_turns():
    turns = [Turn(10.0, seconds, 2 * seconds, Step(1.0, loss=loss)) for seconds, loss in ((1, 3.0), (4, 2.0), (2, 1.0))]
    found = measure.summary(turns, steps=2, cores=2)
    assert found["rate"] == {"median": 5.0, "low": 2.5, "high": 10.0}
    assert found["seconds"] == 1.0 and found["rate_of_processor"] == 5.0 and found["loss"] == [3.0, 1.0]


def test_other_figures_are_medians_and_no_processor_time_is_none():
    turns = [Turn(1.0, 1.0, None, Step(1.0, also={"seconds to it": value})) for value in (9.0, 1.0, 2.0)]
    found = measure.summary(turns, 1, 2)
    assert found["also"] == {"seconds to it": 2.0} and found["rate_of_processor"] is None and found["loss"] is None
    assert measure.ratio(found, found) == 1.0 and measure.ratio(found, found, "rate_of_processor") is None


def test_memory_is_what_a_process_grew_by():
    kept = []

    def build():
        kept.append(np.ones(40_000_000, np.uint8))

        def step():
            np.ones(80_000_000, np.uint8)  # gone at the end of the step, and yet it was held
            return Step(1.0)

        return step

    _, memory = measure.memory_of(build, lambda side: measure.take_turn(side, 1), "host")
    assert memory["kind"] == "peak RSS growth" and 115e6 < memory["bytes"] < 160e6


def test_memory_of_other_processes_is_what_the_side_says():
    _, memory = measure.memory_of(lambda: lambda: Step(1.0, memory=7), lambda side: measure.take_turn(side, 1), "host")
    assert memory == {"kind": "peak PSS of its processes", "bytes": 7}


def test_compiling_is_seen():
    import jax
    import jax.numpy as jnp

    with measure.compile_seconds() as spent:
        assert spent() == 0.0
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((17, 19))).block_until_ready()
        within = spent()
        assert within > 0.0
    jax.jit(lambda x: jnp.cos(x) @ jnp.sin(x).T)(jnp.ones((19, 17))).block_until_ready()
    assert spent() == within


def test_the_peak_is_of_a_product_on_this_device():
    assert 1e6 < measure.matmul_peak("float32", 64) < 1e15


WORK = Work(
    counted="words",
    ours=lambda: lambda: Step(10.0, 2.0, loss=1.0),
    variants={"alone": lambda: lambda: Step(10.0, 1.0)},
    peers={"other": lambda: lambda: Step(10.0, 4.0, also={"Spearman": 0.5})},
    flops=50.0,
    executed=20.0,
    on="host",
    notes={"vocabulary": 7},
)


def test_the_line_says_everything(monkeypatch):
    peaks = iter([400.0, 1000.0])
    monkeypatch.setattr(measure, "matmul_peak", lambda dtype, size: next(peaks))
    line = measure.measure("toy", WORK, turns=2, compare=True, say=lambda text: None)
    assert line["rate"] == {"median": 5.0, "low": 5.0, "high": 5.0}
    assert line["variants"]["alone"]["rate"]["median"] == 10.0
    assert line["ratio"] == {"other": 2.0} and line["ratio_of_processor"] == {"other": None}
    # Five words a second of 20 FLOPs each, beside the better of two peaks.
    assert line["peak_flops"] == [400.0, 1000.0] and line["fraction_of_peak"] == 0.1
    assert (line["counted"], line["flops"], line["flops_executed"], line["notes"]) == (
        "words",
        50,
        20,
        {"vocabulary": 7},
    )
    assert json.loads(json.dumps(line)) == line


def test_peers_wait_for_compare(monkeypatch):
    monkeypatch.setattr(measure, "matmul_peak", lambda dtype, size: 1e9)
    line = measure.measure("toy", WORK, turns=1, say=lambda text: None)
    assert line["peers"] == {} == line["ratio"] and set(line["variants"]) == {"alone"}


def test_every_item_is_rendered_alike(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "matmul_peak", lambda dtype, size: 1e9)
    line = measure.measure("toy", WORK, turns=1, compare=True, say=lambda text: None)
    line["load_average"] = [0.5, 1.25]
    records.write("bench_toy", line | {"figures": measure.figures(line)}, tmp_path)
    rows = [row for row in report.ledger(report.read_records(tmp_path), []).splitlines() if "bench_toy" in row]
    shown = [tuple(cell.strip() for cell in row.strip("|").split("|")[1:3]) for row in rows]
    assert shown[:4] == [
        ("ctxjax at load 1.2", "5 (5 to 5) words/s"),
        ("alone at load 1.2", "10 (10 to 10) words/s"),
        ("other at load 1.2", "2.5 (2.5 to 2.5) words/s"),
        ("ratio to other", "2"),
    ]
    assert ("Spearman, other", "0.5") in shown and "peak RSS growth" in dict(shown)


def test_no_products_no_peak():
    line = measure.measure("toy", Work("words", lambda: lambda: Step(1.0, 1.0), on="host"), 1, say=lambda text: None)
    assert line["peak_flops"] == [] and line["fraction_of_peak"] is None
    assert "fraction of peak" not in measure.figures(line)


@pytest.mark.parametrize("steps, amount", [(0, 3.0), (5, 5.0)])
def test_steps_are_the_works_unless_told(steps, amount):
    counted = []
    work = Work("words", lambda: lambda: counted.append(1) or Step(1.0), on="host", steps=3)
    line = measure.measure("toy", work, turns=2, steps=steps, say=lambda text: None)
    assert line["steps"] == amount and len(counted) == 3 * amount  # one turn to warm up
