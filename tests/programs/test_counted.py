"""n-gram runs through the programs: counted, saved, loaded, scored; and the published figures on the Penn Treebank."""

import json
import os
import pathlib

import numpy as np
import pytest

import ctxjax
from ctxjax import config as configs
from ctxjax import metrics, prepare, train
from ctxjax.config import ConfigError
from ctxjax.data.generated import documents, generated_corpus

CONFIG = "experiments/ngram/count.py"


def run(folder, *more):
    return train.main(["--config", f"{CONFIG}:size=trigram,smoke", "--workdir", str(folder), *more])


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted") / "run"
    assert run(folder) == 0
    return folder


def test_a_run_like_any_other(counted, capsys):
    record = json.loads((counted / "record.json").read_text())
    assert record["evaluation"]["heldout/lm_perplexity"] < 15 and record["evaluation"]["heldout/impossible"] == 0
    assert record["config"]["model"]["order"] == 3 and len(record["train"]["n-grams"]) == 3
    assert not list(counted.glob(".counting*"))
    assert metrics.read(counted)[-1]["heldout/lm"] == record["evaluation"]["heldout/lm"]
    assert run(counted) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_another_run_in_its_folder_is_refused(counted):
    with pytest.raises(ConfigError, match="holds another run's counts"):
        run(counted, "--config.model.order=2")


def test_the_perplexity_is_that_of_the_loaded_model(counted):
    model = ctxjax.load(counted)
    sentences = [sentence for text in documents(20, seed=1) for sentence in text]
    values = np.concatenate(model.log_probs(sentences))
    record = json.loads((counted / "record.json").read_text())["evaluation"]
    assert record["heldout/tokens"] == len(values)
    assert record["heldout/lm"] == pytest.approx(-values.mean(), rel=1e-9)


def test_a_fluent_sentence_before_a_scrambled_one(counted):
    model = ctxjax.load(counted)
    rng, right = np.random.default_rng(0), 0
    texts = [sentence.split() for text in documents(40, seed=2) for sentence in text if len(sentence.split()) > 5][:200]
    for words in texts:
        mixed = [*rng.permutation(words[:-1]), words[-1]]
        fluent, scrambled = model.score([words, mixed])
        right += fluent > scrambled or mixed == words
    assert right > 0.97 * len(texts)


def test_what_it_can_and_cannot(counted):
    model = ctxjax.load(counted)
    assert "3-grams" in repr(model)
    one, two = (model.generate(["", "ba"], 12, seed=3) for _ in range(2))
    assert one == two and all(one)
    with pytest.raises(ConfigError, match="cannot embed: n-grams have counts and no vectors"):
        model.embed(["a"])
    with pytest.raises(ConfigError, match="cannot fill_mask"):
        model.fill_mask("a [MASK]")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--config.model.order=0", "config.model.order=0 is not between 1 and 12"),
        ("--config.model.smoothing=katz", "known are add_k, kneser_ney, ml"),
        ("--config.source.corpus=", "config.source.corpus is empty"),
        ("--config.source.corpus=BYTES", "has one mark between texts"),
    ],
)
def test_mistakes_are_named(setting, message, tmp_path):
    setting = setting.replace("BYTES", generated_corpus("byte_bpe"))
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", setting)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_sizes_are_the_orders():
    orders = [configs.load(f"{CONFIG}:size={size}").model.order for size in ("unigram", "bigram", "trigram", "five")]
    assert orders == [1, 2, 3, 5]


@pytest.mark.real_data
@pytest.mark.parametrize(("size", "published"), [("trigram", 148.3), ("five", 141.2)])
def test_the_penn_treebank_as_published(size, published, tmp_path):
    """Mikolov 2012, table 4.1: KN3 148.3, KN5 141.2; SRILM, all n-grams kept."""
    data = pathlib.Path(os.environ["CTXJAX_DATA"]) / "lm"
    prepare.main(
        f"--input {data}/ptb.train.txt --output {tmp_path}/ptb --tokenizer words --word_split whitespace "
        "--format sentences --vocab_size 10100 --heldout 0".split()
    )
    argv = f"--config {CONFIG}:size={size} --workdir {tmp_path}/run --config.source.corpus={tmp_path}/ptb"
    assert train.main([*argv.split(), "--config.evals.heldout.split=train"]) == 0
    model = ctxjax.load(tmp_path / "run")
    texts = (data / "ptb.test.txt").read_text().splitlines()
    values = np.concatenate(model.log_probs(texts))
    assert len(values) == 82_430
    assert np.exp(-values.mean()) == pytest.approx(published, abs=0.1)
