"""GPT-2: predicting the next byte-level piece.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
Expected: 2.85 nats a piece on held-out OpenWebText for the smallest (karpathy/nanoGPT README); the released weights
have 3.11 there, zero-shot. Parameters: small 124,439,808, medium 354,823,168, large 774,030,080, xl 1,557,611,200.
Hardware and time: the paper gives neither; nanoGPT's run of the smallest took about four days on eight A100.

The paper gives 512 rows of 1,024 pieces, a vocabulary of 50,257 and the initial values, and neither learning rate
("manually tuned") nor number of steps. Those, AdamW's constants and the missing dropout are nanoGPT's, the rates of the
larger sizes those of GPT-3's models of like size (Brown et al. 2020, table 2.1):

    python -m ctxjax.prepare --input TEXT... --output corpora/bytes --tokenizer byte_bpe
    python -m ctxjax.train --config experiments/gpt2/pretrain.py:size=small --workdir runs/gpt2 \
        --config.source.corpus=corpora/bytes

Arguments:
    size=small|medium|large|xl  12x768, 24x1024, 36x1280, 48x1600 (depth x width).
    size=mini   4x256 with rows of 256 and dropout 0.1: 32 rows, 20,000 steps, for text at hand and a machine at hand.
    isolate=True  documents of a row do not see one another; in the published model they do.
    smoke       2 narrow layers, 20 steps on generated text, in seconds.
`--vocab FOLDER` of prepare takes the published encoder.json and vocab.bpe. The corpus is
$CTXJAX_DATA/prepared/bytes unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, placeholder, prepared, run_config

# depth, width, heads, pieces a row, rows, learning rate, steps, warm-up, dropout
SIZES = {
    "mini": (4, 256, 4, 256, 32, 1e-3, 20_000, 1_000, 0.1),
    "small": (12, 768, 12, 1024, 512, 6e-4, 600_000, 2_000, 0.0),
    "medium": (24, 1024, 16, 1024, 512, 3e-4, 600_000, 2_000, 0.0),
    "large": (36, 1280, 20, 1024, 512, 2.5e-4, 600_000, 2_000, 0.0),
    "xl": (48, 1600, 25, 1024, 512, 2e-4, 600_000, 2_000, 0.0),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="small", isolate=False, smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    depth, width, heads, length, rows, lr, steps, warmup, dropout = SIZES[arg.size]

    config = run_config(every="1000 steps", keep=3)
    config.batch_size = rows
    config.total = f"{steps} steps"
    config.vocab_multiple = 128
    config.model = dict(
        name="gpt2",
        vocab_size=50257,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=4 * width,
        max_len=length,
        dropout=dropout,
        attention_dropout=dropout,
        scaled_residuals=True,
        dtype="float32",
        param_dtype="float32",
        remat="none",
        scan="deep",
        attention_implementation=placeholder(str),
    )
    config.objective = dict(name="causal_lm")
    config.source = dict(
        name="blocks",
        corpus=prepared("bytes"),
        split="train",
        length=length,
        verify=False,
    )
    if arg.isolate:
        config.source.isolate = True
    config.optim = dict(
        name="adamw",
        lr=lr,
        schedule=dict(name="cosine", warmup=f"{warmup} steps", end=0.1),
        clip=1.0,
        weight_decay=0.1,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.95,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(rows, 64), seed=0))
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on a generated corpus, at a constant rate."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("byte_bpe")), width=32, depth=2, num_heads=2, mlp_dim=64)
    config.model.update(max_len=32, dropout=0.0, attention_dropout=0.0)
    config.source.update(corpus=generated_corpus("byte_bpe"), length=32)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
