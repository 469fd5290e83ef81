"""How many words a second word2vec trains on, through the step alone and through the whole pipeline, beside gensim.

    python experiments/bench/vectors.py skipgram|cbow [--corpus DIR] [--compare] [--turns 5] [--cores 2]

The step is `ctxjax.step.make_train_step` of `experiments/word2vec/pretrain.py` (100 dimensions, windows of 1 to 5, 5
negatives, 64 rows of 1,024 words) on a batch of a prepared corpus, or of a generated one without `--corpus`; the
pipeline makes a new batch for every step. Nothing is sub-sampled, so that a word is a word on all sides. `--compare`
takes turns with gensim's C (as many threads as cores), which trains on the words of the pipeline's batches, so that a
busy machine slows all. The floor, in products alone (2 FLOPs a multiply-add), for K = 64 words of a block, C = 74 in
reach of it, N = 32 negatives and D = 100:

    skip-gram   3 x 2 D (C + N) + 2 C N = 68,000 FLOPs a word     three passes of the scores, one mask of negatives
    CBOW        3 x 2 D (C + N + 1)     = 64,000
    tables      2 x 5 M numbers and their gradients, some six passes over memory a step: 240 MB, 3.7 kB a word
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

CONFIG = ROOT / "experiments" / "word2vec" / "pretrain.py"


def make_run(name: str, corpus: str, rows: int) -> Any:
    """The published run of a recipe over a corpus, without sub-sampling."""
    from ctxjax import config as configs
    from ctxjax import run as runs
    from ctxjax.data.corpus import read_manifest
    from ctxjax.data.generated import generated_corpus

    folder = corpus or generated_corpus("words")
    config = configs.load(f"{CONFIG}:recipe={name}")
    pieces = read_manifest(folder)["tokenizer"]["pieces"]
    settings = {"source.corpus": folder, "source.sample": "0.0", "model.vocab_size": str(pieces)}
    configs.override(config, settings | {"batch_size": str(rows)})
    return runs.assemble(config)


def step_of(run: Any) -> Callable[[Any], float]:
    """A compiled step that keeps its state, and waits for the loss."""
    import jax

    from ctxjax import rngs
    from ctxjax.step import make_train_step

    root = rngs.root_key(0)
    state = jax.jit(run.init)(root)
    compiled = jax.jit(make_train_step(run.model, run.objective, run.tx), donate_argnums=0)

    def step(batch: Any) -> float:
        nonlocal state
        state, metrics = compiled(state, batch, root)
        return float(metrics["loss"])

    return step


def peer_of(name: str, run: Any, cores: int) -> Callable[[Any], None]:
    """gensim, which trains on the words of a batch, sentence by sentence."""
    from gensim.models import Word2Vec

    pieces = run.source.tokenizer.pieces
    sg, rate = (1, 0.025) if name == "skipgram" else (0, 0.05)
    model = Word2Vec(vector_size=100, window=5, negative=5, sg=sg, alpha=rate, sample=0.0, workers=cores, min_count=1)
    counts = {word: int(count) for word, count in zip(pieces, run.source.counts) if count}
    model.build_vocab_from_freq(counts)

    def step(sentences: list[list[str]]) -> None:
        model.train(sentences, total_examples=len(sentences), epochs=1)

    return step


def sentences_of(batch: Any, pieces: list[str]) -> list[list[str]]:
    """The words of a batch as gensim takes them."""
    found = []
    for words, numbers, real in zip(batch["inputs"]["tokens"], batch["sentences"], batch["weights"]):
        words, numbers = words[real > 0], numbers[real > 0]
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        found += [[pieces[word] for word in part.tolist()] for part in np.split(words, cuts)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["skipgram", "cbow"])
    parser.add_argument("--corpus", default="", help="of python -m ctxjax.prepare with a word vocabulary")
    parser.add_argument("--compare", action="store_true", help="take turns with gensim")
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each side, after one to warm up")
    parser.add_argument("--rows", type=int, default=64, help="rows of 1,024 words in a step")
    parser.add_argument("--cores", type=int, default=0, help="use this many processor cores; 0: all")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    args = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0))[: args.cores or None]
    os.sched_setaffinity(0, usable)

    from ctxjax import records
    from ctxjax.data import pipeline

    run = make_run(args.name, args.corpus, args.rows)
    step = step_of(run)
    fixed = pipeline.batch_at(run.source, seed=1, batch_size=args.rows, step=0)
    stream: Iterator[Any] = pipeline.batches(run.source, seed=0, batch_size=args.rows)
    peer = peer_of(args.name, run, len(usable)) if args.compare else None
    walls: dict[str, list[float]] = {"step": [], "pipeline": [], **({"gensim": []} if peer else {})}
    words = float(fixed["weights"].sum())
    for turn in range(args.turns + 1):
        took = {}
        start = time.perf_counter()
        step(fixed)
        took["step"] = time.perf_counter() - start
        start = time.perf_counter()
        batch = next(stream)
        step(batch)
        took["pipeline"] = time.perf_counter() - start
        if peer:
            sentences = sentences_of(batch, run.source.tokenizer.pieces)
            start = time.perf_counter()
            peer(sentences)
            took["gensim"] = time.perf_counter() - start
        if turn:
            for side, seconds in took.items():
                walls[side].append(seconds)
    stream.close()
    rates = {side: round(words / statistics.median(seconds)) for side, seconds in walls.items()}
    ranges = {side: [round(words / max(seconds)), round(words / min(seconds))] for side, seconds in walls.items()}
    payload: dict[str, Any] = {
        "bench": f"vectors_{args.name}",
        "words_per_step": words,
        "vocabulary": run.model.vocab_size,
        "cores_used": len(usable),
        "words_per_s": rates,
        "range": ranges,
        "load_average": os.getloadavg()[0],
    }
    if peer:
        payload["ratio"] = round(rates["pipeline"] / rates["gensim"], 2)
    for name, value in payload.items():
        print(f"{name:24} {value}")
    if not args.no_record:
        shown = {f"{side}, words/s at load {payload['load_average']:.1f}": rate for side, rate in rates.items()}
        print(records.write(f"bench_vectors_{args.name}", payload | {"figures": shown}))


if __name__ == "__main__":
    main()
