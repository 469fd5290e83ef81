r"""NNLM: a neural network on the vectors of the few words before the next.

Paper: Bengio et al. 2003, "A Neural Probabilistic Language Model".
Expected: on the Brown corpus (16,383 words) a test perplexity of 252 mixed with a trigram model, against 312 of the
best back-off model (table 1 of the paper, from memory).
Hardware and time: the paper took three weeks on 40 processors for AP news; a step here is milliseconds on two cores.

    python -m ctxjax.prepare --input TEXT... --output corpora/words --tokenizer words --vocab_size 50000
    python -m ctxjax.train --config experiments/nnlm/pretrain.py --workdir runs/nnlm \
        --config.source.corpus=corpora/words

As published: a tanh layer with direct connections to the softmax, stochastic gradient descent, rate 1e-3 falling
as 1 / (1 + 1e-8 t) with t the words seen, decay 1e-4 on the products and not on biases. The paper steps after every
word; a batch of B words here steps once by the sum of their gradients, a rate of B times as much, cut at a norm of 1 of
their mean. `size=small` has Adam.

Arguments:
    size=published|small   30 features, 100 hidden units, 4 words; 64, 256, 4 and Adam.
    smoke                  20 steps on generated text, in seconds.
The corpus is $CTXJAX_DATA/prepared/words unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

# words, features of a word, hidden units
SIZES = {"published": (16_383, 30, 100), "small": (50_000, 64, 256)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="published", smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    words, width, hidden = SIZES[arg.size]
    published = arg.size == "published"
    config = run_config(every="1000 steps")
    config.log_every = "100 steps"
    config.batch_size = 32
    config.total = "20 epochs" if published else "3 epochs"
    config.model = dict(
        name="nnlm",
        vocab_size=words,
        width=width,
        mlp_dim=hidden,
        context=4,
        direct=True,
        dropout=0.0,
        dtype="float32",
        param_dtype="float32",
    )
    config.objective = dict(name="causal_lm")
    config.source = dict(
        name="running",
        corpus=prepared("words"),
        split="train",
        length=32,
        variable=False,
        longest_first=False,
        direction="forward",
        verify=False,
    )
    tokens = config.batch_size * config.source.length
    config.optim = dict(
        name="sgd",
        lr=1e-3 * tokens,
        schedule=dict(name="inverse", rate=1e-8 * tokens),
        clip=1.0,
        weight_decay=1e-4,
        decay_exclude=r"(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
    )
    if not published:
        config.optim = dict(
            name="adamw",
            lr=1e-3,
            schedule=dict(name="cosine", warmup="1 percent"),
            clip=1.0,
            weight_decay=0.0,
            decay_exclude="",
            lr_multipliers=((".*", 1.0),),
            frozen="",
        )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=0, batch_size=32, seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """A narrow network and 20 steps on a generated corpus."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("words")), width=16, mlp_dim=32)
    config.source.update(corpus=generated_corpus("words"), length=16)
    config.update(batch_size=8, total="20 steps")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.optim.lr = 4.0 if config.optim.name == "sgd" else 1e-2
    config.optim.schedule = dict(name="constant")
    config.evals.heldout.update(batches=2, batch_size=8)
