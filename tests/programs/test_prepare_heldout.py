"""`python -m ctxjax.prepare --heldout_input`: a held-out text of its own, kept apart, in order and to the token."""

import os
import pathlib
import random

import pytest

from ctxjax.config import ConfigError
from ctxjax.data import corpus
from tests.programs.test_prepare import run


def treebank(folder):
    """Lines in the form of the Penn Treebank's: tokenised, with <unk>, blanks at both ends; two texts."""
    rng = random.Random(0)
    words = ["<unk>", "N", "'s", "n't", "$", "mr.", *("".join(rng.choices("etaoins", k=4)) for _ in range(60))]
    paths = []
    for name, count in (("train", 500), ("valid", 90)):
        lines = [" " + " ".join(rng.choices(words, k=rng.randint(1, 25))) + " \n" for _ in range(count)]
        (folder / f"{name}.txt").write_text("".join(lines))
        paths.append(folder / f"{name}.txt")
    return paths


def test_a_heldout_text_of_its_own_is_kept_apart_in_order_and_to_the_token(tmp_path):
    train, valid = treebank(tmp_path)
    options = ["--format", "sentences", "--tokenizer", "words", "--word_split", "whitespace"]
    run(train, tmp_path / "out", "--heldout_input", str(valid), *options, options=[])
    for split, path in (("train", train), ("heldout", valid)):
        made, lines = corpus.Corpus(tmp_path / "out", split), path.read_text().splitlines()
        assert made.num_documents == 1 and made.num_sentences == len(lines)
        assert made.num_tokens == sum(len(line.split()) for line in lines)
        ids, surfaces = made.read(0, len(lines))
        tokenizer = made.tokenizer
        assert [tokenizer.pieces[i] for i in ids] == [
            word if word in tokenizer.pieces else "<UNK>" for line in lines for word in line.split()
        ]
        assert set(surfaces) == {"<unk>"} and "<unk>" not in tokenizer.pieces
    assert len(tokenizer) == 3 + len(set(train.read_text().split()) - {"<unk>"})
    with pytest.raises(ConfigError, match="prepared with other --heldout_input files or contents"):
        run(train, tmp_path / "out", "--heldout_input", str(train), *options, options=[])
    with pytest.raises(ConfigError, match="leave one of them out"):
        run(train, tmp_path / "other", "--heldout_input", str(valid), *options, options=["--heldout", "0.1"])


@pytest.mark.real_data
def test_the_penn_treebank_has_its_published_number_of_tokens(tmp_path):
    data = pathlib.Path(os.environ["CTXJAX_DATA"], "lm")
    options = ["--format", "sentences", "--tokenizer", "words", "--word_split", "whitespace"]
    train = ["--heldout_input", str(data / "ptb.valid.txt"), *options]
    run(data / "ptb.train.txt", tmp_path / "ptb", *train, options=[])
    run(
        data / "ptb.test.txt",
        tmp_path / "test",
        *options[:2],
        "--vocab",
        str(tmp_path / "ptb" / "tokenizer"),
        options=[],
    )
    counts = {
        (name, split): (made := corpus.Corpus(tmp_path / name, split)).num_tokens + made.num_sentences
        for name, split in (("ptb", "train"), ("ptb", "heldout"), ("test", "train"))
    }
    assert counts == {("ptb", "train"): 929_589, ("ptb", "heldout"): 73_760, ("test", "train"): 82_430}
    assert len(corpus.Corpus(tmp_path / "ptb").tokenizer) == 10_001  # the published 10,000 and <S>
