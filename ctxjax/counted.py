"""Runs without gradients: n-grams are counted in one pass over a corpus, into a run folder like any other.

The table of counts is a checkpoint at step 1, the only step there is. A run that was killed while it counted begins
again; one that is done has nothing left to do.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from ctxjax import config as configs
from ctxjax import metrics, paths, records, tree
from ctxjax.checkpoint import Checkpoints
from ctxjax.config import ConfigError
from ctxjax.data.corpus import Corpus
from ctxjax.digests import step_folder
from ctxjax.folders import read_meta
from ctxjax.ngrams import counting, smoothing
from ctxjax.ngrams.loaded import marks
from ctxjax.ngrams.model import NGrams
from ctxjax.progress import Log, clock
from ctxjax.step import TrainState

TOKENS_AT_ONCE = 1 << 20
FIELDS = ("model", "source", "evals")


def is_counted(config: Any) -> bool:
    """Whether a config is of a model that is counted, not trained."""
    return "model" in config and "name" in config.model and config.model.name == "ngram"


def validate(config: Any) -> None:
    """Check everything that can be checked without the data.

    Raises:
      ConfigError: one sentence that names the field.
    """
    for field in FIELDS:
        if field not in config:
            raise ConfigError(f"the config has no field {field!r}, which a run of counts needs")
    if not config.source.corpus:
        raise ConfigError(
            "config.source.corpus is empty: name a corpus made by python -m ctxjax.prepare, "
            "as in --config.source.corpus=DIR"
        )
    if not 1 <= config.model.order <= 12:
        raise ConfigError(f"config.model.order={config.model.order} is not between 1 and 12")
    smoothing.check(config.model.smoothing, config.model.k)


def train(config: Any, workdir: str | os.PathLike[str]) -> int:
    """Count, smooth, save and evaluate; returns the exit code.

    Raises:
      ConfigError: a mistake in the config, or a run folder of another run.
    """
    validate(config)
    folder = paths.at(workdir)
    corpus = Corpus(config.source.corpus, config.source.split)
    held = {name: Corpus(config.source.corpus, fields.split) for name, fields in config.evals.items()}
    marks(corpus.tokenizer)  # or an error
    about = configs.to_dict(config)
    checkpoints = Checkpoints(folder / "checkpoints")
    if checkpoints.steps():
        return _nothing_to_do(checkpoints, about, corpus, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(paths.Mirror(folder)) as mirror, contextlib.closing(Log(mirror.folder)) as log:
        return _count(config, about, corpus, held, checkpoints, mirror, log)


def _count(
    config: Any, about: Any, corpus: Corpus, held: Any, checkpoints: Checkpoints, mirror: paths.Mirror, log: Log
) -> int:
    bos, eos = marks(corpus.tokenizer)
    began = time.perf_counter()
    log(f"counting {config.model.order}-grams of {corpus.num_tokens:,} tokens in {corpus.num_sentences:,} sentences")
    vocab_size = len(corpus.tokenizer)
    with tempfile.TemporaryDirectory(prefix=".counting-", dir=mirror.folder) as spill:
        counter = counting.Counter(config.model.order, vocab_size, bos, eos, pathlib.Path(spill))
        for tokens, lengths in _with_bar(corpus):
            counter.add(tokens, lengths)
        log(f"counted {counter.events:,} n-grams in {clock(time.perf_counter() - began)}; smoothing")
        grams = counting.all_orders(counter.finish(), config.model.order, bos)
    tables, notes = smoothing.estimate(grams, vocab_size, bos, config.model.smoothing, config.model.k)
    for note in notes:
        log(note)
    sizes = [len(gram.words) for gram in grams]
    del grams
    log("distinct " + ", ".join(f"{n}-grams {size:,}" for n, size in enumerate(sizes, start=1)))
    model = NGrams(tables, vocab_size, config.model.order, bos, eos, config.model.smoothing, config.model.k)
    evaluation = evaluate(model, held, log)
    (mirror.file("metrics.jsonl")).unlink(missing_ok=True)  # of a run that was killed right here
    writer = metrics.JsonLines(mirror.file("metrics.jsonl"))
    writer.write(1, evaluation | {"tokens": counter.events})
    writer.close()
    payload = {
        "config": about | {"source": about["source"] | {"corpus": pathlib.Path(config.source.corpus).name}},
        "steps": 1,
        "tokens": counter.events,
        "parameters": sum(array.size for name, array in tables.items() if not name.endswith(("parent", "word"))),
        "train": {"n-grams": sizes},
        "evaluation": evaluation,
        "wall_seconds": round(time.perf_counter() - began, 1),
        "data": corpus.fingerprint,
    }
    mirror.upload()
    folder = checkpoints.folder.parent
    records.write_json(folder / "record.json", records.stamp("train", payload))
    _save(checkpoints, tables, about, corpus, folder)  # last: with it the run is done
    log("done")
    return 0


def _nothing_to_do(checkpoints: Checkpoints, about: Any, corpus: Corpus, folder: epath.Path) -> int:
    meta = read_meta(step_folder(checkpoints.folder, checkpoints.steps()[-1]))
    old = meta["config"]
    if old["model"] != about["model"] or meta["data"] != corpus.fingerprint:
        raise ConfigError(f"{folder} holds another run's counts; use another --workdir")
    print(f"nothing to do: {folder} is counted", file=sys.stderr)
    return 0


def _with_bar(corpus: Corpus) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whole sentences, about a million tokens at a time."""
    from tqdm import tqdm

    with tqdm(total=corpus.num_tokens, unit="token", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for tokens, lengths in sentences(corpus):
            yield tokens, lengths
            bar.update(len(tokens))


def sentences(corpus: Corpus, at_once: int = TOKENS_AT_ONCE) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens of whole sentences and the length of each, in order, `at_once` tokens or one sentence at a time."""
    first = 0
    while first < corpus.num_sentences:
        goal = int(corpus.sentence_tokens[first]) + at_once
        last = max(first + 1, int(np.searchsorted(corpus.sentence_tokens, goal, "right")) - 1)
        tokens, _ = corpus.read(first, last)
        yield tokens, np.diff(corpus.sentence_tokens[first : last + 1])
        first = last


def evaluate(model: NGrams, splits: Mapping[str, Corpus], log: Callable[[str], None]) -> dict[str, float]:
    """Perplexity of every word and sentence end of some splits."""
    found: dict[str, float] = {}
    for name, corpus in splits.items():
        total, count, never = 0.0, 0, 0
        for tokens, lengths in sentences(corpus):
            values = np.concatenate(model.log_probs(np.split(tokens, np.cumsum(lengths)[:-1])))
            total, count, never = total + values.sum(), count + len(values), never + int(np.isneginf(values).sum())
        mean = -total / count
        found[f"{name}/lm"] = mean
        found[f"{name}/lm_perplexity"] = float(np.exp(mean))
        found[f"{name}/tokens"], found[f"{name}/impossible"] = count, never
        log(f"{name}: perplexity {np.exp(mean):.2f} over {count:,} tokens" + (f", {never:,} impossible" * (never > 0)))
    return found


def _save(checkpoints: Checkpoints, tables: Any, about: Any, corpus: Corpus, folder: epath.Path) -> None:
    corpus.tokenizer.save(folder / "tokenizer")
    records.write_json(folder / "config.json", about)
    files = {f"tokenizer/{path.name}": path for path in sorted((folder / "tokenizer").iterdir())}
    meta = {
        "config": about,
        "data": corpus.fingerprint,
        "tokenizer": corpus.tokenizer.digest(),
        "code": {"commit": records.commit(), **records.versions()},
    }
    params = tree.unflatten({name: jnp.asarray(array) for name, array in tables.items()})
    state = TrainState(step=jnp.ones((), jnp.int32), params=params, opt_state=())
    checkpoints.save(1, state, meta, files, block=True)
    checkpoints.close()
