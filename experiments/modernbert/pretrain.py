"""ModernBERT, the masked encoder of today: rotary positions, gated MLPs, local attention, no biases, 30 % masked.

Paper: Warner et al. 2024, "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory Efficient,
and Long Context Finetuning and Inference"; recipe=cramming: Geiping and Goldstein 2023, "Cramming: Training a Language
Model on a Single GPU in One Day".
Expected: parameters with the masked-word head: base 149,655,232, large 395,881,664 (vocabulary of 50,368).
Hardware and time: the paper trained on 8 H100, base for 194 hours; cramming is one GPU for a day.

    python -m ctxjax.prepare --input TEXT... --output corpora/pieces --tokenizer wordpiece --vocab_size 30522
    python -m ctxjax.train --config experiments/modernbert/pretrain.py:size=small --workdir runs/modernbert-small \
        --config.source.corpus=corpora/pieces

The vocabulary is what the corpus has: 30,522 word pieces unless --config.model.vocab_size says otherwise (the published
one, of 50,368, is a byte-level BPE with mask pieces). AdamW takes the place of the published StableAdamW, whose clip of
each tensor's update is a global clip of 1.0 here.

Arguments:
    size=mini|small|base|large  4x256, 6x512, 22x768, 28x1024 (depth x width). mini and small have RMSNorm and default
        to a run for text at hand and a machine at hand: 32 rows of 128 pieces at 1e-3.
    recipe=published|cramming   published: warm-up, a plateau, and 1 - sqrt decay (WSD), betas 0.9 and 0.98, decay 1e-5,
        rate 8e-4 (base) or 5e-4 (large), 4,608 (4,928) rows of 1,024. cramming: 16 layers of 768, 4,096 rows of 128
        without a ramp, 25 % masked, clip 0.5, Adam with beta2 0.98 and eps 1e-12, decay 0.01, rate 1e-3 that rises for
        half of the run and falls. The figures of both recipes are from memory of the papers, not from their code.
    isolate=True                documents of a row do not see one another.
    smoke                       2 layers, 20 steps on generated text, in seconds.
The corpus is $CTXJAX_DATA/prepared/pieces unless --config.source.corpus names another.
"""

import ml_collections

from ctxjax.config import ConfigError, parse_arg, placeholder, prepared, run_config

# depth, width, heads, width of each half of the MLP
SIZES = {"mini": (4, 256, 4, 512), "small": (6, 512, 8, 1024)}
SIZES |= {"base": (22, 768, 12, 1152), "large": (28, 1024, 16, 2624)}
# rows, pieces of a row, learning rate, steps, warm-up, share of the steps that decays
RUNS = {
    "mini": (32, 128, 1e-3, 40_000, 1_000, 20),
    "small": (32, 128, 1e-3, 100_000, 2_000, 20),
    "base": (4_608, 1_024, 8e-4, 360_000, 640, 3),
    "large": (4_928, 1_024, 5e-4, 340_000, 400, 3),
}
RECIPES = ("published", "cramming")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """See the top of this file."""
    arg = parse_arg(arg, size="base", recipe="published", isolate=False, smoke=False)
    for name, choices in (("size", SIZES), ("recipe", RECIPES)):
        if arg[name] not in choices:
            raise ConfigError(f"config argument {name}={arg[name]!r} is not one of {', '.join(choices)}")
    depth, width, heads, mlp_dim = SIZES[arg.size]
    rows, length, lr, steps, warmup, decay = RUNS[arg.size]

    config = run_config(every="1000 steps", keep=3)
    config.model = dict(
        name="modernbert",
        vocab_size=30522,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_dim=mlp_dim,
        max_len=8192 if arg.size in ("base", "large") else 512,
        dropout=0.0,
        norm="layer" if arg.size in ("base", "large") else "rms",
        window=128,
        global_every=3,
        rope_base=160_000.0,
        local_rope_base=10_000.0,
        scaled_residuals=True,
        dtype="float32",
        param_dtype="float32",
        remat="none",
        scan="deep",
        attention_implementation=placeholder(str),
    )
    config.objective = dict(name="masked_lm", next_sentence=False)
    config.source = dict(
        name="masked_blocks",
        corpus=prepared("pieces"),
        split="train",
        length=length,
        mask_prob=0.3,
        verify=False,
    )
    if arg.isolate:
        config.source.isolate = True
    config.batch_size = rows
    config.total = f"{steps} steps"
    config.optim = dict(
        name="adamw",
        lr=lr,
        schedule=dict(
            name="warmup_stable_decay", warmup=f"{warmup} steps", decay=f"{decay} percent", shape="sqrt", end=0.0
        ),
        clip=1.0,
        weight_decay=1e-5 if arg.size in ("base", "large") else 0.01,
        decay_exclude=r"(^|[/_])norm/|(^|/)bias$",
        lr_multipliers=((".*", 1.0),),
        frozen="",
        b1=0.9,
        b2=0.98,
        eps=1e-8,
    )
    if arg.recipe == "cramming":
        _cramming(config)
    config.evals = dict(
        heldout=dict(name="objective", split="heldout", batches=50, batch_size=min(config.batch_size, 256), seed=0)
    )
    if arg.smoke:
        _smoke(config)
    return config


def _cramming(config: ml_collections.ConfigDict) -> None:
    """One GPU, one day: a small base, short rows, a high rate."""
    config.model.update(depth=16, width=768, num_heads=12, mlp_dim=1536, norm="layer", global_every=1)
    config.source.update(length=128, mask_prob=0.25)
    config.batch_size = 4096
    config.total = "50000 steps"
    config.optim.update(lr=1e-3, clip=0.5, weight_decay=0.01, b2=0.98, eps=1e-12)
    config.optim.schedule = dict(name="warmup_linear", warmup="50 percent")


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Two narrow layers and 20 steps on a generated corpus, from fresh parameters at a constant rate."""
    from ctxjax.data.generated import generated_corpus, make_tokenizer

    config.model.update(vocab_size=len(make_tokenizer("wordpiece")), width=32, depth=2, num_heads=2, mlp_dim=48)
    config.model.update(max_len=64, window=8, global_every=2)
    config.source.update(corpus=generated_corpus("wordpiece"), length=32)
    config.update(batch_size=16, accum_steps=1, total="20 steps")
    config.optim.lr = 5e-3
    config.optim.schedule = dict(name="constant")
    config.update(log_every="5 steps", save_every="10 steps", eval_every="20 steps")
    config.evals.heldout.update(batches=2, batch_size=16)
