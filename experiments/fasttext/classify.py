"""fastText's classifier: the mean of a text's words and n-grams of words, under a softmax over labels.

Paper: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification".
Expected: 92.5 % on AG's news with pairs of words, 91.5 % without (table 1, from memory: 10 dimensions).
Hardware and time: 1 second a pass over AG's news on 20 threads of a CPU (table 2).

    python -m ctxjax.train --config experiments/fasttext/classify.py:size=pairs,labels="neg|pos" --workdir runs/labels \
        --config.source.corpus=FOLDER --config.model.vocab_size=N

FOLDER has train.txt and heldout.txt, lines of `__label__NAME words`, or train.jsonl and heldout.jsonl, objects with
`text` and `label`. The number of words and the labels, by falling frequency, must be those of the training texts; where
they are not, the error names them.

Arguments:
    size=published  100 dimensions, a rate of 0.1 that falls to 0, 5 passes, words alone: the released code's defaults.
    size=pairs      10 dimensions, words and pairs of words in 2,000,000 buckets, a rate of 0.25, as in the paper.
    labels          names with | between them (default: neg|pos).
    smoke           20 steps on generated text, in seconds.
A step is a sum over 32 texts, where the original steps after every one.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, run_config

# width, buckets, words of an n-gram, learning rate
SIZES = {"published": (100, 0, 1, 0.1), "pairs": (10, 2_000_000, 2, 0.25)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", labels="neg|pos", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    width, buckets, word_ngrams, lr = SIZES[arg.size]

    config = run_config(every="500 steps")
    config.batch_size = 32
    config.total = "5 epochs"
    config.model = dict(
        name="fasttext",
        vocab_size=50_000,
        width=width,
        depth=0,
        buckets=buckets,
        shortest=0,
        longest=0,
        labels=tuple(arg.labels.split("|")),
        word_ngrams=word_ngrams,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="labels", scale=32.0)  # the texts of a batch: the loss is their sum
    config.source = dict(
        name="labelled_texts",
        corpus="",
        split="train",
        length=256,
        widths=4,
        together=1,
        min_count=1,
        buckets=buckets,
        shortest=0,
        longest=0,
        word_ngrams=word_ngrams,
    )
    config.optim = dict(
        name="sgd",
        lr=lr,
        schedule=dict(name="warmup_linear", end=0.0),
        clip=0.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        row_clip=0.0,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=0, batch_size=32, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Narrow tables and 20 steps on a generated corpus, at a constant rate at which they learn."""
    from ctxjax.data.generated import generated_texts
    from ctxjax.data.sources.labelled_texts import Source

    folder = generated_texts()
    source = Source(folder)
    buckets = min(config.model.buckets, 1000)
    config.model.update(vocab_size=source.vocab_size, width=8, labels=source.labels, buckets=buckets)
    config.source.update(corpus=folder, length=64, widths=2, buckets=buckets)
    config.objective.scale = 16.0
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 1.0
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
