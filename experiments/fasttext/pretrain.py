"""fastText: skip-gram over words that are made of character n-grams.

Paper: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information".
Expected: Spearman's 0.71 on WS-353, 77.8 % of the semantic and 74.9 % of the syntactic analogies (tables 1 and 2,
from memory; English Wikipedia, 300 dimensions).
Hardware and time: 105,000 words a second and thread (section 4.5); the machine is not named.

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 50000 --min_count 5
    python -m ctxjax.train --config experiments/fasttext/pretrain.py --workdir runs/fasttext \
        --config.source.corpus=corpora/words

Arguments:
    size=published  100 dimensions, 2,000,000 buckets of n-grams of 3 to 6 characters, a rate of 0.05, sub-sampling at
        1e-4, 5 negatives, 5 passes: the defaults of the released code.
    size=small      100,000 buckets, for text at hand and a machine at hand.
    smoke           20 steps on generated text, in seconds.
A step is a sum over 65,536 words, where the original steps after every one; `optim.row_clip` keeps the rows of frequent
words from overshooting. The corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

SIZES = {"published": (50_000, 2_000_000), "small": (50_000, 100_000)}  # vocabulary, buckets


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    vocab_size, buckets = SIZES[arg.size]

    config = run_config(every="500 steps")
    config.batch_size = 64
    config.total = "5 epochs"
    config.model = dict(
        name="fasttext",
        vocab_size=vocab_size,
        width=100,
        depth=0,
        buckets=buckets,
        shortest=3,
        longest=6,
        undivided=True,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(
        name="skipgram",
        negatives=5,
        window_of="input",
        outside="saturate",
        limit=8.0,
        scale=64.0 * 1024,  # the words of a batch: the loss is their sum
    )
    config.source = dict(
        name="running_words",
        corpus=prepared("words"),
        split="train",
        length=1024,
        window=5,
        dynamic=True,
        sample=1e-4,
        negatives=32,
        block=64,
        exponent=0.5,
        buckets=buckets,
        shortest=3,
        longest=6,
        max_subwords=40,
        verify=False,
    )
    config.optim = dict(
        name="sgd",
        lr=0.05,
        schedule=dict(name="warmup_linear", end=1e-4),
        clip=0.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        row_clip=20.0,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=8, batch_size=16, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Narrow tables and 20 steps on a generated corpus, at a constant rate at which they learn."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=16, buckets=500)
    config.source.update(corpus=generated_corpus("words"), length=64, block=32, negatives=8, sample=0.05)
    config.source.update(buckets=500, max_subwords=20)
    config.objective.scale = 16.0 * 64
    config.update(batch_size=16, total="20 steps")
    config.optim.update(lr=0.2, row_clip=5.0)
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
