"""What word vectors are worth after the same text: the similarity score that ours and gensim's reach.

Ours are a whole run (`python -m ctxjax.train`) of the published config, opened by `ctxjax.load`; gensim trains on the
sentences of the same corpus with the same sizes, rates, sub-sampling and passes, and is opened from the file that it
saves. Both are scored by the same evaluator: Spearman's correlation with WordSim-353, of pairs whose words are known.
A turn is a run with a seed of its own. The rate is of the text's words and of the whole command.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from ctxjax.config import ConfigError
from experiments.bench import programs
from experiments.bench.measure import Side, Step, Work
from experiments.bench.training import Settings
from experiments.bench.vectors import CONFIGS, assemble, gensim_model, recipe

OF = {  # gensim has no GloVe
    f"similarity_{name.removeprefix('word2vec_')}": name for name in CONFIGS if name != "glove"
}
ITEMS = {name: f"WordSim-353 after a run of {CONFIGS[of]}" for name, of in OF.items()}
PAIRS = "words/EN-WS-353-ALL.txt"


def make(name: str, settings: Settings) -> Work:
    """The work of an item; see `OF`.

    Raises:
      ConfigError: no corpus or no CTXJAX_DATA, without which there is nothing to score.
    """
    from ctxjax.evaluators.similarity import Evaluator

    if not settings.tiny and not (settings.corpus and os.environ.get("CTXJAX_DATA")):
        raise ConfigError(
            f"{name} needs --corpus FOLDER, a prepared corpus of words, and CTXJAX_DATA with {PAIRS} in it"
        )
    spec, fields = recipe(CONFIGS[OF[name]], settings)
    run = assemble(spec, fields)
    judge = Evaluator(_made_up(run) if settings.tiny else PAIRS)
    return Work(
        counted="words",
        ours=lambda: _ours(spec, fields, run, judge),
        peers={"gensim": lambda: _peer(OF[name], run, judge)},
        needs=("gensim",),
        notes={"vocabulary": run.model.vocab_size, "passes": _passes(run)},
    )


def _passes(run: Any) -> int:
    return max(1, round(run.total_steps / run.steps_per_pass))


def _made_up(run: Any) -> str:
    """A file of pairs of words of a generated corpus, with scores."""
    path = programs.scratch() / "pairs.txt"
    words = [word for word in run.source.tokenizer.pieces if word.isalpha()][:12]
    path.write_text("".join(f"{one}\t{two}\t{number}\n" for number, (one, two) in enumerate(itertools.pairwise(words))))
    return str(path)


def _scored(path: pathlib.Path, judge: Any, words: int, seconds: float, memory: int | None = None) -> Step:
    import ctxjax

    found = judge.run(ctxjax.load(path))
    also = {"Spearman": found["spearman"], "pairs with an unknown word": found["unknown"]}
    return Step(words, seconds, memory=memory, also=also)


def _ours(spec: str, fields: dict[str, str], run: Any, judge: Any) -> Side:
    folder, seeds = programs.scratch(), itertools.count()
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    words = int(run.source.counts.sum()) * _passes(run)

    def step() -> Step:
        seed = next(seeds)
        workdir = folder / str(seed)
        arguments = ["ctxjax.train", "--config", spec, "--workdir", str(workdir), *settings, f"--config.seed={seed}"]
        seconds, peak, _ = programs.run(arguments)
        return _scored(workdir, judge, words, seconds, peak)

    return step


class Sentences:
    """The corpus as gensim reads it, pass after pass."""

    def __init__(self, run: Any):
        self.corpus, self.pieces = run.source.corpus, run.source.tokenizer.pieces

    def __len__(self) -> int:
        return self.corpus.num_sentences

    def __iter__(self) -> Iterator[list[str]]:
        for start, stop in itertools.pairwise(self.corpus.sentence_tokens.tolist()):
            yield [self.pieces[token] for token in self.corpus.read_tokens(start, stop)[0].tolist()]


def _peer(name: str, run: Any, judge: Any) -> Side:
    """gensim's model, trained on the sentences and saved in a layout that `ctxjax.load` opens."""
    folder, seeds = programs.scratch(), itertools.count(1)
    read, passes = Sentences(run), _passes(run)
    words = int(run.source.counts.sum()) * passes

    def step() -> Step:
        seed = next(seeds)
        model = gensim_model(name, run, seed=seed)
        began = time.perf_counter()
        model.train(read, total_examples=len(read), epochs=passes)
        seconds, path = time.perf_counter() - began, folder / f"{seed}.bin"
        if name == "fasttext":
            from gensim.models.fasttext import save_facebook_model

            save_facebook_model(model, str(path))
        else:
            model.wv.save_word2vec_format(str(path), binary=True)
        return _scored(path, judge, words, seconds)

    return step
