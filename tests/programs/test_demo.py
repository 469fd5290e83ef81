"""The counts that the demonstration's models are compared with are distributions, and count what they say."""

import importlib.util
import math
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from ctxjax.data.corpus import Corpus
from ctxjax.data.generated import generated_corpus

DEMO = pathlib.Path(__file__).parents[2] / "experiments" / "demo"


@pytest.fixture(scope="module")
def ngrams():
    spec = importlib.util.spec_from_file_location("ngrams", DEMO / "ngrams.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["ngrams"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ngrams"]


@pytest.fixture(scope="module")
def counts(ngrams):
    return ngrams.Bigram(Corpus(generated_corpus("words")))


def test_every_bigram_distribution_sums_to_one(counts):
    for previous in (0, 5, 17, counts.boundary):
        everything = np.arange(counts.size)
        total = counts._probability(np.full(counts.size, previous), everything).sum()
        assert total == pytest.approx(1.0, abs=1e-9)


def test_pairs_are_the_sentences_with_their_ends(ngrams, counts):
    corpus = Corpus(generated_corpus("words"))
    previous, following = ngrams.token_pairs(corpus, counts.boundary)
    assert len(following) == corpus.num_tokens + corpus.num_sentences
    assert (following == counts.boundary).sum() == corpus.num_sentences
    tokens, _ = corpus.read(0, 1)
    assert following[: len(tokens)].tolist() == tokens.tolist() and previous[0] == counts.boundary


def test_context_helps_where_the_language_has_it(counts):
    held_out = Corpus(generated_corpus("words"), split="heldout")
    for ends in (True, False):
        unigram, bigram = counts.unigram(held_out, ends), counts.bigram(held_out, ends)
        assert bigram.nll < unigram.nll - 1.0 and bigram.accuracy > unigram.accuracy
        assert unigram.nll < math.log(counts.size)


def test_guesses_without_ends_are_never_an_end(counts):
    assert (counts._guesses(ends=False) != counts.boundary).all()
    assert (counts._guesses(ends=True) == counts.boundary).any()


def test_ctrl_c_is_waited_out():
    """The program that runs saves first; whoever started it must not kill it before."""
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (time.sleep(0.8), print('saved', flush=True), sys.exit(130)))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    parent = f"import sys; from ctxjax.stages import run; sys.exit(run(['-c', {child!r}]))"
    started = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert (started.returncode, out, err) == (130, "saved\n", "")
