"""GloVe: weighted least squares of the logarithms of co-occurrence counts.

Paper: Pennington et al. 2014, "GloVe: Global Vectors for Word Representation".
Expected: Spearman's 65.8 on WS-353 and 71.7 % of the analogies (tables 2 and 3, from memory; 6 billion
words, 300 dimensions).
Hardware and time: 85 minutes to count on one core, and 14 minutes a pass on 32, of a 2.1 GHz Xeon E5-2658 (4.6).

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 50000 --min_count 5
    python -m ctxjax.train --config experiments/glove/pretrain.py --workdir runs/glove \
        --config.source.corpus=corpora/words

Arguments:
    size=published  300 dimensions, 400,000 words, windows of 15 to either side, x_max of 100, 100 passes.
    size=small      50 dimensions, 50,000 words, x_max of 10, 15 passes: the released demonstration.
    smoke           20 steps on generated text, in seconds.
A step is a sum over 16,384 pairs, where the original steps after every one; `optim.row_clip` keeps the rows of frequent
words from overshooting. Biases step with a rate of 1, as they do in
the released code since it clips gradients; `--config.optim.bias_scale=0.05` and a multiplier of 1 are from before. The
corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

# vocabulary, width, x_max, passes
SIZES = {"published": (400_000, 300, 100.0, 100), "small": (50_000, 50, 10.0, 15)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    vocab_size, width, x_max, passes = SIZES[arg.size]

    config = run_config(every="500 steps")
    config.batch_size = 16
    config.total = f"{passes} epochs"
    config.model = dict(
        name="glove", vocab_size=vocab_size, width=width, rare=100, depth=0, dtype="float32", param_dtype="float32"
    )
    config.objective = dict(
        name="glove",
        x_max=x_max,
        alpha=0.75,
        scale=16.0 * 1024,  # the pairs of a batch: the loss is their sum
    )
    config.source = dict(
        name="cooccurrences",
        corpus=prepared("words"),
        split="train",
        length=1024,
        window=15,
        verify=False,
    )
    config.optim = dict(
        name="adagrad_glove",
        lr=0.05,
        schedule=dict(name="constant"),
        clip=0.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((r"bias$", 20.0), (".*", 1.0)),
        frozen="",
        scale=0.05,
        bias_scale=1.0,
        limit=100.0,
        row_clip=1.0,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=8, batch_size=16, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Narrow tables and 20 steps on a generated corpus, at a constant rate at which they learn."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=16)
    config.source.update(corpus=generated_corpus("words"), length=64, window=5)
    config.objective.scale = 16.0 * 64
    config.update(batch_size=16, total="20 steps")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
