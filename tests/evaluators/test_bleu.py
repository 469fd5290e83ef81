"""BLEU of a run, its translations in a file, and the same translations by `ctxjax.load`."""

import json
import sys

import jax
import numpy as np
import pytest

import ctxjax
from ctxjax import beam_search, evaluate, loop
from ctxjax import config as configs
from ctxjax.beam_search import Hypothesis
from ctxjax.config import ConfigError
from ctxjax.data.generated import generated_corpus, pairs
from ctxjax.data.sources import translation
from ctxjax.evaluators import bleu
from ctxjax.models import gpt2, transformer

CONFIG = "experiments/transformer/pretrain.py:smoke"
GIVEN = {"objective": None, "mesh": None, "train_batch_size": 8}


def opened(split):
    return translation.Source(generated_corpus("byte_bpe", pairs=True), split, length=48)


def made(**fields):
    return bleu.Evaluator(model=transformer.tiny(), open_source=opened, **GIVEN, **fields)


@pytest.fixture
def texts(tmp_path):
    found = list(pairs(2, seed=1))
    for side, name in enumerate(("a", "b")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in found))
    return {"source": str(tmp_path / "a"), "target": str(tmp_path / "b")}, found


def test_perfect_translations_score_a_hundred_and_worse_ones_what_sacrebleu_says(texts, tmp_path, monkeypatch):
    sacrebleu = pytest.importorskip("sacrebleu")
    fields, found = texts
    spoilt = [told if number % 2 else " ".join(told.split()[1:]) for number, (_, told) in enumerate(found)]
    for targets, wanted in (([told for _, told in found], 100.0), (spoilt, None)):
        ids = [opened("train").tokenizer.encode(text).ids for text in targets]
        monkeypatch.setattr(
            beam_search, "search", lambda *_, ids=ids, **__: ((n, [Hypothesis(one, 0.0)]) for n, one in enumerate(ids))
        )
        got = made(**fields, output=str(tmp_path / "out")).run({})
        theirs = sacrebleu.corpus_bleu(targets, [[told for _, told in found]])
        assert got["bleu"] == pytest.approx(wanted or theirs.score) and got["length_ratio"] <= 1
        assert (tmp_path / "out").read_text().splitlines() == targets
    assert 0 < got["bleu"] < 100


def test_a_split_gives_its_own_text(monkeypatch):
    pytest.importorskip("sacrebleu")
    source = opened("heldout")
    evaluator = made(pairs=5)
    assert len(evaluator.sources) == 5
    assert evaluator.references == [source.tokenizer.decode(source.pair(number)[1]) for number in range(5)]


def test_mistakes_are_named(texts, tmp_path, monkeypatch):
    fields, _ = texts
    (tmp_path / "short").write_text("one\n")
    pytest.importorskip("sacrebleu")
    for options, match in (
        ({"source": "x"}, "both source and target"),
        (fields | {"target": str(tmp_path / "short")}, "has .* lines and .*short 1"),
        (fields | {"target": str(tmp_path / "none")}, "none cannot be read"),
    ):
        with pytest.raises(ConfigError, match=match):
            made(**options)
    with pytest.raises(ConfigError, match="a model that translates"):
        bleu.Evaluator(model=gpt2.tiny(), open_source=opened, **GIVEN)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match=r"pip install 'ctxjax\[bleu\]'"):
        made(**fields)


def test_a_run_translates_and_is_scored(texts, tmp_path, capsys):
    """Train, load, translate, evaluate: one and the same text."""
    fields, found = texts
    run = tmp_path / "run"
    config = configs.load(CONFIG)
    with config.unlocked():
        config.update(total="2 steps", save_every="2 steps", eval_every="2 steps", batch_size=8)
        config.evals.heldout.batch_size = 8
        config.model.update(width=16, mlp_dim=16)
    assert loop.train(config, run, devices=jax.devices()[:1]) == 0
    model = ctxjax.load(run)
    assert model.can == ("embed", "translate") and model.kind == "transformer"
    sources = [source for source, _ in found][:4]
    made = model.translate(sources)
    assert len(made) == 4 and all(isinstance(text, str) for text in made)
    assert model.translate(sources[2], beam=4) == made[2:3]
    ids = model.tokenizer.encode(sources[0]).ids
    [vectors] = model.embed(sources[0], align="piece")
    tokens = np.append(ids, model.tokenizer.end_id)[None].astype(np.int32)
    read = model.model.apply({"params": model.params}, {"tokens": jax.numpy.asarray(tokens)}, method="encode").hidden
    np.testing.assert_allclose(vectors.layers, np.concatenate(read), atol=1e-4)
    for method in ("generate", "score", "fill_mask"):
        with pytest.raises(ConfigError, match=f"cannot {method}: its decoder tells a target from a source"):
            getattr(model, method)("a text")
    pytest.importorskip("sacrebleu")
    bleus = {f"--config.evals.bleu.{name}": value for name, value in (fields | {"pairs": 4}).items()}
    others = {"--config.evals.bleu.output": tmp_path / "out", "--config.source.corpus": config.source.corpus}
    others |= {"--config.model.width": 16, "--config.model.mlp_dim": 16}
    spec = ["--workdir", str(run), "--config", f"{CONFIG},bleu", "--only", "bleu"]
    assert evaluate.main([*spec, *(f"{name}={value}" for name, value in (bleus | others).items())]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"step", "bleu/bleu", "bleu/length_ratio"}
    assert (tmp_path / "out").read_text().splitlines() == [" ".join(text.split("\n")).strip() for text in made]
