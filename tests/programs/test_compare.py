"""compare: figures as scikit-learn and SciPy have them, a difference with its chance, and files that do not fit."""

import json

import numpy as np
import pytest

from ctxjax import compare
from ctxjax.config import ConfigError


def write(path, examples):
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path


def told(rng, count, right):
    """Targets of two labels and predictions that are right so often."""
    gold = np.random.default_rng(0).integers(0, 2, count)
    ours = np.where(rng.random(count) < right, gold, 1 - gold)
    return [{"id": place, "target": int(x), "prediction": int(y)} for place, (x, y) in enumerate(zip(gold, ours))]


def test_figures_are_those_of_scikit_learn_and_scipy():
    metrics = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    examples = told(rng, 40, 0.7)
    drawn = rng.integers(0, 40, 40)
    gold, ours = (np.array([example[name] for example in examples])[drawn] for name in ("target", "prediction"))
    numbers = [
        {"target": float(x), "prediction": float(y)} for x, y in zip(rng.integers(0, 6, 40), rng.normal(size=40))
    ]
    x, y = (np.array([example[name] for example in numbers])[drawn] for name in ("target", "prediction"))
    for name, some, theirs in (
        ("accuracy", examples, metrics.accuracy_score(gold, ours)),
        ("f1", examples, metrics.f1_score(gold, ours)),
        ("matthews", examples, metrics.matthews_corrcoef(gold, ours)),
        ("pearson", numbers, stats.pearsonr(x, y)[0]),
        ("spearman", numbers, stats.spearmanr(x, y)[0]),
    ):
        assert compare.figure_of(compare.SHAPES[2], some, name, "1")(drawn) == pytest.approx(100 * theirs), name


def test_counts_of_spans_give_f1_of_their_sums():
    examples = [{"correct": 1, "told": 2, "gold": 1}, {"correct": 2, "told": 2, "gold": 5}]
    figure = compare.figure_of(compare.SHAPES[1], examples, "", "")
    assert figure(np.array([0, 1])) == pytest.approx(200 * 3 / (4 + 6))
    assert figure(np.array([1, 1])) == pytest.approx(200 * 4 / (4 + 10))


def test_a_table_of_two_systems(tmp_path, capsys):
    good = told(np.random.default_rng(1), 300, 0.9)
    paths = [
        write(tmp_path / "a.jsonl", told(np.random.default_rng(2), 300, 0.7)),
        write(tmp_path / "b.jsonl", good[::-1]),
    ]
    assert compare.main([str(path) for path in paths] + ["--resamples", "500", "--metric", "f1"]) == 0
    first, second = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:4])
    assert first[0].strip() == str(paths[0]) and not first[4].strip()
    assert float(second[2]) > 10 and float(second[4]) < 0.01
    assert float(second[1]) - float(first[1]) == pytest.approx(float(second[2]), abs=1e-4)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda lines: lines[:-1], r"has 2 examples and .*a\.jsonl 3: '2' is in one alone"),
        (lambda lines: [*lines, lines[0]], r"b\.jsonl, line 4: the id 0 was there before"),
        (lambda lines: [{"id": 0, "score": 1}], r"b\.jsonl has score, and .*a\.jsonl has target and prediction"),
        (lambda lines: [{"id": 0}], r"b\.jsonl, line 1: no field 'score'"),
        (lambda lines: [lines[0], {"target": 1, "prediction": 1}], r"b\.jsonl, line 2: no field 'id'"),
        (lambda lines: [lines[0] | {"target": 7}, *lines[1:]], r"the target of '0' is not the one of"),
        (lambda lines: [], r"b\.jsonl holds no example"),
    ],
    ids=range(7),
)
def test_files_that_do_not_fit_are_named(tmp_path, change, words):
    examples = told(np.random.default_rng(0), 3, 0.5)
    paths = write(tmp_path / "a.jsonl", examples), write(tmp_path / "b.jsonl", change(examples))
    with pytest.raises(ConfigError, match=words):
        compare.main([str(path) for path in paths])


def test_a_table_of_records(tmp_path, capsys):
    several = {
        "evaluation": {"dev/f1": 80.0},
        "deviation": {"dev/f1": 1.5},
        "seeds": {"0": {}, "1": {}, "2": {}},
        "failed": {"2": "why"},
    }
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "record.json").write_text(json.dumps(several))
    best = {"by": "highest dev/f1", "step": 3, "figures": {"dev/f1": 70.25}}
    (tmp_path / "y.json").write_text(json.dumps({"evaluation": {"dev/f1": 60.0}, "best": best}))
    assert compare.main([str(tmp_path / "x"), str(tmp_path / "y.json")]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert lines[2:] == [["seeds", "3, of which 1 failed", "1"], ["dev/f1", "80 ± 1.5", "70.25"]]
    with pytest.raises(ConfigError, match="cannot be read as a record"):
        compare.main([str(tmp_path / "z")])


@pytest.mark.slow
def test_what_an_evaluator_tells_of_each_example_has_its_figure(tmp_path, monkeypatch):
    """Sentences of a tagger that tells the truth but for the first ones, through the file and back."""
    import jax

    from ctxjax import config as configs
    from ctxjax import evaluate
    from ctxjax import run as runs

    run = runs.assemble(configs.load("experiments/taglm/tag.py:smoke"))
    evaluator = run.evaluators(runs.make_mesh(run.config, jax.devices()[:1]))["spans"]
    right = [list(one.tags) for one in evaluator.source.sentences]
    told = [["O"] * len(tags) for tags in right[:9]] + right[9:]
    monkeypatch.setattr(evaluator, "told", lambda params: told)
    evaluate.write_examples(tmp_path / "spans.jsonl", evaluator.examples(None))
    shape, found = compare.read_examples(tmp_path / "spans.jsonl")
    figure = compare.figure_of(shape, list(found.values()), "", "")
    assert shape == compare.SHAPES[1] and len(found) == len(right)
    assert figure(np.arange(len(right))) == pytest.approx(evaluator.run(None)["f1"]) and evaluator.run(None)["f1"] < 100
