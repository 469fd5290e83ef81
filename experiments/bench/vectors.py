"""How many words, or pairs of words, a second word vectors train on, through the whole pipeline, beside gensim.

The step is `make_train_step` of the published config (word2vec and fastText: 100 dimensions, windows of 1 to 5, 5
negatives, 64 rows of 1,024 words; GloVe: 300 dimensions, 16 rows of 1,024 pairs) on a prepared corpus (`--corpus`) or a
generated one. A new batch is made for every step; "step alone" is the same step on one batch. Nothing is sub-sampled,
so that a word is a word on all sides. The peer is gensim's C, with as many threads as cores, on the words of the same
batches; it has no GloVe. The floor of word2vec, in products alone (2 FLOPs a multiply-add), for K = 64 words of a
block, C = 74 in reach of it, N = 32 negatives and D = 100:

    skip-gram   3 x 2 D (C + N) + 2 C N = 68,000 FLOPs a word     three passes of the scores, one mask of negatives
    CBOW        3 x 2 D (C + N + 1)     = 64,000
    tables      2 x 5 M numbers and their gradients, some six passes over memory a step: 240 MB, 3.7 kB a word
    GloVe       3 x 2 D = 1,800 FLOPs a pair; its two rows, their gradients and accumulators are the work
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.bench import programs, training
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings

CONFIGS = {  # config file and argument
    "word2vec_skipgram": "word2vec/pretrain.py:recipe=skipgram",
    "word2vec_cbow": "word2vec/pretrain.py:recipe=cbow",
    "glove": "glove/pretrain.py:size=published",
    "fasttext": "fasttext/pretrain.py:size=published",
}
ITEMS = {name: f"training of word vectors, {config}" for name, config in CONFIGS.items()}


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `CONFIGS`."""
    from ctxjax.data import pipeline

    spec, fields = recipe(CONFIGS[name], settings)
    run = assemble(spec, fields | ({} if name == "glove" else {"source.sample": "0.0"}))
    rows = run.config.batch_size
    fixed = pipeline.batch_at(run.source, seed=1, batch_size=rows, step=0)
    amount = float(fixed["weights"].sum())
    step = functools.cache(lambda: _step_of(run))
    return Work(
        counted="non-zeros" if name == "glove" else "words",
        ours=lambda: _through_pipeline(run, step()),
        variants={"step alone": lambda: _alone(fixed, step())},
        peers={} if name == "glove" else {"gensim": lambda: _peer(name, run)},
        needs=("gensim",),
        flops=training.step_flops(run.objective, run.model, fixed) / amount,
        steps=2,
        notes={"vocabulary": run.model.vocab_size, "corpus": "given" if settings.corpus else "generated"},
    )


def recipe(config: str, settings: Settings) -> tuple[str, dict[str, str]]:
    """A published config over a corpus: what `--config` names, and fields beside it."""
    from ctxjax.data.corpus import read_manifest

    folder = programs.corpus_of(settings.corpus, "words")
    pieces = str(read_manifest(folder)["tokenizer"]["pieces"])
    spec = f"{programs.ROOT / 'experiments' / config}{',smoke' if settings.tiny else ''}"
    return spec, {"source.corpus": folder, "model.vocab_size": pieces}


def assemble(spec: str, fields: dict[str, str]) -> Any:
    """The run of a recipe."""
    from ctxjax import config as configs
    from ctxjax import run as runs

    config = configs.load(spec)
    configs.override(config, fields)
    return runs.assemble(config)


def _step_of(run: Any) -> Callable[[Any], Step]:
    """A compiled step that keeps its state, and waits for the loss."""
    import jax

    from ctxjax import rngs
    from ctxjax.step import make_train_step

    root = rngs.root_key(0)
    state = jax.jit(run.init)(root)
    compiled = jax.jit(make_train_step(run.model, run.objective, run.tx), donate_argnums=0)

    def step(batch: Any) -> Step:
        nonlocal state
        state, metrics = compiled(state, batch, root)
        return Step(float(batch["weights"].sum()), loss=float(metrics["loss"]))

    return step


def _through_pipeline(run: Any, step: Callable[[Any], Step]) -> Side:
    from ctxjax.data import pipeline

    stream = pipeline.batches(run.source, seed=0, batch_size=run.config.batch_size)
    return lambda: step(next(stream))


def _alone(batch: Any, step: Callable[[Any], Step]) -> Side:
    return lambda: step(batch)


def gensim_model(name: str, run: Any, **more: Any) -> Any:
    """gensim's model of the sizes and rates of a run, with its vocabulary."""
    from gensim.models import FastText, Word2Vec

    config = run.config
    kind: Any = Word2Vec
    if "fasttext" in name:
        kind = FastText
        more |= {"bucket": config.model.buckets, "min_n": config.model.shortest, "max_n": config.model.longest}
    model = kind(
        vector_size=config.model.width,
        window=config.source.window,
        negative=config.objective.negatives,
        ns_exponent=config.source.exponent,
        sg=int(config.objective.name == "skipgram"),
        alpha=config.optim.lr,
        sample=config.source.sample,
        workers=len(os.sched_getaffinity(0)),
        min_count=1,
        **more,
    )
    pieces = run.source.tokenizer.pieces
    model.build_vocab_from_freq({word: int(count) for word, count in zip(pieces, run.source.counts) if count})
    return model


def _peer(name: str, run: Any) -> Side:
    """gensim, which trains on the words of the same batches, sentence by sentence; making lists is not its time."""
    from ctxjax.data import pipeline

    model, numbers, pieces = gensim_model(name, run), itertools.count(), run.source.tokenizer.pieces

    def step() -> Step:
        # Not through the pipeline, whose threads would make the next batch while gensim is timed.
        batch = pipeline.batch_at(run.source, seed=0, batch_size=run.config.batch_size, step=next(numbers))
        sentences = _sentences(batch, pieces)
        began = time.perf_counter()
        model.train(sentences, total_examples=len(sentences), epochs=1)
        return Step(float(batch["weights"].sum()), time.perf_counter() - began)

    return step


def _sentences(batch: Any, pieces: list[str]) -> list[list[str]]:
    """The words of a batch as gensim takes them."""
    found = []
    for words, numbers, real in zip(batch["inputs"]["tokens"], batch["sentences"], batch["weights"]):
        words, numbers = words[real > 0], numbers[real > 0]
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        found += [[pieces[word] for word in part.tolist()] for part in np.split(words, cuts)]
    return found
