"""The Transformer: translation, and the model that all later ones here are halves of.

Paper: Vaswani et al. 2017, "Attention Is All You Need". Code: tensorflow/tensor2tensor, `transformer_base_v1`.
Expected: BLEU of 27.3 (base) and 28.4 (big) on newstest2014, English to German, with beam 4, length penalty 0.6 and the
mean of the last 5 or 20 checkpoints. Parameters: the paper says 65 M and 213 M; with its 37,000 pieces that is
63,045,632 and 214,171,648 here.
Hardware and time: 8 P100; base 100,000 steps in 12 hours, big 300,000 steps in 3.5 days.

    python -m ctxjax.prepare --pairs train.en train.de --output corpora/ende --tokenizer byte_bpe --vocab_size 37000
    python -m ctxjax.train --config experiments/transformer/pretrain.py:size=base --workdir runs/transformer \
        --config.source.corpus=corpora/ende
    python -m ctxjax.evaluate --workdir runs/transformer --config experiments/transformer/pretrain.py:size=base,bleu \
        --config.source.corpus=corpora/ende --only bleu \
        --config.evals.bleu.source=test.en --config.evals.bleu.target=test.de

Arguments:
    size=base|big  6x512 and 6x1024 (depth x width): 100 rows of 256 places a side, about 24,000 pieces each, as the
        paper's 25,000; dropout 0.1 and 0.3; Adam at 0.9, 0.98, 1e-9, warm-up of 4,000 steps, label smoothing 0.1.
    size=multi30k  4x256 with dropout 0.3 and a vocabulary of 8,000, for the 29,000 pairs of Multi30k: 4,096 places.
    size=small     2x128 for the same on two cores: 2,048 places, a quarter of an hour.
    bleu           BLEU of held-out pairs at every evaluation, which needs the extra [bleu].
    smoke          2 narrow layers, 20 steps on generated pairs, in seconds.
The corpus is $CTXJAX_DATA/prepared/pairs unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, prepared, run_config

# vocabulary, depth, width, heads, dropout, places a row, rows, factor of the rate, warm-up, steps
SIZES = {
    "small": (8_000, 2, 128, 4, 0.1, 128, 16, 1.0, 400, 3_000),
    "multi30k": (8_000, 4, 256, 4, 0.3, 128, 32, 1.0, 2_000, 8_000),
    "base": (37_000, 6, 512, 8, 0.1, 256, 100, 1.0, 4_000, 100_000),
    "big": (37_000, 6, 1024, 16, 0.3, 256, 100, 1.0, 4_000, 300_000),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="base", bleu=False, smoke=False)
    if arg.size not in SIZES:
        raise ConfigError(f"config argument size={arg.size!r} is not one of {', '.join(SIZES)}")
    vocab_size, depth, width, heads, dropout, length, rows, factor, warmup, steps = SIZES[arg.size]

    config = run_config(every="5 percent", keep=3)
    config.batch_size = rows
    config.total = f"{steps} steps"
    config.model = dict(
        name="transformer",
        vocab_size=vocab_size,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=4 * width,
        dropout=dropout,
        attention_dropout=0.0,
        mlp_dropout=0.0,
        pre_norm=False,
        attention_bias=False,
        sinusoid="concatenated",
        dtype="float32",
        param_dtype="float32",
        remat="none",
    )
    config.objective = dict(name="causal_lm", label_smoothing=0.1, spared=-1)
    config.source = dict(
        name="translation",
        corpus=prepared("pairs"),
        split="train",
        length=length,
        packed=True,
        reverse=False,
        verify=False,
    )
    config.optim = dict(
        name="adamw",
        lr=factor,
        schedule=dict(name="inverse_sqrt", warmup=f"{warmup} steps", width=width),
        clip=0.0,
        weight_decay=0.0,
        decay_exclude="",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.98,
        eps=1e-9,
    )
    config.evals = dict(heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(rows, 16), seed=0))
    if arg.bleu:
        config.evals.bleu = dict(
            name="bleu", split="heldout", source="", target="", output="", beam=4, alpha=0.6, pairs=500
        )
    if arg.smoke:
        _smoke(config)
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on generated pairs, at a constant rate."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("byte_bpe")), width=32, depth=2, num_heads=2, mlp_dim=64)
    config.model.dropout = 0.0
    config.source.update(corpus=generated_corpus("byte_bpe", pairs=True), length=32)
    config.update(batch_size=16, total="20 steps")
    config.optim.lr = 3e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
    if "bleu" in config.evals:
        config.evals.bleu.pairs = 8
