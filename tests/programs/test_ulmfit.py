"""The three stages of ULMFiT one after the other on generated text, and what goes from one to the next."""

import json

import jax
import numpy as np
import pytest

from ctxjax import checkpoint, evaluate, folders, loop, trained
from ctxjax import config as configs
from ctxjax.config import ConfigError
from tests.scripts import opened

HERE = "experiments/ulmfit"


def train(spec, workdir, **settings):
    config = configs.load(f"{HERE}/{spec}")
    configs.override(config, {name.replace("__", "."): str(value) for name, value in settings.items()})
    assert loop.train(config, workdir, devices=jax.devices()[:1]) == 0
    return checkpoint.read(workdir)[0]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The second stage, and a classifier of each direction that begins with it."""
    folder = tmp_path_factory.mktemp("ulmfit")
    language = train("finetune_lm.py:smoke", folder / "lm", total="2 steps")
    short = {"total": "4 steps", "optim__schedule__starts": '["1 steps", "2 steps"]', "source__tokenizer": ""}
    short |= {"optim__thaw": '[["^layer_1/", "1 steps"], ["^(layer_|embed/)", "2 steps"]]'}
    classifiers = {
        direction: train(
            f"classify.py:recipe=script,direction={direction},smoke",
            folder / direction,
            init_from__path=folder / "lm",
            **short,
        )
        for direction in ("forward", "backward")
    }
    return folder, language, classifiers


@pytest.mark.slow
def test_the_classifier_begins_with_the_language_model(stages):
    """At a rate of 0 the encoder would be the language model's: what never thawed in the first step still is."""
    folder, language, classifiers = stages
    log = (folder / "forward" / "train.log").read_text()
    assert "task/classify" in log and "stay fresh" in log
    ours = classifiers["forward"]
    shared = [name for name in ours if name.startswith("params/") and not name.startswith("params/task/")]
    assert shared and all(language[name].shape == ours[name].shape for name in shared)
    assert all(not np.array_equal(language[name], ours[name]) for name in shared)  # all thawed by the end
    assert {name for name in ours if name.startswith("extra/batch_stats/task/classify/")}


@pytest.mark.slow
def test_evaluation_uses_the_statistics_of_the_checkpoint(stages):
    folder, _, _ = stages
    at = folders.find(folder / "forward")
    meta = folders.read_meta(at)
    found = evaluate.evaluate(trained.from_meta(meta, {}), at, meta)
    record = json.loads((folder / "forward" / "record.json").read_text())
    assert found == pytest.approx(record["evaluation"])
    assert found["heldout/error"] + found["heldout/accuracy"] == pytest.approx(100)


@pytest.mark.slow
def test_both_directions_are_averaged(stages):
    """Against probabilities of the evaluator, averaged by hand."""
    folder, _, _ = stages
    from ctxjax.evaluators.label_error import Evaluator

    told = []
    for direction in ("forward", "backward"):
        at = folders.find(folder / direction)
        meta = folders.read_meta(at)
        run, mesh, params = trained.restored(trained.from_meta(meta, {}), at, meta)
        given = {"model": run.model, "objective": None, "open_source": run.open_source, "mesh": mesh}
        evaluator = Evaluator("heldout", **given, train_batch_size=8)
        told.append(evaluator.probabilities(params))
        np.testing.assert_allclose(told[-1].sum(1), 1.0, rtol=1e-5)
        assert len(told[-1]) == evaluator.source.count == 100
    found = opened(f"{HERE}/ensemble.py").ensemble([folder / "forward", folder / "backward"], "heldout")
    wrong = 100 * np.mean(((told[0] + told[1]) / 2).argmax(1) != evaluator.source.targets)
    assert found["mean"] == pytest.approx(wrong) and len(found) == 3
    assert not np.allclose(told[0], told[1])


def test_texts_of_official_layouts(tmp_path):
    texts = opened(f"{HERE}/texts.py")
    trec = tmp_path / "trec"
    trec.mkdir()
    (trec / "TREC.train.all").write_bytes("".join(f"{n % 6} What is n{n} é ?\n" for n in range(40)).encode("latin-1"))
    (trec / "TREC.test.all").write_bytes(b"3 Who ?\n")
    counts = texts.write("topics.trec6", trec, tmp_path / "out")
    assert counts["train"] + counts["heldout"] == 40 and counts["test"] == 1 and 0 < counts["heldout"] < 15
    assert json.loads((tmp_path / "out" / "test.jsonl").read_text()) == {"label": "3", "text": "xbos xfld 1 Who ?"}
    (trec / "TREC.test.all").write_bytes(b"7 Who ?\n")
    with pytest.raises(ConfigError, match=r"TREC\.test\.all, line 1: the label '7' is none of 0, 1"):
        texts.write("topics.trec6", trec, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"glue\.rte does not label single texts"):
        texts.write("glue.rte", trec, tmp_path / "out")
    reviews = tmp_path / "imdb"
    reviews.mkdir()
    for split in ("train", "test"):
        (reviews / f"{split}.jsonl").write_text('{"text": "GREAT<br />fun", "label": 1}\n')
    (reviews / "more.jsonl").write_text('{"text": "So so"}\n')
    counts = texts.write("sentiment.imdb", reviews, tmp_path / "reviews", "fastai", reviews / "more.jsonl")
    assert counts.keys() == {"train", "test", "unlabelled"} or counts.keys() == {"heldout", "test", "unlabelled"}
    assert json.loads((tmp_path / "reviews" / "test.jsonl").read_text())["text"] == "xxbos GREAT\nfun"
    assert json.loads((tmp_path / "reviews" / "unlabelled.jsonl").read_text()) == {"text": "xxbos So so"}


def test_the_curve_of_labels_names_its_stages_and_draws(tmp_path):
    """The commands of every point; the figure from errors that are there."""
    labels = opened(f"{HERE}/labels.py")
    (tmp_path / "texts").mkdir()
    lines = [json.dumps({"label": str(n % 2), "text": f"xbos a{n}"}) + "\n" for n in range(30)]
    (tmp_path / "texts" / "train.jsonl").write_text("".join(lines))
    parser = {
        "task": "sentiment.imdb",
        "texts": tmp_path / "texts",
        "pretrained": tmp_path / "first",
        "output": tmp_path / "out",
    }
    parser |= {"size": "small", "recipe": "paper", "counts": [4, 10], "modes": list(labels.MODES), "lm_epochs": 1}
    options = labels.argparse.Namespace(**parser, epochs=0, batch_size=8)
    (options.output / "texts").mkdir(parents=True)
    labels.write_texts(options)
    four, ten = ((options.output / "texts" / f"{count}.jsonl").read_text().splitlines() for count in (4, 10))
    assert len(four) == 4 and set(four) < set(ten) and len(ten) == 10
    assert [title for title, _ in labels.prepare_stages(options)] == ["prepare all", "prepare 4", "prepare 10"]
    for corpus, tokens in (("all", 90_000), ("4", 300), ("10", 700)):
        path = options.output / "corpora" / corpus
        path.mkdir(parents=True)
        about = {"tokenizer": {"pieces": 77}, "splits": {"train": {"tokens": tokens}}}
        (path / "manifest.json").write_text(json.dumps(about))
    stages = dict(labels.train_stages(options))
    assert len(stages) == 3 + 6
    assert (
        "--config.batch_size=2" in stages["language model, 4"]
        and "--config.batch_size=16" in stages["language model, all"]
    )
    assert "--config.source.limit=10" in stages["classifier, supervised, 10 labels"]
    assert f"--config.init_from.path={options.output / 'lm' / '10'}" in stages["classifier, supervised, 10 labels"]
    assert any("recipe=scratch" in argument for argument in stages["classifier, scratch, 4 labels"])
    for arguments in stages.values():
        config = configs.load(arguments[arguments.index("--config") + 1])
        flags = [
            argument.removeprefix("--config.").split("=", 1)
            for argument in arguments
            if argument.startswith("--config.")
        ]
        configs.override(config, dict(flags))
    labels.write_curve(options, {mode: [30.0, 20.0] for mode in labels.MODES})
    assert (options.output / "curve.png").stat().st_size > 5000
    assert json.loads((options.output / "curve.json").read_text())["error"]["scratch"] == [30.0, 20.0]
