"""Writers, the reader that forgets what a resume made void, the ledger, and run records."""

import json
import math
import os
import time

import numpy as np
import pytest

from ctxjax import metrics, records
from ctxjax.types import Mean


def test_json_lines_survive_a_kill_within_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = metrics.JsonLines(path)
    writer.write(1, {"loss": 2.5, "bad": float("nan"), "worse": float("inf")})
    writer.close()
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')  # torn
    writer = metrics.JsonLines(path)
    writer.write(3, {"loss": 2.0})
    writer.close()
    for line in (path.read_text().splitlines()[0], path.read_text().splitlines()[-1]):
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    lines = metrics.read(path)
    assert [line["step"] for line in lines] == [1, 3]
    assert math.isnan(lines[0]["bad"]) and lines[0]["worse"] == math.inf


def test_what_a_resume_made_void_is_left_out(tmp_path):
    writer = metrics.JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": float(step)})
    writer.event({"resumed": 2})
    writer.write(3, {"loss": 30.0})
    writer.event({"session": {"wall": 1.0}})
    writer.close()
    assert [(line["step"], line["loss"]) for line in metrics.read(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert len(metrics.read(tmp_path, everything=True)) == 7


def test_tensorboard_events_can_be_read_back(tmp_path):
    writers = metrics.make_writers(tmp_path, {}, tensorboard=True)
    for writer in writers:
        writer.write(7, {"loss": 1.25})
        writer.close()
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert b"loss" in events.read_bytes() and np.float32(1.25).tobytes() in events.read_bytes()


def test_wandb_gets_the_numbers_and_continues_under_its_id(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finish")

    class FakeWandb:
        @staticmethod
        def init(**fields):
            calls.append(fields)
            return Run()

    monkeypatch.setitem(__import__("sys").modules, "wandb", FakeWandb)
    for _ in range(2):
        writer = metrics.Wandb(tmp_path, {"seed": 1})
        writer.write(3, {"loss": 1.0})
        writer.close()
    assert calls[0]["id"] == calls[3]["id"] and calls[0]["resume"] == "allow" and calls[0]["config"] == {"seed": 1}
    assert calls[1] == (3, {"loss": 1.0}) and calls[2] == "finish"


def test_means_are_weighed_and_perplexities_taken_at_the_very_end():
    first = {"a": Mean(np.float32(6.0), np.float32(3.0)), "b": Mean(np.float32(1.0), np.float32(1.0))}
    second = {"a": Mean(np.float32(4.0), np.float32(1.0)), "b": Mean(np.float32(3.0), np.float32(1.0))}
    values = metrics.summarize(metrics.add_terms(metrics.add_terms(None, first), second), ("a", "b"))
    assert values["a"] == 2.5 and values["b"] == 2.0
    assert values["a_perplexity"] == pytest.approx(math.exp(2.5)) and values["perplexity"] == pytest.approx(
        math.exp(2.25)
    )
    assert metrics.summarize({"a": Mean(np.float64(1e6), np.float64(1.0))}, ("a",))["a_perplexity"] == math.inf
    assert math.isnan(metrics.summarize({"a": Mean(np.float64(0), np.float64(0))}, ("a",))["a_perplexity"])


def test_the_ledger_adds_up():
    ledger = metrics.Ledger()
    with ledger("outer"):
        time.sleep(0.05)
        with ledger("inner"):
            time.sleep(0.1)
        time.sleep(0.05)
    time.sleep(0.05)
    found = ledger.summary()
    assert found["inner"] == pytest.approx(0.1, abs=0.05) and found["outer"] == pytest.approx(0.1, abs=0.05)
    assert sum(value for name, value in found.items() if name != "wall") == pytest.approx(found["wall"], rel=0.01)


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v4", 275e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("cpu", None),
    ],
)
def test_peaks_by_device_kind(kind, peak):
    assert metrics.peak_flops(kind) == peak


def test_a_record_says_what_is_needed_and_nothing_of_the_host(tmp_path):
    first = records.write("bench_x", {"tokens_per_second": 5.0}, tmp_path)
    second = records.write("bench_x", {"tokens_per_second": 6.0}, tmp_path)
    assert first != second and {first, second} == set(tmp_path.iterdir())
    record = json.loads(first.read_text())
    assert record["tokens_per_second"] == 5.0 and record["name"] == "bench_x"
    assert {"date", "commit", "versions", "hardware"} <= set(record)
    assert record["versions"]["jax"] and record["hardware"]["devices"] == 8 and record["hardware"]["cores"] >= 1
    for secret in (os.uname().nodename, str(tmp_path), str(records.ROOT)):
        assert secret not in first.read_text()


def test_a_record_is_whole_or_not_there(tmp_path, monkeypatch):
    records.write_json(tmp_path / "record.json", {"a": 1})
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "record.json", {"a": object()})
    assert json.loads((tmp_path / "record.json").read_text()) == {"a": 1}


def test_records_hold_no_path_of_the_host():
    config = {
        "source": {"tokenizer": "/somewhere/of/mine/tokenizer", "vectors_of": ["/a/elmo", "runs/bert"]},
        "lr": 0.1,
    }
    found = records.without_paths(config | {"pattern": "^(embed|layer_)/"})
    assert found["source"] == {"tokenizer": "tokenizer", "vectors_of": ["elmo", "runs/bert"]}
    assert found["lr"] == 0.1 and found["pattern"] == "^(embed|layer_)/"
