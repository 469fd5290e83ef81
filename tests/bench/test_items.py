"""Every item of the benchmarks is listed, builds where shapes are tiny, and gives one line with all fields."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys

import jax
import pytest

import experiments.bench as package
from ctxjax import rngs, tree
from ctxjax.config import ConfigError
from ctxjax.step import init_state, make_train_step
from experiments.bench import __main__ as bench
from experiments.bench import bert, measure, programs, start, training
from experiments.bench.training import Settings

FIELDS = {
    *("item", "device", "dtype", "counted", "turns", "steps", "rate", "seconds", "rate_of_processor", "loss", "also"),
    *(
        "fraction_of_peak",
        "peak_flops",
        "flops",
        "flops_executed",
        "memory",
        "compile_seconds",
        "load_average",
        "cores",
    ),
    *("variants", "peers", "ratio", "ratio_of_processor", "notes"),
}
FAST = ("bert_tiny", "bert_base_512", "lstm_1152", "glove")
# name: parameters as published, without the biLM's softmax
LARGE = {
    "bert_base_128": 110_106_428,
    "bert_base_512": 110_106_428,
    "bert_large_512": 336_226_108,
    "gpt2_small_1024": 124_439_808,
    "bilm_published": 93_600_848,
}


def test_every_kind_of_work_is_there():
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"experiments.bench.{name}") for name in names]
    assert {module for module in modules if hasattr(module, "ITEMS")} == set(bench.KINDS)
    assert len(bench.ITEMS) == sum(len(kind.ITEMS) for kind in bench.KINDS)  # no name twice


def test_the_list_and_the_help_import_nothing_heavy():
    look = "import sys, experiments.bench.__main__ as bench; bench.main(['--list']); "
    look += "print(sorted({'jax', 'flax', 'torch', 'transformers', 'gensim'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    *listed, heavy = done.stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(bench.ITEMS) and heavy == "[]"
    assert all(len(line.split()) > 2 for line in listed)


@pytest.mark.parametrize("name", bench.ITEMS)
def test_every_item_builds_where_shapes_are_tiny(name):
    work = bench.ITEMS[name].make(name, Settings(tiny=True))
    assert work.counted and work.steps > 0 and work.flops >= 0 and callable(work.ours)
    if "float" in bench.ITEMS[name].ITEMS[name]:  # steps of training are products
        assert work.flops > 0 and work.dtype in bench.ITEMS[name].ITEMS[name]
    assert json.dumps(dict(work.notes))
    assert work.peers or name == "glove" or work.flops == 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in bench.ITEMS]
)
def test_one_turn_gives_one_line_with_all_fields(name, capsys, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # which is set, and here set back
    for variable in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(variable, os.environ.get(variable, "1"))
    assert bench.main([name, "--tiny", "--turns", "1", "--steps", "1"]) == 0
    (printed,) = capsys.readouterr().out.splitlines()
    line = json.loads(printed)
    assert set(line) == FIELDS
    assert line["item"] == name and line["rate"]["low"] <= line["rate"]["median"] <= line["rate"]["high"]
    assert line["rate"]["median"] > 0 and line["seconds"] > 0 and line["memory"]["bytes"] > 0
    assert (line["fraction_of_peak"] is None) == (line["flops"] == 0) == (line["peak_flops"] == [])
    assert measure.figures(line)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "512" in name else []) for name in LARGE]
)
def test_sizes_of_an_accelerator_are_right_by_shape(name, monkeypatch):
    with pytest.raises(ConfigError, match=f"{name} is of a size for an accelerator"):
        bench.ITEMS[name].make(name, Settings())
    made = {}
    monkeypatch.setattr(training, "need_accelerator", lambda name, settings: None)
    monkeypatch.setattr(training, "our_step", lambda *args: made.update(args=args))
    bench.ITEMS[name].make(name, Settings()).ours()
    model, objective, rule, batch, amount, *lanes = made["args"]
    assert model.dtype == "bfloat16" and model.param_dtype == "float32"
    from ctxjax import optim

    root = rngs.root_key(0)
    params = jax.eval_shape(lambda inputs: model.init(root, inputs, method="touch")["params"], batch["inputs"])
    softmax = tree.count(params["head"]) if name == "bilm_published" else 0
    assert tree.count(params) - softmax == LARGE[name]
    tx, _ = optim.make_optimizer(100, params, **rule)
    state = jax.eval_shape(lambda inputs, key: init_state(model, tx, inputs, key, *lanes), batch["inputs"], root)
    new, metrics = jax.eval_shape(make_train_step(model, objective, tx), state, batch, root)
    assert tree.diff(state, new) == [] and metrics["loss"].shape == ()
    assert amount == batch["inputs"]["tokens"].size / (2 if name == "bilm_published" else 1)


def test_mistakes_are_one_sentence(capsys):
    with pytest.raises(ConfigError, match=r"no item 'bert_mimi'.*bert_mini"):
        bench.main(["bert_mimi"])
    with pytest.raises(SystemExit):
        bench.main([])
    with pytest.raises(SystemExit):
        bench.main(["bert_tiny", "--turns", "0"])
    assert "--turns is at least 1" in capsys.readouterr().err


def test_scores_need_text_and_pairs(monkeypatch):
    monkeypatch.delenv("CTXJAX_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"similarity_cbow needs --corpus .* CTXJAX_DATA"):
        bench.ITEMS["similarity_cbow"].make("similarity_cbow", Settings(corpus="somewhere"))


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(
        ConfigError, match=r"the peers of bert_tiny need torch, transformers; pip install -e \.\[bench\]"
    ):
        bench.main(["bert_tiny", "--tiny", "--compare"])


def test_several_items_have_a_process_each(monkeypatch):
    ran = []
    monkeypatch.setattr(
        bench.subprocess,
        "run",
        lambda command: ran.append(command[3:]) or subprocess.CompletedProcess(command, "x" in command),
    )
    assert bench.main(["bert_tiny", "--tiny", "bert_mini", "--turns", "2"]) == 0
    assert ran == [["bert_tiny", "--tiny", "--turns", "2"], ["bert_mini", "--tiny", "--turns", "2"]]


def test_a_record_is_written_unless_it_is_not_wanted(monkeypatch, capsys):
    written = []
    monkeypatch.setattr("ctxjax.records.write", lambda name, payload: written.append((name, payload)) or "there")
    monkeypatch.setattr(bench, "measured", lambda name, options: measure.measure(name, WORK, 1, say=lambda text: None))
    assert bench.main(["bert_tiny", "--no-record"]) == bench.main(["bert_tiny", "--tiny"]) == 0 and not written
    assert bench.main(["bert_tiny"]) == 0
    ((name, payload),) = written
    assert name == "bench_bert_tiny" and payload["figures"] and len(capsys.readouterr().out.splitlines()) == 3


WORK = measure.Work("tokens", lambda: lambda: measure.Step(1.0, 1.0), on="host")


def test_a_first_step_is_seen_when_its_line_is_whole(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert not start.reached(file, 2)
    file.write_text('{"step": 1, "loss": 3.0}\n{"resumed": 2}\n{"step": 2, "heldout/mlm": 1.0}\n{"step": 2, "loss')
    assert not start.reached(file, 2) and start.reached(file, 1)
    with open(file, "a") as more:
        more.write('": 2.0}\n')
    assert start.reached(file, 2)


def test_a_program_that_fails_is_named(capfd):
    seconds, peak, seen = programs.run(["ctxjax.inspect", "--help"], watch=lambda: True)
    assert seconds > (seen or 0.0) >= 0.0 and peak > 1_000_000
    with pytest.raises(ConfigError, match=r"ctxjax\.inspect failed with exit code 2"):
        programs.run(["ctxjax.inspect", "--no-such-flag"])
    captured = capfd.readouterr()
    assert "usage" in captured.err and captured.out == ""


def test_masked_places_are_distinct_and_rising():
    places = bert.batch_of(4, 16, 5, 97)["target_positions"]
    assert places.shape == (4, 5) and (places[:, 1:] > places[:, :-1]).all() and places.max() < 16
