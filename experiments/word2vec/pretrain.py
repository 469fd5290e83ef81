"""word2vec: skip-gram or CBOW over running words.

Paper: Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality".
Expected: 59 % of the analogies for skip-gram with 5 negatives and 300 dimensions on a billion words of news, 47 % with
a Huffman tree (table 1 of the paper, from memory).
Hardware and time: the table gives 38 and 41 minutes; the paper does not name the machine.

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 50000 --min_count 5
    python -m ctxjax.train --config experiments/word2vec/pretrain.py:recipe=skipgram --workdir runs/word2vec \
        --config.source.corpus=corpora/words

Arguments:
    recipe=skipgram|cbow|skipgram_tree|cbow_tree  5 negatives, or the Huffman tree; rates of 0.025 and 0.05, windows of
        1 to 5, sub-sampling at 1e-3, 5 passes: the defaults of the released code.
    size=published  100 dimensions and a vocabulary of 50,000, as the released code's demonstration is about.
    size=news       300 dimensions, 692,000 words, as in the paper.
    smoke           20 steps on generated text, in seconds.
A step is a sum over 65,536 words, where the original steps after every one; `optim.row_clip` keeps the rows of frequent
words from overshooting. The corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

SIZES = {"published": (50_000, 100), "news": (692_000, 300)}  # vocabulary, width
RATES = {"skipgram": 0.025, "cbow": 0.05, "skipgram_tree": 0.025, "cbow_tree": 0.05}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", recipe="skipgram", smoke=False)
    for name, known in (("size", SIZES), ("recipe", RATES)):
        if arg[name] not in known:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(known)}")
    vocab_size, width = SIZES[arg.size]
    method, _, tree = arg.recipe.partition("_")

    config = run_config(every="500 steps")
    config.batch_size = 64
    config.total = "5 epochs"
    config.model = dict(
        name="word2vec", vocab_size=vocab_size, width=width, depth=0, dtype="float32", param_dtype="float32"
    )
    config.objective = dict(
        name=method,
        negatives=5,
        hierarchical=bool(tree),
        outside="skip" if tree else "saturate",
        scale=64.0 * 1024,  # the words of a batch: the loss is their sum
    )
    config.source = dict(
        name="running_words",
        corpus=prepared("words"),
        split="train",
        length=1024,
        window=5,
        dynamic=True,
        sample=1e-3,
        negatives=32,
        block=64,
        exponent=0.75,
        tree=bool(tree),
        verify=False,
    )
    config.optim = dict(
        name="sgd",
        lr=RATES[arg.recipe],
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

    config.model.update(vocab_size=len(make_tokenizer("words")), width=16)
    config.source.update(corpus=generated_corpus("words"), length=64, block=32, negatives=8, sample=0.05)
    config.objective.scale = 16.0 * 64
    config.update(batch_size=16, total="20 steps")
    config.optim.update(lr=0.2, row_clip=5.0)
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
